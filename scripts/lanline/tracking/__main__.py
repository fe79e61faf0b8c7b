"""``python -m lanline.tracking``: what the Makefile's mlflow-... targets call."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

from lanline.errors import UserError
from lanline.tracking.migrate import migrate
from lanline.tracking.prune import parse_age, prune, select
from lanline.tracking.registry import promote
from lanline.tracking.spool import alive_runs, sync
from lanline.tracking.store import Store, resolve_store
from lanline.tracking.transfer import export_run, import_archive


def main(arguments: list[str] | None = None, program: str = "python -m lanline.tracking") -> None:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument(
        "--uri", help="tracking URI; default: that of --config, else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    parser.add_argument("--config", type=Path, action="append", default=[], help="as Snakemake's --configfile")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("ui", help="open the recorded runs in the browser, on this machine only")
    command.add_argument("--port", default="5000")
    command = commands.add_parser("sync", help="bring what MLflow missed into it")
    command.add_argument("root", type=Path, nargs="?", default=Path("reports"))
    command = commands.add_parser("running", help="fail, naming them, if runs below ROOT are going on")
    command.add_argument("root", type=Path, nargs="?", default=Path("reports"))
    command = commands.add_parser("migrate", help="bring an old file store into SQLite")
    command.add_argument("source", type=Path)
    command = commands.add_parser("export", help="write a run and its data set's run to one archive")
    command.add_argument("run_id")
    command.add_argument("archive", type=Path)
    command = commands.add_parser("import", help="put the runs of an archive into the store")
    command.add_argument("archive", type=Path)
    command = commands.add_parser("prune", help="remove runs of an experiment with their artifacts")
    command.add_argument("experiment")
    command.add_argument("--older-than", type=parse_age, default=0, metavar="30d")
    command.add_argument("--yes", action="store_true", help="do not ask")
    command = commands.add_parser("promote", help="give a registered network the alias production")
    command.add_argument("name", help="model and network type, e.g. ddm-lan")
    command.add_argument("--version", type=int, help="default: the candidate")
    args = parser.parse_args(arguments)
    {
        "ui": _ui,
        "sync": _sync,
        "running": _running,
        "migrate": _migrate,
        "export": _export,
        "import": _import,
        "prune": _prune,
        "promote": _promote,
    }[args.command](args)


def _store(args: argparse.Namespace) -> Store:
    """The store that a workflow with these configuration files writes to."""
    settings: dict[str, str] = {}
    for path in args.config:
        settings |= (yaml.safe_load(path.read_text()) or {}).get("tracking") or {}
    return resolve_store(args.uri or settings.get("uri"), settings.get("artifact_location"))


def _ui(args: argparse.Namespace) -> None:
    store = _store(args)
    if store.uri.startswith("http"):
        raise UserError(f"the server {store.shown} has its own pages: open it in the browser")
    # The URI goes through the environment: a command line is there for everyone to read.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", args.port]
    os.execve(sys.executable, command, environment)


def _sync(args: argparse.Namespace) -> None:
    print("\n".join(sync(args.root, _store(args)) or ["MLflow has everything"]))


def _running(args: argparse.Namespace) -> None:
    if alive := alive_runs(args.root):
        raise UserError("runs are going on:\n" + "\n".join(map(str, alive)))


def _migrate(args: argparse.Namespace) -> None:
    store = _store(args)
    counts = ", ".join(f"{count} {what}" for what, count in migrate(args.source, store).items())
    print(f"{counts} are in {store.shown} now; {args.source} was left as it is")


def _export(args: argparse.Namespace) -> None:
    runs = export_run(_store(args), args.run_id, args.archive)
    print(f"{args.archive}: {', '.join(runs)}")


def _import(args: argparse.Namespace) -> None:
    for original, there in import_archive(_store(args), args.archive).items():
        print(f"{original} is run {there} here")


def _prune(args: argparse.Namespace) -> None:
    store = _store(args)
    runs = select(store, args.experiment, args.older_than)
    print("\n".join(map(str, runs)) or "nothing to remove")
    if runs and (args.yes or input(f"remove these {len(runs)} runs and their artifacts? [y/N] ") == "y"):
        prune(store, runs)
        print(f"removed {len(runs)} runs")


def _promote(args: argparse.Namespace) -> None:
    print(promote(_store(args), args.name, args.version))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
