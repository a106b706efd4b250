"""The one error that users see: a line that says what was expected, what came, and what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a broken file. The command line prints the message on one line and exits with code 2."""


class Stopped(Exception):
    """A pre-emption signal ended the work in good order; the same command goes on from there (exit code 75)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A tail for "unknown X" messages: the closest known name, or all of them.

    >>> did_you_mean("drable", ["durable", "act"])
    "did you mean 'durable'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
