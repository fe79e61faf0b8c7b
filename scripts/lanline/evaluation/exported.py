"""Evaluate the exported ONNX file, the one that HSSM loads, at many trials a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lanline.errors import UserError
from lanline.networks.onnx_files import load_onnx, run_onnx, start_session

LogLikelihood = Callable[[np.ndarray], np.ndarray]

CHUNK = 16_384  # rows a call: the layers' activations stay in the cache
BATCH_TOLERANCE = 1e-5  # float32 sums in another order, relative to max(1, |output|)


def open_network(path: Path, sample: np.ndarray, threads: int = 1) -> LogLikelihood:
    """The log-likelihood function of an exported network.

    The file takes one trial a call, shape (1, D). A copy in memory has its batch axis opened; nothing else changes,
    and the copy must return what the file itself returns, trial by trial, at ``sample``.

    Args:
        path: ONNX file.
        sample: (k, D) inputs to compare at, columns params..., rt, choice.
        threads: threads of the matrix products.

    Returns:
        A function from inputs (n, D) to log-likelihoods (n,) in float64, nats.

    Raises:
        UserError: the file is missing, no ONNX file or not whole, does not take one trial of D inputs, or does not
            compute the same for many trials as for one.
    """
    model = load_onnx(path)
    n_inputs = sample.shape[1]
    shapes = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in model.graph.input]
    if shapes != [[1, n_inputs]]:
        raise UserError(f"{path} has inputs of shape {shapes}, expected one of shape [1, {n_inputs}]")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "trials"
    del model.graph.value_info[:]
    session = start_session(model, path, threads)
    name = model.graph.input[0].name

    def log_likelihood(rows: np.ndarray) -> np.ndarray:
        out = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK].astype(np.float32)
            out[start : start + CHUNK] = session.run(None, {name: chunk})[0].reshape(len(chunk))
        return out

    single = run_onnx(path, sample)
    difference = np.abs(log_likelihood(sample) - single) / np.maximum(1, np.abs(single))
    if not difference.max() <= BATCH_TOLERANCE:
        raise UserError(
            f"{path} returns different values for many trials than for one: they differ by {difference.max():.2g}"
        )
    return log_likelihood
