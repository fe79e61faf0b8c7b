"""Numbers as people read them."""

from __future__ import annotations


def fixed(value: float, digits: int) -> str:
    """``value`` with so many digits after the point, or as a power of ten where these would hold less than one of its
    own: 0.0186, 1.2e-05."""
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10.0**-digits else f"{value:.1e}"
