"""Python code on a pseudo-terminal, and what a person sees of what it prints."""

import os
import pty
import subprocess
import sys
from typing import Any


def on_a_terminal(code: str, **options: Any) -> str:
    """What ``code`` prints to a terminal that is its stderr; with options for its process."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, **options)
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += (part := os.read(ours, 4096))
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
    assert process.wait() == 0, printed.decode()
    return printed.decode()


def visible(printed: str) -> list[str]:
    """What the lines of a terminal show in the end."""
    return [line.rsplit("\r\033[K", 1)[-1].rstrip("\r") for line in printed.split("\n")]
