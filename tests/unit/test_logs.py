"""What a job says on a terminal, and what it writes where there is none."""

import subprocess
import sys

from terminals import on_a_terminal, visible

LINES = """
from lanline.logs import say, show_progress
show_progress("epoch 1/2  10%")
show_progress("epoch 1/2  20%")
say("epoch 1/2  done")
"""


def test_a_line_about_progress_is_replaced_by_the_next():
    printed = on_a_terminal(LINES)
    assert "10%" in printed
    assert visible(printed) == ["epoch 1/2  done", ""]


def test_a_log_gets_no_line_about_progress_within_ten_seconds():
    done = subprocess.run([sys.executable, "-c", LINES], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == "epoch 1/2  done\n"
