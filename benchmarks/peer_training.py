"""One training by LANfactory's own classes, called as its jaxtrain and torchtrain call them.

`benchmarks/training.py` runs this in a virtual environment of LANfactory's own, on the same rows as lanline's trainers,
and reads the figures that it prints as its last line.
"""

import json
import pickle
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np
from lanfactory import trainers
from lanfactory.cli.utils import _get_train_network_config
from torch.utils.data import DataLoader


class TimedLoader(DataLoader):
    """Knows when its first batch was asked for, and the seconds that each epoch's loop took."""

    def __iter__(self):
        began = time.time()
        self.first = getattr(self, "first", began)
        yield from super().__iter__()
        self.seconds = [*getattr(self, "seconds", []), time.time() - began]


def main(started: float, framework: str, config: str, files: list[str]) -> None:
    settings = _get_train_network_config(yaml_config_path=config, net_index=0)["config_dict"]
    train_config, network_config = settings["train_config"], settings["network_config"]
    train_config["train_batch_size"] = train_config["cpu_batch_size"]

    def loader(names: list[str]) -> TimedLoader:
        data = trainers.DatasetTorch(
            file_ids=names,
            batch_size=train_config["cpu_batch_size"],
            label_lower_bound=train_config["label_lower_bound"],
            features_key=train_config["features_key"],
            label_key=train_config["label_key"],
        )
        return TimedLoader(data, shuffle=train_config["shuffle_files"], batch_size=None, num_workers=1, pin_memory=True)

    training = files[1:]
    random.shuffle(training)
    train_dl, valid_dl = loader(training), loader(files[:1])
    with Path(files[0]).open("rb") as handle:
        held_out = pickle.load(handle)  # noqa: S301  made by benchmarks/training.py
    x, y = held_out["lan_data"], np.maximum(held_out["lan_labels"].ravel(), train_config["label_lower_bound"])
    if framework == "jax":
        network = trainers.JaxMLPFactory(network_config=network_config, train=True)
        trainer = trainers.ModelTrainerJaxMLP(
            model=network, train_config=train_config, train_dl=train_dl, valid_dl=valid_dl
        )
        state = trainer.train_and_evaluate(save_outputs=False, verbose=0)
        predicted = np.asarray(network.apply(state.params, x)).ravel()
    else:
        import torch

        network = trainers.TorchMLP(network_config=network_config, input_shape=x.shape[1], network_type="lan")
        trainer = trainers.ModelTrainerTorchMLP(
            model=network, train_config=train_config, train_dl=train_dl, valid_dl=valid_dl
        )
        trainer.train_and_evaluate(save_outputs=False, verbose=0)
        with torch.no_grad():
            predicted = network(torch.from_numpy(x)).numpy().ravel()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    rows = len(train_dl) * train_config["cpu_batch_size"] * len(train_dl.seconds)
    figures = {
        "start_up_s": train_dl.first - started,
        "wall_ms_per_1000_rows": sum(train_dl.seconds) / rows * 1e6,
        "rows_per_s": rows / sum(train_dl.seconds),
        "training_s": sum(train_dl.seconds),
        "processor_s": sum(each.ru_utime + each.ru_stime for each in usage),
        "peak_mb": sum(each.ru_maxrss for each in usage) / 1024,
        "validation_mae": float(np.abs(predicted - y).mean()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
