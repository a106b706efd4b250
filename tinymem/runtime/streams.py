"""Text on terminals and pipes that lack characters, such as those of ASCII or cp1252: spelled out, never an error."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tinymem.errors import UserError, printable

SPELLED = {"→": "->", "–": "-", "—": "-", "−": "-", "±": "+-", "×": "x", "…": "...", "─": "-", "━": "-", "≤": "<=", "≥": ">="}
SPELL = "tinymem.spell"


def to_ascii(text: str) -> str:
    r"""Text with arrows, dashes and signs spelled out, and other characters as JSON escapes them.

    >>> to_ascii("62 → 42 é")
    '62 -> 42 \\u00e9'
    """
    return text.encode("ascii", SPELL).decode()


def echo(text: object, *, err: bool = False) -> None:
    """Print a line on standard output, or on standard error; a stranger's text in it cannot control the terminal."""
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def spell_what_streams_lack() -> None:
    """Let standard output and error spell out the characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELL)


def restart_in_utf8() -> None:
    """Start the same command again in Python's UTF-8 mode where the locale has another encoding for names of files; else do nothing.

    Libraries below Python take names as UTF-8 whatever the locale says, and do not find or refuse those that Python read otherwise. What is
    printed keeps the locale's encoding.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or os.name == "nt":
        return
    streams = os.environ.get("PYTHONIOENCODING") or getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.update(PYTHONUTF8="1", PYTHONIOENCODING=streams)  # of processes that this one starts, too
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def check_names(arguments: Sequence[str]) -> None:
    """Raise UserError where the name of a file in a command's arguments, or of the working folder, is no UTF-8."""
    names = [*arguments]
    with suppress(OSError):  # a folder that was deleted
        names.append(str(Path.cwd()))
    wrong = next((name for name in names if any("\ud800" <= character <= "\udfff" for character in name)), None)
    if wrong is not None:
        raise UserError(f"expected names of files in UTF-8, got other bytes in '{wrong}'; rename it")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(SPELLED.get(character) or json.dumps(character)[1:-1] for character in missing), error.end


codecs.register_error(SPELL, _spelled)
