"""``lanline``: what looks at, moves and tidies records of runs."""

from __future__ import annotations

import sys

from lanline.errors import UserError


def main() -> None:
    """Run ``lanline ...``: the same commands as ``python -m lanline.tracking``."""
    from lanline.tracking.__main__ import main as tracking

    try:
        tracking(program="lanline")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
