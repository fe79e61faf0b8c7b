"""Samples of models whose responses may come too early or too late: draw until enough are in time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# A theta that responds less often, or is not done after so many rounds, has no samples.
MIN_RESPONSES = 1e-6
ROUNDS = 300


def draw_in_time(
    draw: Callable[[], tuple[np.ndarray, np.ndarray]], limit: np.ndarray, responses: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw again and again until each theta has n responses after 0 and before its limit.

    Args:
        draw: returns (B, n) response times and choices.
        limit: (B,) largest response time, seconds.
        responses: (B,) probability of a response in time.
        n: responses that each theta gets.

    Returns:
        (B, n) response times and choices, nan for a theta that hardly ever responds in time.
    """
    n_theta = len(limit)
    rt, choice = np.full((2, n_theta, n), np.nan)
    filled = np.where(responses < MIN_RESPONSES, n, 0)
    for _ in range(ROUNDS):
        if (filled == n).all():
            break
        time, side = draw()
        for b in np.flatnonzero(filled < n):
            taken = np.flatnonzero((time[b] > 0) & (time[b] < limit[b]))[: n - filled[b]]
            into = slice(filled[b], filled[b] + len(taken))
            rt[b, into], choice[b, into] = time[b, taken], side[b, taken]
            filled[b] += len(taken)
    scarce = filled < n
    rt[scarce], choice[scarce] = np.nan, np.nan
    return rt, choice
