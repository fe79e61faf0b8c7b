"""What `make run` shows: a line per finished job, how far the running ones are, warnings, and the table at the end.

On a terminal the running jobs stand below the lines that stay and are redrawn; elsewhere (CI, a pipe) lines are all.
Snakemake imports this module whenever it starts, so rich is imported when there is something to show.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from lanline.logs import BOARD, Notice

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

FOR_PEOPLE = "lanline_for_people"  # attribute of log records that are shown although they are no warnings
TICK_SECONDS = 0.5
PLAIN_SECONDS = 60.0  # between lines about a running job where they cannot be redrawn
SHOWN_JOBS = 8  # running ones on a terminal
STAYS = ("Nothing to be done", "Complete log(s)")  # of Snakemake's own messages


@dataclass
class RunningJob:
    """A job between its start and its end."""

    rule: str
    wildcards: str
    logs: list[str]
    notices: list[Notice]
    started: float = field(default_factory=time.monotonic)
    mentioned: float = field(default_factory=time.monotonic)
    lines_read: int = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def status(self) -> str:
        """What the job last said about how far it is."""
        return " ".join(_text(notice.status).partition("\n")[0] for notice in self.notices)

    def new_lines(self) -> list[str]:
        """What it said to be kept, since the last call."""
        lines = [line for notice in self.notices for line in _text(notice.lines).splitlines()]
        new, self.lines_read = lines[self.lines_read :], len(lines)
        return new


class LogHandler(LogHandlerBase):
    """Snakemake's events as lines for a person."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        from rich.console import Console

        self.console: Console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.began = time.monotonic()
        self.jobs: dict[int, RunningJob] = {}
        self.done, self.total = 0, 0
        self._live: Live | None = None
        self._board = Path(tempfile.mkdtemp(prefix="lanline-board-"))
        atexit.register(shutil.rmtree, self._board, ignore_errors=True)  # Snakemake does not close it after a mistake
        os.environ[BOARD] = str(self._board)
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        shown: dict[Any, Callable[[logging.LogRecord], None]] = {
            LogEvent.RUN_INFO: self._run_info,
            LogEvent.JOB_INFO: self._job_info,
            LogEvent.JOB_FINISHED: self._job_finished,
            LogEvent.JOB_ERROR: self._job_error,
            LogEvent.PROGRESS: self._progress,
            None: self._message,
            LogEvent.ERROR: self._message,
        }
        with suppress(BrokenPipeError):
            shown.get(event, lambda record: None)(record)

    def close(self) -> None:
        self._closing.set()
        self._ticker.join()
        self._end_live()
        shutil.rmtree(self._board, ignore_errors=True)
        os.environ.pop(BOARD, None)
        super().close()

    # --- events ---
    def _run_info(self, record: logging.LogRecord) -> None:
        if self.total:  # a dry run tells it twice
            return
        counts = {rule: count for rule, count in vars(record).get("stats", {}).items() if rule != "total"}
        self.total = sum(counts.values())
        trainings = sum(count for rule, count in counts.items() if rule.startswith("train_"))
        networks = f", {trainings} of them for training" if trainings else ""
        self._print(f"{self.total} {'job' if self.total == 1 else 'jobs'}{networks}")

    def _job_info(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = vars(record)
        values = facts["wildcards"] or {}
        label = ", ".join(f"{name}={value}" for name, value in values.items())
        logs = list(facts["log"] or [])
        job = RunningJob(facts["rule_name"], label, logs, [Notice.of(self._board, log) for log in logs])
        if self.common_settings.dryrun:
            self._print(f"  {job.rule:<24} {job.wildcards}".rstrip())
        else:
            self.jobs[facts["jobid"]] = job

    def _job_finished(self, record: logging.LogRecord) -> None:
        if job := self._end_job(vars(record)["job_id"]):
            self.done += 1
        if job and job.logs:  # a rule that only collects files has none
            self._print(f"{self._count()} {job.rule:<24} {job.wildcards}  [dim]{job.seconds:.1f} s[/]")

    def _job_error(self, record: logging.LogRecord) -> None:
        if job := self._end_job(vars(record)["jobid"]):
            place = f", see {', '.join(job.logs)}" if job.logs else ""
            failed = f"[bold red]failed[/] after {job.seconds:.1f} s{place}"
            self._print(f"{' ' * len(self._count())} {job.rule:<24} {job.wildcards}  {failed}")

    def _progress(self, record: logging.LogRecord) -> None:
        self.done, self.total = vars(record)["done"], vars(record)["total"]

    def _message(self, record: logging.LogRecord) -> None:
        from rich.markup import escape

        text = record.getMessage() if record.msg else ""
        if text.startswith("Complete log(s)"):
            self._end_live()
            path = Path(text.partition(": ")[2])
            with suppress(ValueError):
                path = path.relative_to(Path.cwd())
            self._print(f"[dim]details: {escape(str(path))}[/]")
        elif record.levelno >= logging.ERROR and text:
            self._print(f"[red]{escape(text)}[/]")
        elif record.levelno >= logging.WARNING and text:
            self._print(f"[yellow]{escape(text)}[/]")
        elif getattr(record, FOR_PEOPLE, False) or text.startswith(STAYS):
            self._end_live()
            self._print(escape(text).replace("FAILED", "[bold red]FAILED[/]"))

    # --- what is on the screen ---
    def _end_job(self, jobid: int) -> RunningJob | None:
        """The job, which has ended, and its last lines printed."""
        if job := self.jobs.pop(jobid, None):
            self._print_lines(job)
        return job

    def _print_lines(self, job: RunningJob) -> None:
        from rich.markup import escape

        for line in job.new_lines():
            self._print(f"  [yellow]{escape(line)}[/]")

    def _print(self, text: str) -> None:
        self.console.print(text)

    def _count(self) -> str:
        width = len(str(self.total))
        return f"[dim]{self.done:>{width}}/{self.total}[/]"

    def _tick(self) -> None:
        while not self._closing.wait(TICK_SECONDS):
            with self.lock or threading.RLock():
                for job in self.jobs.values():
                    self._print_lines(job)
                self._draw() if self.console.is_terminal else self._mention()

    def _mention(self) -> None:
        """Lines about the jobs that have run for long, where there is no terminal."""
        for job in self.jobs.values():
            if time.monotonic() - job.mentioned >= PLAIN_SECONDS:
                job.mentioned = time.monotonic()
                self._print(f"  {job.rule} {job.wildcards}: {job.seconds:.0f} s so far  {job.status()}")

    def _draw(self) -> None:
        from rich.live import Live

        if not self.jobs:
            self._end_live()
            return
        if self._live is None:
            self._live = Live(console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(self._picture(), refresh=True)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        running = list(self.jobs.values())
        lines = [
            Text.assemble(
                ("▸ ", "cyan"),
                f"{job.rule:<24} ",
                (f"{job.seconds:3.0f} s", "dim"),
                f"  {job.status() or job.wildcards}",
            )
            for job in running[:SHOWN_JOBS]
        ]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        if len(running) > SHOWN_JOBS:
            lines.append(Text(f"  and {len(running) - SHOWN_JOBS} more"))
        bar = Table.grid(padding=(0, 1))
        elapsed = int(time.monotonic() - self.began)
        counted = f"{self.done} of {self.total} jobs  {elapsed // 60}:{elapsed % 60:02d}"
        bar.add_row(ProgressBar(total=max(self.total, 1), completed=self.done, width=30), counted)
        return Group(*lines, bar)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
