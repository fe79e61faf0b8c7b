"""LANfactory's and ssm-simulators' configuration files: every key is honoured or refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lanline.commands.foreign_config import LanfactoryFile, SsmsFile, check, nested, parse_bound
from lanline.commands.training_plan import read_plan
from lanline.config import Data, Training, parse_config
from lanline.errors import UserError
from lanline.training.schedule import Schedule

# As LANfactory 0.7 ships it, but for the folder.
SHIPPED = """
NETWORK_TYPE: "lan" # Test 4
CPU_BATCH_SIZE: 1000
GPU_BATCH_SIZE: 50000
GENERATOR_APPROACH: "lan" # could maybe be deleted
OPTIMIZER_: "adam"
N_EPOCHS: 20
TRAINING_DATA_FOLDER: "some/folder/ddm"
MODEL: "ddm"
SHUFFLE: True
LAYER_SIZES: [[100, 100, 100, 1], [100, 100, 100, 100, 1], [120, 120, 1]]
ACTIVATIONS: [['tanh', 'tanh', 'tanh'], ['tanh', 'tanh', 'tanh', 'tanh'], ['relu', 'sigmoid']]
WEIGHT_DECAY: 0.0
TRAIN_VAL_SPLIT: 0.98
N_TRAINING_FILES: 10000 # can be list
LABELS_LOWER_BOUND: np.log(1e-7)
LEARNING_RATE: 0.001
LR_SCHEDULER: 'reduce_on_plateau'
LR_SCHEDULER_PARAMS:
  factor: 0.1
  patience: 2
  threshold: 0.001
  min_lr: 0.00000001
  verbose: True
"""


def file(**changes) -> LanfactoryFile:
    return check(LanfactoryFile, {**yaml.safe_load(SHIPPED), **changes}, "lan.yaml")


def training(**changes) -> Training:
    """lanline's settings for the file, as a checked section."""
    values = {"name": "n", "models": ["ddm"], "training": file(**changes).training("cpu")}
    return parse_config(values).training


def complaint(**changes) -> str:
    with pytest.raises(UserError) as caught:
        file(**changes)
    return str(caught.value)


def test_the_file_that_lanfactory_ships_is_read():
    settings = training()
    assert (settings.epochs, settings.batch_size, settings.optimizer) == (20, 1000, "adam")
    assert settings.learning_rate == 0.001
    assert settings.label_floor == pytest.approx(np.log(1e-7))
    assert (settings.loss, settings.huber_delta) == ("huber", 1.0)
    assert settings.warmup_fraction == 0
    assert file().training("gpu")["batch_size"] == 50_000


def test_a_bound_that_is_left_out_is_that_of_the_shipped_file():
    values = {key: value for key, value in yaml.safe_load(SHIPPED).items() if key != "LABELS_LOWER_BOUND"}
    section = check(LanfactoryFile, values, "lan.yaml").training("cpu")
    assert section["label_floor"] == pytest.approx(np.log(1e-7))


@pytest.mark.parametrize(
    ("network_id", "hidden", "activations"),
    [(0, [100] * 3, ["tanh"] * 3), (1, [100] * 4, ["tanh"] * 4), (2, [120, 120], ["relu", "sigmoid"])],
)
def test_network_id_picks_from_the_lists(network_id, hidden, activations):
    network = file().network(network_id)
    assert (network["hidden_layers"], network["activations"]) == (hidden, activations)


@pytest.mark.parametrize("network_id", [-1, 3])
def test_a_network_id_outside_the_lists_is_named(network_id):
    with pytest.raises(UserError, match=rf"--network-id {network_id}: LAYER_SIZES lists 3"):
        file().network(network_id)


def test_several_choices_have_an_output_each():
    sizes, activations = [[10, 3]], [["tanh"]]
    multi = file(NETWORK_TYPE="cpn", MODEL="race_3", LAYER_SIZES=sizes, ACTIVATIONS=activations).network(0)
    assert (multi["network_type"], multi["hidden_layers"]) == ("cpn", [10])
    with pytest.raises(UserError, match="outputs of a cpn for ddm, 1,"):
        file(NETWORK_TYPE="cpn", LAYER_SIZES=sizes, ACTIVATIONS=activations).network(0)


@pytest.mark.parametrize(
    ("sizes", "activations"), [([10, 10], ["tanh"]), ([10, 1], ["tanh", "tanh"]), ([10, 10, 1], ["tanh"])]
)
def test_lists_that_do_not_fit_are_named(sizes, activations):
    with pytest.raises(UserError, match=r"LAYER_SIZES .* must end with the number of outputs of a lan for ddm, 1"):
        file(LAYER_SIZES=[sizes], ACTIVATIONS=[activations]).network(0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"NETWORK_TYPE": "transformer"}, ["NETWORK_TYPE", "does not train networks of type 'transformer'"]),
        ({"N_TRAINING_FILES": "all"}, ["N_TRAINING_FILES", "'all'"]),
        ({"SHUFFLE": "sometimes"}, ["SHUFFLE", "'sometimes'"]),
        ({"OPTIMIZER_": "rmsprop"}, ["OPTIMIZER_", "'adam' or 'sgd'", "'rmsprop'"]),
        ({"LR_SCHEDULER": "cosine"}, ["LR_SCHEDULER", "'reduce_on_plateau' or 'multiply'"]),
        ({"LR_SCHEDULER_PARAMS": {"gama": 1}}, ["LR_SCHEDULER_PARAMS.gama", "unknown key"]),
        ({"LEARNIN_RATE": 1.0}, ["LEARNIN_RATE", "unknown key", "'LEARNING_RATE'"]),
        ({"LEARNING_RATE": "1e-3"}, ["LEARNING_RATE: YAML reads 1e-3 as text: write 1.0e-3"]),
        ({"LABELS_LOWER_BOUND": "__import__('os').abort()"}, ["LABELS_LOWER_BOUND", "np.log(number)"]),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes, expected):
    message = complaint(**changes)
    assert message.startswith("lan.yaml has 1 mistake(s)")
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("text", "value"),
    [("np.log(1e-7)", np.log(1e-7)), ("numpy.log( 1e-10 )", np.log(1e-10)), (-16.1, -16.1), ("-16.1", -16.1)],
)
def test_bounds_are_read_without_evaluating_anything(text, value):
    assert parse_bound(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["np.log(-1)", "np.log(0)", "np.exp(1)", "nan", "", "1 + 1", "np.log(1e-7).real"])
def test_other_bounds_are_refused(text):
    with pytest.raises(ValueError, match="expected a number or"):
        parse_bound(text)


def lanfactorys_rates(scheduler: str | None, losses: list[float]) -> list[float]:
    """Rate of each epoch as LANfactory's trainer sets it (torch_mlp.py), by torch itself."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.001)
    match scheduler:
        case "reduce_on_plateau":
            stepper = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=0.1, patience=2, threshold=0.001, threshold_mode="rel", min_lr=1e-5
            )
        case "multiply":
            stepper = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
        case None:
            return [0.001] * len(losses)
    rates = []
    for loss in losses:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepper.step(loss) if scheduler == "reduce_on_plateau" else stepper.step()
    return rates


@pytest.mark.parametrize("scheduler", ["reduce_on_plateau", "multiply", None])
def test_rates_are_those_of_lanfactorys_schedulers(scheduler):
    # Improvements smaller than the threshold, a real one, then none for long enough to reach min_lr.
    losses = [1.0, 0.9995, 0.9994, 0.9993, 0.9, 0.95, 0.91, 0.9, 0.9, *[0.9] * 12]
    params = {"factor": 0.1, "patience": 2, "threshold": 0.001, "min_lr": 1e-5}
    schedule = Schedule(training(LR_SCHEDULER=scheduler, LR_SCHEDULER_PARAMS=params), 10 * len(losses))
    found = []
    for epoch, loss in enumerate(losses):
        found.append(schedule.rates(10 * epoch, 10))
        schedule.end_epoch(loss)
    expected = np.repeat(lanfactorys_rates(scheduler, losses), 10)
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5)
    if scheduler:
        assert len(set(expected)) >= 3


# --- which files ------------------------------------------------------------------------------------------------------
def plan(tmp_path: Path, text: str, **options):
    path = tmp_path / "lan.yaml"
    path.write_text(text)
    return read_plan(path, "torch", options.get("network_id", 0), options.get("seed"))


@pytest.mark.parametrize(
    ("n_files", "share", "cap", "expected"),
    [
        (100, 0.98, 10_000, (98, 2)),
        (3, 0.98, 10_000, (2, 1)),
        (2, 0.5, 9, (1, 1)),
        (10, 0.8, 4, (3, 1)),
        (9, 1, 9, (8, 1)),
    ],
)
def test_the_cap_holds_for_training_and_validation_together(tmp_path, n_files, share, cap, expected):
    text = SHIPPED.replace("0.98", str(share)).replace("10000", str(cap)).replace("50000", "1000")
    files = [Path(f"{i:03d}.pickle") for i in reversed(range(n_files))]
    training_files, validation_files = plan(tmp_path, text).split(files, Data())
    assert (len(training_files), len(validation_files)) == expected
    names = [path.name for path in (*validation_files, *training_files)]
    assert names == [f"{i:03d}.pickle" for i in range(min(n_files, cap))]


def test_one_file_is_too_few(tmp_path):
    with pytest.raises(UserError, match="found 1 training file; need at least 2"):
        plan(tmp_path, SHIPPED.replace("50000", "1000")).split([Path("a.pickle")], Data())


def test_a_file_of_lanlines_own_need_not_name_models(tmp_path):
    own = plan(tmp_path, "data: {validation_fraction: 0.5}\ntraining: {seeds: [7, 8], epochs: 3}")
    config = own.config("angle", {"mlflow_tracking": False, "mlflow_experiment_name": None, "tracking": {}})
    assert (config.models[0].name, config.training.epochs, own.seed) == ("angle", 3, 7)
    assert [len(part) for part in own.split([Path(f"{i}.x") for i in range(4)], config.data)] == [2, 2]


def test_a_model_that_the_data_are_not_of_is_named(tmp_path):
    with pytest.raises(UserError, match=r"lan\.yaml is for the model ddm, but the data are of angle"):
        plan(tmp_path, SHIPPED.replace("50000", "1000")).model("angle")


def test_ssm_simulators_configuration_is_read():
    text = (
        "MODEL: 'ddm'\nGENERATOR_APPROACH: 'lan'\nPIPELINE: {N_PARAMETER_SETS: 100, N_SUBRUNS: 20}\n"
        "SIMULATOR: {N_SAMPLES: 3000, DELTA_T: 0.002}\nTRAINING: {N_SAMPLES_PER_PARAM: 150}\nESTIMATOR: {TYPE: 'kde'}\n"
    )
    values = {"name": "g", "models": ["ddm"], "data": check(SsmsFile, yaml.safe_load(text), "g.yaml").data()}
    data = parse_config(values).data
    assert (data.engine, data.thetas_per_shard, data.rows_per_theta) == ("simulation", 100, 150)
    assert (data.n_trajectories, data.delta_t) == (3000, 0.002)
    with pytest.raises(UserError, match=r"ESTIMATOR\.TYPE: Input should be 'kde'"):
        check(SsmsFile, yaml.safe_load(text.replace("'kde'", "'pyddm'")), "g.yaml")


def test_production_files_of_the_field_are_taken(tmp_path, capsys):
    """SHUFFLE: False stands in them, and N_TRAINING_FILES may have a number for each network."""
    text = SHIPPED.replace("SHUFFLE: True", "SHUFFLE: False").replace("10000 # can be list", "[100, 200, 300]")
    (tmp_path / "lan.yaml").write_text(text)
    assert read_plan(tmp_path / "lan.yaml", "torch", 1, None).max_files == 200
    assert "SHUFFLE: False has no effect" in capsys.readouterr().err
    with pytest.raises(UserError, match="N_TRAINING_FILES has 2 numbers"):
        file(N_TRAINING_FILES=[1, 2]).max_files(2)


def test_the_flat_file_of_an_older_ssm_simulators_is_the_nested_one_of_today():
    flat = """
MODEL: ddm
N_SAMPLES: 3000
N_PARAMETER_SETS: 100
DELTA_T: 0.002
N_TRAINING_SAMPLES_BY_PARAMETER_SET: 150
N_SUBRUNS: 20
GENERATOR_APPROACH: lan
"""
    data = check(SsmsFile, nested(yaml.safe_load(flat)), "old.yaml").data()
    assert (data["thetas_per_shard"], data["rows_per_theta"]) == (100, 150)
    assert (data["n_trajectories"], data["delta_t"]) == (3000, 0.002)
    with pytest.raises(UserError, match=r"DELTA_T is the old name of SIMULATOR\.DELTA_T"):
        nested({"DELTA_T": 0.1, "SIMULATOR": {"DELTA_T": 0.2}})


def test_looking_for_a_gpu_leaves_jax_the_threads_of_the_training(tmp_path):
    """The shipped file has two batch sizes, so that a GPU is looked for before the training starts."""
    (tmp_path / "lan.yaml").write_text(SHIPPED)
    code = (
        "import sys; from pathlib import Path; from lanline.commands.training_plan import read_plan; "
        "read_plan(Path(sys.argv[1]), 'jax', 0, None); "
        "from lanline.training.jax_backend import _cpu_devices; assert len(_cpu_devices(2)) == 2"
    )
    environment = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "lan.yaml"], env=environment, check=True)
