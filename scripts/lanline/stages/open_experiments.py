"""Stage open_experiments: the tracking store and a model's experiments, made before anything else runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lanline.config import Config, check_experiment_names
from lanline.logs import say
from lanline.paths import Paths
from lanline.sidecars import Experiment, ExperimentsSidecar
from lanline.tracking.mlflow.store import StoreUnavailable, create_experiments, experiment_name, store_of


@dataclass(frozen=True)
class ExperimentsRequest:
    """Which experiments are opened.

    Attributes:
        config: the run's configuration.
        model: name of the model.
        paths: where ``experiments.json`` goes.
    """

    config: Config
    model: str
    paths: Paths


def open_experiments(request: ExperimentsRequest) -> ExperimentsSidecar:
    """Create the store and the experiments of a model where they do not exist, and write ``experiments.json``.

    Raises:
        StoreUnavailable: the store is unreachable, and tracking.on_outage is ``fail``.
    """
    config, model = request.config, request.model
    training_name = experiment_name(None, config.mlflow_experiment_name, f"{model}-training")
    generation, training = find_or_create(config, [f"{model}-data-generation", training_name])
    store = store_of(config)
    experiments = ExperimentsSidecar(
        tracking_uri=store.shown if store else None, data_generation=generation, training=training
    )
    experiments.write(request.paths.experiments(model))
    return experiments


def find_or_create(config: Config, names: Sequence[str]) -> list[Experiment]:
    """Experiments of these names, created in the store if there is one. Raises as `open_experiments` does."""
    ids: dict[str, str] = {}
    check_experiment_names(list(names))
    if store := store_of(config):
        try:
            ids = create_experiments(store, list(names))
        except StoreUnavailable as error:
            if config.tracking.on_outage == "fail":
                raise
            say(f"{error}; continuing, the record is kept on disk")
    return [Experiment(name=name, experiment_id=ids.get(name)) for name in names]
