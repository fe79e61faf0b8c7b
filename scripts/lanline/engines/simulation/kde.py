"""A fast kernel density estimate of response times: Gaussian kernels on log rt.

The estimator is the field's (LogKDE of ssm-simulators: Silverman bandwidth, kernels on log rt, one estimate
per choice, weighted with the choice's share of all trials). It is computed on a grid: linear binning, then
convolution with the kernel. Binning adds a variance of dx^2 / 6 to the estimate, so the kernel is made
narrower by just that.

The convolution is a plain sum over occupied bins, not an FFT: an FFT's rounding errors are relative to the
peak, and training labels reach down to exp(-66).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanline.engines.compiled import njit

BINS_PER_BANDWIDTH = 24
# Kernels are cut where they have fallen to exp(-67): below any floor that labels have.
CUTOFF = 11.6
MIN_SPREAD = 1e-3  # smallest standard deviation of log rt, as in ssm-simulators
SPREAD_OF_ONE = 10.0  # standard deviation that ssm-simulators assumes for a single trial


@dataclass(frozen=True)
class LogRtDensity:
    """Log-density of log rt on a uniform grid.

    Attributes:
        bandwidth: of the kernels, in log seconds.
        first: log rt of the first grid point.
        step: distance of the grid points in log rt.
        values: (G,) log-density of log rt; -inf where no kernel reaches.
    """

    bandwidth: float
    first: float
    step: float
    values: np.ndarray

    def log_density(self, rt: np.ndarray) -> np.ndarray:
        """Log-density of rt (per second) at each positive ``rt``, any shape."""
        log_rt = np.log(rt)
        return _interpolate(log_rt, self.first, self.step, self.values) - log_rt


def silverman_bandwidth(log_rt: np.ndarray) -> float:
    """Bandwidth of Silverman (1986, p. 45) as ssm-simulators applies it."""
    spread = max(float(np.std(log_rt)), MIN_SPREAD) if len(log_rt) > 1 else SPREAD_OF_ONE
    return (4 / (3 * len(log_rt))) ** 0.2 * spread


def fit(rt: np.ndarray) -> LogRtDensity:
    """Estimate the density of positive response times.

    Args:
        rt: (n,) response times in seconds, n >= 1, without omissions.
    """
    log_rt = np.log(rt.astype(np.float64))
    bandwidth = silverman_bandwidth(log_rt)
    step = bandwidth / BINS_PER_BANDWIDTH
    taps = math.ceil(CUTOFF * BINS_PER_BANDWIDTH)
    low = float(log_rt.min())
    first = low - taps * step
    n_grid = math.ceil((float(log_rt.max()) - low) / step) + 2 * taps + 2
    variance = 1 - 1 / (6 * BINS_PER_BANDWIDTH**2)
    offset = np.arange(-taps, taps + 1) / BINS_PER_BANDWIDTH
    kernel = np.exp(-0.5 * offset**2 / variance) / math.sqrt(2 * math.pi * variance)
    sums = _binned_sum(log_rt, low, step, kernel, n_grid)
    with np.errstate(divide="ignore"):
        values = np.log(sums) - math.log(len(rt) * bandwidth)
    return LogRtDensity(bandwidth, first, step, values)


@njit(cache=True, nogil=True)
def _binned_sum(log_rt, low, step, kernel, n_grid):
    """Sum of kernels around the data, on the grid; the grid point of ``low`` is half a kernel from its
    start."""
    counts = np.zeros(n_grid)
    for x in log_rt:
        position = (x - low) / step
        j = int(position)
        counts[j] += j + 1 - position
        counts[j + 1] += position - j
    sums = np.zeros(n_grid)
    n_taps = len(kernel)
    for j in range(n_grid - n_taps + 1):
        if counts[j] > 0.0:
            for i in range(n_taps):
                sums[j + i] += counts[j] * kernel[i]
    return sums


@njit(cache=True, nogil=True)
def _interpolate(log_rt, first, step, values):
    """Catmull-Rom cubic between grid points, -inf outside."""
    flat = log_rt.ravel()
    out = np.empty(len(flat))
    for i, x in enumerate(flat):
        position = (x - first) / step
        if not (1.0 <= position < len(values) - 2):
            out[i] = -math.inf
            continue
        j = int(position)
        u = position - j
        a, b, c, d = values[j - 1], values[j], values[j + 1], values[j + 2]
        value = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
        out[i] = value if not math.isnan(value) else -math.inf
    return out.reshape(log_rt.shape)
