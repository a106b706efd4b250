"""`tinymem new`: a template that works, with its test, for a user to adapt."""

from __future__ import annotations

import re
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import a_folder
from tinymem.cli.template import template_text
from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.registry import Registry

REGISTRIES = {
    "method": ("tinymem.mitigation.method", "UNLEARNERS"),
    "metric": ("tinymem.evaluation.metric", "METRICS"),
    "regularizer": ("tinymem.recipe.kinds", "REGULARIZERS"),
    "artifact": ("tinymem.recipe.kinds", "ARTIFACTS"),
}
"""Module and name of the registry of each kind of file; the kind's templates are in `templates/`."""


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to write: {', '.join(REGISTRIES)}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name to register, in lower case with dashes.")],
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", callback=a_folder, help="Where to write the two files.")] = Path(),
) -> None:
    """Write a file that registers something of your own, and its test, for you to fill in."""
    for path in write_template(kind, name, directory):
        echo(path)


def write_template(kind: str, name: str, directory: Path) -> list[Path]:
    """Write `<name>.py` and `test_<name>.py`; returns both paths.

    Raises:
        UserError: an unknown kind, a name that cannot be registered, or files that exist.
    """
    if kind not in REGISTRIES:
        raise UserError(f"expected a kind of {', '.join(REGISTRIES)}, got '{kind}'; {did_you_mean(kind, REGISTRIES)}")
    _check_name(kind, name)
    module = name.replace("-", "_")
    paths = {f"{kind}.py.tmpl": directory / f"{module}.py", f"test_{kind}.py.tmpl": directory / f"test_{module}.py"}
    for path in paths.values():
        if path.exists():
            raise UserError(f"expected no file at {path}, found one; choose another name or --dir")
    words = {"@NAME@": name, "@MODULE@": module, "@CLASS@": "".join(word.capitalize() for word in name.split("-"))}
    for template, path in paths.items():
        _write(template, path, words)
    return list(paths.values())


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"expected a name in lower case with dashes, such as my-{kind}, got '{name}'")
    module, attribute = REGISTRIES[kind]
    registry: Registry[object] = getattr(import_module(module), attribute)
    if iskeyword(name.replace("-", "_")) or name in registry.names():
        raise UserError(f"expected a name that is not taken, got '{name}'; choose another")


def _write(template: str, path: Path, words: dict[str, str]) -> None:
    from tinymem.runtime.files import write_text

    text = template_text(template)
    for key, value in words.items():
        text = text.replace(key, value)
    write_text(path, text)
