"""``lanline``: data and networks outside the workflow, models and their labels, lineage, records of runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lanline.commands.generate import generate
from lanline.commands.options import app, command
from lanline.commands.train import HELP, train

if TYPE_CHECKING:
    from lanline.tracking.mlflow.store import Store

main = app()
main.callback(no_args_is_help=True)(lambda: None)
main.command()(generate)
main.command(help=HELP.format(framework=", in PyTorch or in JAX"))(train)

Uri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="MLflow store. Default: that of --config, then MLFLOW_TRACKING_URI, then sqlite:///mlflow.db.",
    ),
]
ConfigFiles = Annotated[
    list[Path],
    typer.Option(
        default_factory=list,
        show_default=False,
        help="Configuration, as Snakemake's --configfile; repeatable.",
    ),
]
Root = Annotated[Path, typer.Argument(help="Folder with the reports of runs.")]


@main.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Only models with this in their name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the bounds of the parameters.")] = False,
) -> None:
    """List the models, with their parameters, choices, and the engines that labels can come from."""
    with command():
        from lanline.commands.models import print_models

        print_models(name, as_json)


@main.command()
def labels(
    model: Annotated[str, typer.Argument(help="Name of a model: see lanline models.")],
    theta: Annotated[
        str | None, typer.Option(metavar="v=1,a=1.5", help="Parameters. Default: the middle of their bounds.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Engine; may be repeated to compare several. Default: auto.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Figure (png, svg, pdf) or table (csv) to write.")] = None,
    target: Annotated[str, typer.Option(help="continuous or euler, as data.target.")] = "continuous",
    delta_t: Annotated[
        float,
        typer.Option(help="Step of the target euler, seconds; for continuous the simulation engine chooses its own."),
    ] = 0.001,
    max_t: Annotated[float, typer.Option(help="Time limit of a response, seconds.")] = 20.0,
    trajectories: Annotated[int, typer.Option(help="Simulated trials of the engine simulation.")] = 20_000,
) -> None:
    """Show the density of a model at one parameter vector."""
    with command():
        from lanline.commands.labels import show_labels
        from lanline.config import parse_config

        data = {"target": target, "delta_t": delta_t, "max_t": max_t, "n_trajectories": trajectories}
        checked = parse_config({"name": "labels", "models": [model], "data": data}, "the command line")
        show_labels(model, theta, engine or ["auto"], checked.data, output)


@main.command()
def lineage(
    target: Annotated[str, typer.Argument(help="Folder of a network, ONNX file, or MLflow run id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that is known, as JSON.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every file again; exit with 1 if something changed.")
    ] = False,
    uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow store. Default: MLFLOW_TRACKING_URI, then sqlite:///mlflow.db."),
    ] = None,
) -> None:
    """Print where a network came from: run, data set, shards, seeds, commit, machine."""
    with command():
        from lanline.commands.lineage import print_lineage

        if print_lineage(target, as_json, verify, uri):
            raise typer.Exit(1)


@main.command()
def ui(config: ConfigFiles, port: int = 5000, uri: Uri = None) -> None:
    """Open the recorded runs in the browser, on this machine only."""
    with command():
        from lanline.errors import UserError

        store = _store(uri, config)
        if store.uri.startswith("http"):
            raise UserError(f"the server {store.shown} has its own web pages: open it in a browser")
        # The URI goes through the environment: a command line is there for everyone to read.
        environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
        server = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
        os.execve(sys.executable, server, environment)


@main.command()
def sync(config: ConfigFiles, root: Root = Path("reports"), uri: Uri = None) -> None:
    """Sync records that MLflow missed."""
    with command():
        from lanline.errors import UserError
        from lanline.tracking.mlflow.sync import sync as sync_journals

        if not root.is_dir():
            raise UserError(f"the reports folder {root} does not exist")
        print("\n".join(sync_journals(root, _store(uri, config)) or [f"{root} is fully synced"]))


@main.command()
def running(root: Annotated[Path, typer.Argument(help="Folder to look in.")] = Path()) -> None:
    """Fail if runs or a workflow are still active, and list them."""
    with command():
        from lanline.cluster.folder import refuse_beside_another
        from lanline.errors import UserError
        from lanline.tracking.mlflow.in_use import stores_in_use
        from lanline.tracking.mlflow.sync import alive_runs

        if alive := alive_runs(root):
            raise UserError("runs are still active:\n" + "\n".join(map(str, alive)))
        if held := stores_in_use(root):
            raise UserError(
                f"runs whose files lie elsewhere are still active in a store of {root.resolve()}: "
                f"`fuser {' '.join(map(str, held))}` names their processes"
            )
        refuse_beside_another(root)


@main.command()
def migrate(
    source: Annotated[Path, typer.Argument(help="Folder of the file store, e.g. mlruns.")],
    config: ConfigFiles,
    uri: Uri = None,
) -> None:
    """Migrate an old file store to SQLite."""
    with command():
        from lanline.tracking.admin import migrate as migration

        settings = _tracking(config)
        to_settings = (settings.get("uri"), settings.get("artifact_location"))
        store = _store(uri, config) if uri else migration.target(*to_settings)
        counts = ", ".join(f"{count} {what}" for what, count in migration.migrate(source, store).items())
        print(f"{counts} are now in {store.shown}; {source} is unchanged")


@main.command("export")
def export_run(run_id: str, archive: Path, config: ConfigFiles, uri: Uri = None) -> None:
    """Write a run and its data set's run to one archive."""
    with command():
        from lanline.tracking.admin import archive as archives

        print(f"{archive}: {', '.join(archives.export_run(_store(uri, config), run_id, archive))}")


@main.command("import")
def import_archive(archive: Path, config: ConfigFiles, uri: Uri = None) -> None:
    """Import the runs of an archive into the store."""
    with command():
        from lanline.tracking.admin import archive as archives

        for original, there in archives.import_archive(_store(uri, config), archive).items():
            print(f"{original}: imported as run {there}")


@main.command()
def prune(
    experiment: str,
    config: ConfigFiles,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="E.g. 12h, 30d or 8w. Default: all runs, and then the experiment.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    uri: Uri = None,
) -> None:
    """Remove runs of an experiment with their artifacts, after showing them; never those of networks in use."""
    with command():
        from lanline.tracking.admin import prune as pruning

        store = _store(uri, config)
        runs, kept = pruning.select(store, experiment, pruning.parse_age(older_than or "0d"))
        if kept:
            print("kept, because registered networks need them:", *kept, sep="\n", end="\n\n")
        print("\n".join(map(str, runs)) or "nothing to remove")
        these = f"{len(runs)} runs"
        if pruning.only_trashes(store):
            question = f"move these {these} to the server's trash?"
            answer = f"{these} are in the server's trash; `mlflow gc` there removes them and their artifacts for good"
        else:
            question = f"remove these {these} and their artifacts for good?"
            answer = f"removed {these} and their artifacts"
        last = older_than is None and pruning.are_last(store, experiment, runs)
        if last and not runs:
            question = f"move the empty experiment '{experiment}' to MLflow's trash?"
        if not (runs or last) or not (yes or _agreed(question)):
            return
        if runs:
            pruning.prune(store, runs)
            print(answer)
        if last and pruning.trash_if_empty(store, experiment):
            print(f"experiment '{experiment}' is empty and in MLflow's trash; lanline's next run there restores it")


@main.command()
def promote(
    name: Annotated[str, typer.Argument(help="Model and network type, e.g. ddm-lan.")],
    config: ConfigFiles,
    version: Annotated[int | None, typer.Option(help="Version to promote. Default: the candidate.")] = None,
    uri: Uri = None,
) -> None:
    """Give a registered network the alias production."""
    with command():
        from lanline.tracking.mlflow import registry

        print(registry.promote(_store(uri, config), name, version))


@main.command("slurm-profile")
def slurm_profile(
    path: Annotated[Path, typer.Argument(help="Output file.")] = Path("profiles/site/config.yaml"),
) -> None:
    """Query SLURM for its partitions, and write a profile for this cluster."""
    with command():
        from lanline.cluster.site import write_profile

        found = write_profile(path)
        print(f"{path}: {len(found)} partition(s) considered. Read it, then: snakemake --profile {path.parent}")


@main.command("slurm-cancel")
def slurm_cancel() -> None:
    """Cancel the jobs of this folder whose Snakemake died, and wait until they have ended."""
    with command():
        from lanline.cluster.folder import cancel_orphans

        cancel_orphans(Path())


def _agreed(question: str) -> bool:
    """Whether somebody at the terminal says yes. Where nobody can (cron, CI) that is a no."""
    try:
        return input(f"{question} [y/N] ") == "y"
    except EOFError:
        print("\nno input available; nothing removed (--yes, or YES=1 with make, skips the question)")
        return False


def _store(uri: str | None, configs: list[Path]) -> Store:
    """The store that a workflow with these configuration files writes to."""
    from lanline.tracking.mlflow.store import resolve_store

    settings = _tracking(configs)
    return resolve_store(uri or settings.get("uri"), settings.get("artifact_location"))


def _tracking(configs: list[Path]) -> dict[str, str]:
    """What these configuration files say about tracking."""
    from lanline.files import read_yaml, section

    settings: dict[str, str] = {}
    for path in configs:
        settings |= section(read_yaml(path), "tracking", path)
    return settings
