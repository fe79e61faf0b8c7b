"""The one error that a user can cause and fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. The message names the file or key, what is wrong, and what is expected.

    Entry points (rule scripts and commands) print the message without a stack trace and exit with 1.
    """


def reason(error: BaseException) -> str:
    """What an error says, in one line, or what it is where it says nothing: exceptions are true even then.

    Errors of the operating system come with the file that they are about.
    """
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest allowed spelling, or an empty text."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
