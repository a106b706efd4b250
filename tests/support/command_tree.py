"""All verbs of the command line, as typer builds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from tinymem.cli.main import app


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb with its name, `data make` for instance, those of groups too."""
    below = getattr(command, "commands", None)
    if below is None or command.invoke_without_command or not name:
        yield name, command
    for word, inner in (below or {}).items():
        yield from commands(inner, f"{name} {word}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))
