"""`tinymem init`: a first recipe of one's own, with a word on every key that matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tinymem.cli.template import template_text
from tinymem.errors import UserError
from tinymem.runtime.streams import echo

Starter = Annotated[Literal["math", "text", "sweep"], typer.Argument(metavar="[math|text|sweep]", help="What the recipe is for.")]

NEXT = {
    "math": "tinymem run math.yaml",
    "text": "tinymem run text.yaml --set data.source=FILE, a text of yours or a folder of them",
    "sweep": "tinymem sweep sweep.yaml --list, once there are runs: tinymem run math.yaml",
}
"""What to do with each starter."""


def init(starter: Starter = "math") -> None:
    """Write a commented recipe into this folder: math.yaml, text.yaml or sweep.yaml. A file that is there stays as it is."""
    path = Path(f"{starter}.yaml")
    write_starter(starter, path)
    echo(f"{path}: change it as you like, then: {NEXT[starter]}")


def write_starter(starter: str, path: Path) -> None:
    """Write a starter's recipe.

    Raises:
        UserError: there is a file already, or none can be written.
    """
    from tinymem.runtime.files import write_text

    if path.exists():
        raise UserError(f"expected no {path} in this folder, found one; rename it, or go to another folder")
    write_text(path, template_text(f"recipes/{starter}.yaml"))
