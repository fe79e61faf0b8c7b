"""The verdict: does a network meet the limits of the configuration?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lanline.config import Gate
from lanline.evaluation.likelihood.metrics import Metrics
from lanline.evaluation.numbers import fixed
from lanline.evaluation.probability.metrics import ProbabilityMetrics


@dataclass(frozen=True)
class Criterion:
    """One number, its limits, and whether it is within them.

    Attributes:
        metric: name in `lanline.evaluation.likelihood.metrics.Metrics`, or in `ProbabilityMetrics`.
        value: what the network has.
        lower: smallest allowed value, or None.
        upper: largest allowed value, or None.
        passed: whether the value lies between them.
    """

    metric: str
    value: float
    lower: float | None
    upper: float | None
    passed: bool

    def __str__(self) -> str:
        limits = [(">=", self.lower), ("<=", self.upper)]
        limit = " and ".join(f"{sign} {value:g}" for sign, value in limits if value is not None)
        return f"{self.metric:<15}  {fixed(self.value, 4):>7}  {limit:<8}  {'pass' if self.passed else 'FAIL'}"


@dataclass(frozen=True)
class Verdict:
    """The gate's criteria, one line each; a network passes when all of them do."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        return all(criterion.passed for criterion in self.criteria)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.criteria), f"gate: {'passed' if self.passed else 'FAILED'}"])

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "criteria": [asdict(criterion) for criterion in self.criteria]}


def check_gate(metrics: Metrics | ProbabilityMetrics, gate: Gate) -> Verdict:
    """Hold the metrics against the limits of ``evaluation.gate``; a value on the limit passes."""
    if isinstance(metrics, ProbabilityMetrics):
        return Verdict(
            (
                _criterion("mae", metrics.mae, None, gate.max_mae),
                _criterion("probability_mae", metrics.probability_mae, None, gate.max_probability_error),
            )
        )
    lowest_mass, highest_mass = gate.mass
    return Verdict(
        (
            _criterion("mae", metrics.mae, None, gate.max_mae),
            _criterion("mass_q05", metrics.mass_q05, lowest_mass, None),
            _criterion("mass_q95", metrics.mass_q95, None, highest_mass),
        )
    )


def evaluation_record(metrics: Metrics | ProbabilityMetrics, verdict: Verdict) -> dict[str, Any]:
    """Content of an evaluation's metrics.json: the metrics by name, and the gate's verdict under ``gate``."""
    return {**asdict(metrics), "gate": verdict.to_json()}


def _criterion(metric: str, value: float, lower: float | None, upper: float | None) -> Criterion:
    passed = (lower is None or value >= lower) and (upper is None or value <= upper)
    return Criterion(metric, value, lower, upper, passed)
