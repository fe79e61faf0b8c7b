"""The life of one experiment: prepare data, build, train, evaluate, and leave a record of all of it.

    class MyExperiment(BaseExperiment):
        def prepare_data(self): ...
        def build_model(self): ...
        def train(self, model, data): ...
        def evaluate(self, model, data): return {"accuracy": 0.95, "loss": 0.15}

    MyExperiment("config.yaml").run()

writes ``reports/<name>/config.yaml``, ``metrics.json``, ``figures/`` and a journal; with ``mlflow_tracking:
true`` in the configuration the same goes to MLflow.
"""

from __future__ import annotations

import json
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from lanline.errors import UserError
from lanline.files import atomic_path, read_yaml, write_config, write_json
from lanline.tracking.journal.opening import open_run
from lanline.tracking.journal.recorder import RunRecorder
from lanline.tracking.mlflow.store import Store, experiment_name, resolve_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULTS = {"seed": None, "mlflow_tracking": False, "mlflow_experiment_name": None}


class BaseExperiment(ABC):
    """Subclass it, define `evaluate` and those of the three steps before it that there are, and call `run`.

    Args:
        config: dict, path of a YAML file, or an object with these attributes: ``name`` (required), ``seed``,
            ``mlflow_tracking`` (default false), ``mlflow_experiment_name`` (default: MLFLOW_EXPERIMENT_NAME, then
            the name). All else in it is the subclass's own and is recorded as params.
        module_dir: folder that ``reports/`` lies in; default: the working directory.

    Attributes:
        config: the configuration with its values as attributes.
        tracking: the run that is being recorded, from the first step on: ``self.tracking.log_params`` and so
            on.

    Raises:
        UserError: the configuration cannot be read, or has no name.
    """

    follow = True  # sync the record to MLflow while the experiment runs; False for one of a few seconds
    on_outage = "spool"  # or "fail": see lanline.tracking.journal.opening.open_run
    tracking: RunRecorder

    def __init__(self, config: Mapping[str, Any] | str | Path | Any, module_dir: Path | str | None = None) -> None:
        self.config = _read_config(config)
        self.module_dir = Path(module_dir or ".")

    # --- the four steps -----------------------------------------------------------------------------------
    def prepare_data(self) -> Any:
        """The data that `train` and `evaluate` get."""
        return None

    def build_model(self) -> Any:
        """The model before training."""
        return None

    def train(self, model: Any, data: Any) -> Any:
        """Train; returns the trained model, or None if ``model`` itself was changed."""
        return None

    @abstractmethod
    def evaluate(self, model: Any, data: Any) -> Mapping[str, float]:
        """Metrics of the trained model by name."""

    # --- what a subclass may choose -----------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Name of the run in MLflow and of its report folder."""
        return self.config.name

    @property
    def report_folder(self) -> Path:
        return self.module_dir / "reports" / self.name

    @property
    def experiment_name(self) -> str:
        return experiment_name(None, self.config.mlflow_experiment_name, self.name)

    def store(self) -> Store | None:
        """The MLflow store, or None to leave MLflow out."""
        return resolve_store() if self.config.mlflow_tracking else None

    def params(self) -> dict[str, Any]:
        """Settings that determine the result, flat. An unfinished run with the same ones is resumed."""
        return flatten(self.config_values())

    def config_values(self) -> dict[str, Any]:
        """What goes into config.yaml, as plain values."""
        return plain_values(self.config)

    def tags(self) -> dict[str, str]:
        return {}

    def links(self) -> dict[str, str]:
        """Tags with ids that MLflow may only assign later: see `lanline.tracking.journal.recorder.RunRecorder.link`."""
        return {}

    def description(self) -> str | None:
        """Text at the top of the run in MLflow."""
        return None

    def mlflow_run_id(self) -> str | None:
        """An unfinished MLflow run to resume."""
        return None

    # --- for use in the steps -----------------------------------------------------------------------------
    @property
    def figures(self) -> Path:
        return self.report_folder / "figures"

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers while the experiment runs, e.g. the loss of each epoch."""
        self.tracking.log_metrics(values, step)

    def save_figure(self, figure: Figure, name: str) -> Path:
        """Write ``figures/<name>.png``; it becomes an artifact at the end of the run."""
        path = self.figures / f"{name}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
        return path

    # --- its life -----------------------------------------------------------------------------------------
    def run(self) -> dict[str, float]:
        """Do the four steps and record them. Returns the metrics.

        An exception ends the record as FAILED with its reason, SIGTERM as KILLED; neither is swallowed.
        """
        folder = self.report_folder
        run = open_run(
            folder,
            self.name,
            self.experiment_name,
            store=self.store(),
            on_outage=self.on_outage,
            follow=self.follow,
            params=self.params(),
            tags=self.tags(),
            links=self.links(),
            description=self.description(),
            run_id=self.mlflow_run_id(),
        )
        with run as self.tracking:  # refused while another run writes to the folder, so nothing is touched before
            (folder / "metrics.json").unlink(missing_ok=True)  # those of an earlier run, if this one fails
            older = self._figure_times()
            write_config(folder / "config.yaml", self.config_values())
            run.log_artifact(folder / "config.yaml")
            seed_libraries(self.config.seed)
            data = self.prepare_data()
            model = self.build_model()
            trained = self.train(model, data)
            metrics = self.evaluate(model if trained is None else trained, data)
            metrics = {name: float(value) for name, value in metrics.items()}
            # At the last step: MLflow shows the highest one's value, and a training may log the same name.
            run.log_metrics(metrics, run.last_step)
            write_json(folder / "metrics.json", metrics)
            run.log_artifact(folder / "metrics.json")
            for path, changed in self._figure_times().items():
                if older.get(path) != changed:
                    run.log_artifact(path, "figures")
        return metrics

    def _figure_times(self) -> dict[Path, int]:
        self.figures.mkdir(parents=True, exist_ok=True)
        return {path: path.stat().st_mtime_ns for path in sorted(self.figures.iterdir()) if path.is_file()}


def seed_libraries(seed: int | None) -> None:
    """Seed Python's, numpy's and (where it is imported) torch's global generators. JAX has none."""
    if seed is None:
        return
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def plain_values(config: Any) -> Any:
    """``config`` as dicts, lists, numbers and texts."""
    if hasattr(config, "model_dump"):
        return config.model_dump(mode="json")
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    elif not isinstance(config, Mapping):
        config = vars(config)
    return json.loads(json.dumps(dict(config), default=str))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as params: ``{"training": {"epochs": 2}}`` becomes ``{"training.epochs": 2}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def _read_config(config: Any) -> Any:
    source = "configuration"
    if isinstance(config, str | Path):
        source = str(config)
        config = read_yaml(Path(config))
    if isinstance(config, Mapping):
        config = SimpleNamespace(**{**DEFAULTS, **config})
    missing = [key for key in ("name", *DEFAULTS) if not hasattr(config, key)]
    if missing:
        raise UserError(f"{source}: {', '.join(missing)} missing; an experiment needs at least a name")
    return config
