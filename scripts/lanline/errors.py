"""The one error that a user can cause and mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. The message names the file or key, what is wrong, and what is expected.

    Entry points (rule scripts and commands) print the message without a stack trace and exit with 1.
    """


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest allowed spelling, or an empty text."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
