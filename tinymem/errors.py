"""The one error that users see: a line with the expected and the actual value, and advice."""

from __future__ import annotations

import difflib
import math
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


class UserError(Exception):
    """Bad input or a broken file. The command line prints the message on one line and exits with code 2."""


class CouldNotWrite(UserError):
    """A file could not be written, as on a full disk: nothing that was computed is wrong, and the same command may go on later."""


class Stopped(BaseException):
    """A signal ended the work in good order; the same command continues from there. Like KeyboardInterrupt it is no error.

    Attributes:
        code: exit code of the command line: 75 after a pre-emption signal, 130 after Ctrl-C.
    """

    def __init__(self, message: str, code: int = 75) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str, code: int) -> int:
    """Print an error on stderr in one line; returns the exit code."""
    with suppress(OSError):  # the terminal is closed
        print(f"tinymem: {one_line(message)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    r"""A text as a terminal may show it: what controls the terminal or the direction of writing is escaped, but new lines and tabs.

    >>> printable("red: \x1b[31m, backwards: \u202e, a\xa0space")
    'red: \\x1b[31m, backwards: \\u202e, a\xa0space'
    """
    return text if text.isprintable() else "".join(c.encode("unicode_escape").decode() if _controls(c) else c for c in text)


def _controls(character: str) -> bool:
    """Whether a character is C0 or C1, a separator of lines, or of the invisible ones but for those that join letters."""
    return character not in "\n\t\u200c\u200d" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")


def one_line(text: str) -> str:
    r"""A text as a terminal may show it, in one line.

    >>> one_line("two\nlines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    """
    return printable(" ".join(text.split()))


def described(error: BaseException) -> str:
    """An error of a user's code in one line, with the last position in it outside libraries: `ValueError: no luck (my.py, line 12)`."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return "".join(traceback.format_exception_only(error)).strip() + place


@contextmanager
def no_exit(of: str) -> Iterator[None]:
    """A context in which a user's code that calls sys.exit() fails as with any error, and does not end the process.

    Raises:
        UserError: it did; the message says where, and what `of` names.
    """
    try:
        yield
    except SystemExit as stop:
        raise UserError(f"expected {of} to return or to raise an error, got {described(stop)}; take its sys.exit() out") from stop


def portable_traceback(error: BaseException) -> str:
    """The traceback of an error, with files named from their package on, as they are on any machine: `torch/nn/modules/module.py`."""
    text = "".join(traceback.format_exception(error))
    return re.sub(r'(?m)^(\s+File ")([^"]+)"', lambda found: f'{found[1]}{_in_package(found[2])}"', text)


def _in_package(file: str) -> str:
    roots = [str(Path(__file__).parents[1]), *(str(Path(entry).absolute()) for entry in sys.path)]
    inside = [file.removeprefix(f"{root}/") for root in roots if file.startswith(f"{root}/")]
    return min(inside, key=len, default=file if file.startswith("<") else Path(file).name)


def uneven_heads(n_embd: int, n_head: int) -> str | None:
    """Error message if attention heads cannot share an embedding evenly; else None."""
    if n_embd % n_head == 0:
        return None
    nearest = n_head * math.ceil(n_embd / n_head)
    return f"expected model.n_embd to be a multiple of model.n_head, got {n_embd} and {n_head}; try n_embd={nearest}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A tail for "unknown X" messages: the closest known name, or all of them.

    >>> did_you_mean("drable", ["durable", "act"])
    "did you mean 'durable'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"


def run_for_checkpoint(run: Path) -> UserError:
    """The error of a run's folder where a checkpoint is expected."""
    return UserError(f"expected a checkpoint folder, got the run {run}; try {run / 'checkpoint'}")


def check_given(places: Mapping[str, Path | None]) -> None:
    """Raise one UserError that names every option whose file or folder is not there, or is an empty file."""
    given = [(option, path) for option, path in places.items() if path is not None]
    wrong = [f"a file or folder for --{option} at {path}, found none" for option, path in given if not path.exists()]
    wrong += [f"rows for --{option}, found no rows in {path}" for option, path in given if path.is_file() and not path.stat().st_size]
    if wrong:
        raise UserError(f"expected {'; and '.join(wrong)}; check the path{'s' if len(wrong) > 1 else ''}")


def no_checkpoint(place: object) -> UserError:
    """The error of a checkpoint that is not where it should be."""
    found = "got a file" if Path(str(place)).is_file() else "found none"
    return UserError(f"expected a checkpoint folder at {place}, {found}; a run keeps its model in runs/<run>/checkpoint")
