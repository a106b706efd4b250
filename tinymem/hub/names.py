"""Names on the Hugging Face Hub: `ORG/NAME[@revision]` as users write them, and where the client keeps what it fetched."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tinymem.errors import UserError

PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPOSITORY = re.compile(rf"{PART}/{PART}")
REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,200})")
COMMIT = re.compile(r"[0-9a-f]{40}")
UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
CACHED = re.compile(r"models--(?P<repo>[^/]+--[^/]+)")


@dataclass(frozen=True)
class HubName:
    """A repository on the Hub, at a revision."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Origin:
    """Where a folder in the client's cache comes from."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit}"


def hub_name(text: str, revision: str | None = None) -> HubName:
    """Parse `ORG/NAME[@revision]`.

    Args:
        text: what the user wrote.
        revision: branch, tag or commit; given apart, as by `--revision`.

    Raises:
        UserError: another form, or two revisions.
    """
    repo, at, written = text.partition("@")
    if at and revision is not None and revision != written:
        raise UserError(f"expected one revision, got '{written}' in {text} and '{revision}'; drop one")
    wanted = written if at else (revision or "main")
    if not is_repository(repo):
        raise UserError(f"expected ORG/NAME of letters, digits, '.', '_' and '-', got '{text}'")
    if not REVISION.fullmatch(wanted) or ".." in wanted or "//" in wanted:
        raise UserError(f"expected a branch, a tag or a commit after @, got '{wanted}' in {text}")
    return HubName(repo, wanted)


def parse_size(text: str) -> int:
    """Bytes of `500MB`, `4GB` or a plain number; units are powers of 1,024.

    >>> parse_size("2MB")
    2097152

    Raises:
        UserError: anything else.
    """
    unit = UNITS.get(text[-2:].upper(), 1)
    number = text[:-2] if unit > 1 else text
    with suppress(ValueError):
        if 0 < float(number) * unit < 2**63:
            return int(float(number) * unit)
    raise UserError(f"expected a size such as 500MB or 4GB, got '{text}'")


def is_repository(text: str) -> bool:
    """Whether a text is `ORG/NAME` as the Hub allows it."""
    return REPOSITORY.fullmatch(text) is not None and "--" not in text and ".." not in text


def is_hub_name(text: str) -> bool:
    """Whether a text can only mean a repository of the Hub: of its form, and neither it nor a folder of ORG's name is here."""
    repo = text.partition("@")[0]
    return is_repository(repo) and not Path(text).exists() and ("@" in text or not Path(text).parent.is_dir())


def asked_revision(text: str, revision: str | None = None) -> str | None:
    """The revision by which a model of the Hub is asked for, given apart or behind @; None where none is named."""
    return revision or (text.partition("@")[2] or None if is_hub_name(text) else None)


def origin_of(folder: Path) -> Origin | None:
    """Repository and commit of a snapshot in the client's cache; None for any other folder."""
    place = folder.resolve()
    cached = CACHED.fullmatch(place.parent.parent.name)
    if place.parent.name != "snapshots" or cached is None or not COMMIT.fullmatch(place.name):
        return None
    return Origin(cached["repo"].replace("--", "/", 1), place.name)
