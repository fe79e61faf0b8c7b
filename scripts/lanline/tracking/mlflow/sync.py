"""Journals on their way to MLflow: all that wait on disk, and the one of a training that is running.

``python -m lanline.tracking.mlflow.sync JOURNAL --follow PID`` syncs a journal as it grows. A process beside
the training, not a thread in it: importing MLflow would hold the training's interpreter for 2 s, and a dead
server would hold its end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from lanline.errors import UserError
from lanline.files import redact
from lanline.logs import say
from lanline.tracking.journal.events import FOLDER, End, journals, read_events
from lanline.tracking.journal.position import is_complete
from lanline.tracking.journal.record import read_run
from lanline.tracking.journal.writer import end_if_dead, is_alive
from lanline.tracking.mlflow.mirror import mirror
from lanline.tracking.mlflow.store import Store, StoreUnavailable, resolve_store
from lanline.versions import child_environment

POLL_SECONDS = 1.0
LONGEST_PAUSE = 15.0


def sync(root: Path, store: Store) -> list[str]:
    """Sync every journal under ``root`` that belongs to ``store`` to MLflow, in the order in which they began.

    Runs whose process died are ended first. Does not import MLflow when there is nothing to sync.

    Returns:
        One line for each journal that was synced or could not be; empty if nothing was to be done.

    Raises:
        StoreUnavailable: nothing is lost, call again later.
    """
    return sync_journals([path for folder in Path(root).rglob(FOLDER) for path in journals(folder.parent)], store)


def sync_journals(found: Iterable[Path], store: Store) -> list[str]:
    """As `sync`, for these journals."""
    lines, elsewhere = [], set()
    for path in sorted(found, key=lambda path: path.name):
        who = path.stem
        try:
            run = read_run(path)
            if run is None or run.store is None:
                continue
            if not store.is_named(run.store):
                if not is_complete(path):
                    elsewhere.add(redact(run.store))
                continue
            who = f"{run.name} ({path.stem})"
            if run.status == "RUNNING" and end_if_dead(path):
                lines.append(f"{who}: {_ended_as(path)}")
            if is_complete(path):
                continue
            position = mirror(path, store)
        except StoreUnavailable:
            raise
        except Exception as error:  # one record that is damaged, or that MLflow refuses, must not keep the others out
            lines.append(f"{who}: not synced: {redact(str(error))}")
            continue
        waits = f", waiting for {', '.join(position.pending_links)}" if position.pending_links else ""
        lines.append(f"{who}: run {position.run_id}{waits}")
    lines += [f"some runs belong to another store: {uri} (set MLFLOW_TRACKING_URI to it)" for uri in sorted(elsewhere)]
    return lines


def _ended_as(path: Path) -> str:
    run = read_run(path)
    if run is None or run.status == "KILLED":
        return "its process died; the run is ended as KILLED"
    return f"its end was lost (a power cut?); taken from MLflow: {run.status}"


def sync_earlier(journal: Path, store: Store) -> None:
    """Sync what earlier runs of a journal's folder left behind, a dead one's end above all."""
    for line in sync_journals((path for path in journals(journal.parent.parent) if path.name < journal.name), store):
        say(line)


def alive_runs(root: Path) -> list[Path]:
    """Journals under ``root`` that a process is writing."""
    alive: list[Path] = []
    for place, folders, _ in os.walk(root):
        # Hidden ones are environments, caches and git; of artifacts there can be very many.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("mlartifacts", "mlruns")]
        if FOLDER in folders:
            alive += [path for path in journals(Path(place)) if is_alive(path)]
    return alive


def start_follower(journal: Path, store: Store) -> subprocess.Popen[bytes]:
    """Start the process that mirrors a journal as this process writes it."""
    command = [sys.executable, "-m", "lanline.tracking.mlflow.sync", str(journal), "--follow", str(os.getpid())]
    # The URI goes through the environment: a command line is there for everyone to read.
    environment = {**child_environment(), "MLFLOW_TRACKING_URI": store.uri}
    if store.artifact_location:
        environment["MLFLOW_ARTIFACT_LOCATION"] = store.artifact_location
    with journal.with_suffix(".mirror.log").open("a") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def follow(journal: Path, store: Store, pid: int) -> None:
    """Mirror a journal as it grows, until its run ends or its process ``pid`` (our parent) dies."""
    pause = POLL_SECONDS
    tail = _Tail(journal)
    first = True
    while True:
        # The children of a dead process are adopted at once, so this cannot be fooled by a pid used again.
        alive = os.getppid() == pid
        if not alive:
            _end_for_the_dead(journal)
        ended = tail.ended()
        try:
            if first:
                sync_earlier(journal, store)
            first = False
            mirror(journal, store)
            pause = POLL_SECONDS
        except StoreUnavailable as error:
            say(f"{error}; everything is kept in {journal}")
            pause = min(2 * pause, LONGEST_PAUSE)
        if ended or not alive:
            return
        tail.wait(pid, pause)


class _Tail:
    """Tells whether a growing journal has come to its end, reading each line once."""

    def __init__(self, journal: Path) -> None:
        self.journal, self.offset, self.at_end = journal, 0, False

    def ended(self) -> bool:
        if self.journal.stat().st_size > self.offset:
            for event, end in read_events(self.journal, self.offset):
                self.at_end, self.offset = isinstance(event, End), end
        return self.at_end

    def wait(self, pid: int, seconds: float) -> None:
        """Sleep, but not past the end of the run: its process waits for us."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and os.getppid() == pid and not self.ended():
            time.sleep(0.2)


def _end_for_the_dead(journal: Path) -> None:
    """Write the end of a killed run, once its last child (a worker that loads data) has let go of the
    journal."""
    deadline = time.monotonic() + 10
    while is_alive(journal) and time.monotonic() < deadline:
        time.sleep(0.2)
    end_if_dead(journal)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sync a journal to the MLflow store of MLFLOW_TRACKING_URI.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--follow", type=int, metavar="PID", help="continue until this parent process ends")
    args = parser.parse_args()
    store = resolve_store()
    if args.follow is None:
        mirror(args.journal, store)
        return
    # SLURM and Ctrl-C signal the whole job; the training's own end is still to be synced.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    follow(args.journal, store, args.follow)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
