"""Text on terminals and pipes that lack characters, such as those of ASCII or cp1252: spelled out, never an error."""

from __future__ import annotations

import codecs
import io
import json
import sys

from tinymem.errors import printable

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


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(SPELLED.get(character) or json.dumps(character)[1:-1] for character in missing), error.end


codecs.register_error(SPELL, _spelled)
