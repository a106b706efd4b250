"""What was fetched, and one commit for each name: a branch that moves while a command is at work does not mix its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tinymem.hub.names import HubName


@dataclass(frozen=True)
class Snapshot:
    """A revision of a repository on this machine, verified.

    Attributes:
        name: as it was asked for.
        commit: 40 hexadecimal digits.
        folder: in the client's cache; a checkpoint folder.
    """

    name: HubName
    commit: str
    folder: Path


_PINS: ContextVar[dict[HubName, Snapshot] | None] = ContextVar("pins", default=None)


@contextmanager
def pinned_names() -> Iterator[None]:
    """Let every name of the Hub mean, as long as the context lasts, the snapshot that it was first fetched as."""
    token = _PINS.set({})
    try:
        yield
    finally:
        _PINS.reset(token)


def pins() -> dict[HubName, Snapshot]:
    """What names mean in this context, to which more are added; outside of one nothing is kept."""
    known = _PINS.get()
    return {} if known is None else known
