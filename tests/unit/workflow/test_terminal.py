"""What `make run` shows, event by event, on a terminal and into a pipe."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from lanline.logs import BOARD
from lanline.workflow.terminal import FOR_PEOPLE
from snakemake_logger_plugin_lanline import LogHandler
from terminals import on_a_terminal

SAYS = """
import os, pathlib, sys
from lanline.logs import job_log, note, say, show_progress
with job_log("train.log"):
    {}
"""
# A job that is shown while it runs: the events come from a file so that it is the handler of a process of its own.
RUNS = """
import logging, subprocess, sys, time
from types import SimpleNamespace
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_lanline import LogHandler
handler = LogHandler(SimpleNamespace(dryrun=False), None)
def send(event, **facts):
    handler.handle(logging.makeLogRecord(dict(levelno=logging.INFO, event=event, **facts)))
send(LogEvent.RUN_INFO, stats=dict(train_torch=1, total=1))
send(LogEvent.JOB_INFO, jobid=3, rule_name="train_torch", wildcards=dict(model="ddm"), log=["train.log"])
subprocess.run([sys.executable, "-c", JOB], check=True)
time.sleep(1.2)
send(LogEvent.JOB_FINISHED, job_id=3)
handler.close()
"""


def job(*lines: str) -> str:
    return SAYS.format("\n    ".join(lines))


def run_code(*lines: str) -> str:
    return f"JOB = {job(*lines)!r}\n{RUNS}"


def test_a_running_job_shows_how_far_it_is_and_leaves_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    printed = on_a_terminal(run_code("note('epoch 1/3')", "show_progress('epoch 2/3  40%')"))
    assert "epoch 2/3  40%" in printed
    assert "0 of 1 jobs" in printed
    assert "epoch 1/3" in (tmp_path / "train.log").read_text()


def test_without_a_terminal_there_are_plain_lines(tmp_path):
    code = run_code("note('epoch 1/3')", "show_progress('epoch 2/3  40%')", "say('a warning')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "1 job, 1 of them for training"
    assert lines[1] == "  a warning"
    assert lines[2].startswith("1/1 train_torch              model=ddm  ")
    assert len(lines) == 3
    assert "a warning" in (tmp_path / "train.log").read_text()


@pytest.fixture
def handler():
    handler = LogHandler(SimpleNamespace(dryrun=False), None)
    yield handler
    handler.close()


def send(handler: LogHandler, message: str = "", level: int = logging.INFO, **facts) -> None:
    handler.handle(logging.makeLogRecord({"levelno": level, "msg": message, **facts}))


def test_a_failed_job_names_its_log(handler, capsys):
    started = {"rule_name": "train_jax", "wildcards": {"model": "ddm"}, "log": ["logs/x.log"]}
    send(handler, event=LogEvent.JOB_INFO, jobid=1, **started)
    send(handler, event=LogEvent.JOB_ERROR, jobid=1, **started)
    shown = capsys.readouterr().err
    assert "train_jax" in shown
    assert "failed after 0.0 s, see logs/x.log" in shown


def test_warnings_and_what_is_for_people_are_shown_and_nothing_else(handler, capsys):
    send(handler, "Select jobs to execute...")
    send(handler, "[a warning]", logging.WARNING)
    send(handler, "a table\nFAILED: mae", **{FOR_PEOPLE: True})
    send(handler, "Nothing to be done (all requested files are present and up to date).")
    send(handler, f"Complete log(s): {os.getcwd()}/.snakemake/log/1.log")  # noqa: PTH109
    assert capsys.readouterr().err.splitlines() == [
        "[a warning]",
        "a table",
        "FAILED: mae",
        "Nothing to be done (all requested files are present and up to date).",
        "details: .snakemake/log/1.log",
    ]


def test_the_board_goes_with_the_handler():
    handler = LogHandler(SimpleNamespace(dryrun=False), None)
    board = os.environ[BOARD]
    handler.close()
    assert BOARD not in os.environ
    assert not os.path.exists(board)  # noqa: PTH110
