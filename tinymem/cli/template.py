"""Texts that come with the package, for verbs that write a first version of something."""

from __future__ import annotations

from importlib.resources import files


def template_text(name: str) -> str:
    """A file of `cli/templates/`."""
    return files("tinymem.cli").joinpath("templates", name).read_text(encoding="utf-8")
