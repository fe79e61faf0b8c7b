"""What a job says on a terminal, and what it writes where there is none."""

import os
import pty
import subprocess
import sys

LINES = """
from lanline.logs import say, show_progress
show_progress("epoch 1/2  10%")
show_progress("epoch 1/2  20%")
say("epoch 1/2  done")
"""


def on_a_terminal(code: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += (part := os.read(ours, 4096))
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
    assert process.wait() == 0
    return printed.decode()


def visible(printed: str) -> list[str]:
    """What the lines of a terminal show in the end."""
    return [line.rsplit("\r\033[K", 1)[-1].rstrip("\r") for line in printed.split("\n")]


def test_a_line_about_progress_is_replaced_by_the_next():
    printed = on_a_terminal(LINES)
    assert "10%" in printed
    assert visible(printed) == ["epoch 1/2  done", ""]


def test_a_log_gets_no_line_about_progress_within_ten_seconds():
    done = subprocess.run([sys.executable, "-c", LINES], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == "epoch 1/2  done\n"
