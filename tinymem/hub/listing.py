"""What a repository's listing says, checked before anything is downloaded; a stranger may have made it say anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tinymem.errors import UserError, one_line
from tinymem.models.weights import CONFIG, INDEX, METADATA, PICKLED, SAMPLE, WEIGHTS

MOST_ENTRIES = 10_000
LARGEST_OTHER = 100 * 2**20
"""Bytes of a file that holds no weights."""
CARD, MANIFEST, RECIPE, CURVE, RESULTS = "README.md", "manifest.json", "recipe.yaml", "curve.jsonl", "results.json"
SHARD = re.compile(r"model-\d{1,6}-of-\d{1,6}\.safetensors")
OTHERS = frozenset(
    f"{CONFIG} generation_config.json adapter_config.json {INDEX} {METADATA} {CARD} {MANIFEST} {RECIPE} {CURVE} {RESULTS} {SAMPLE} "
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt tokenizer.model "
    "chat_template.jinja".split()
)
"""The files that are taken besides weights: text, tables and a sample of the rows. No Python, no pickle, nothing from subfolders."""
SHA256, GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Listed:
    """An entry of a repository's listing.

    Attributes:
        path: in the repository.
        kind: `file`, `directory`, or something that the Hub should not have.
        size: in bytes.
        digest: SHA-256 of the content (LFS), or git's SHA-1 of the blob.
    """

    path: str
    kind: str
    size: int
    digest: str


def taken(entries: Iterable[Listed], name: str, max_size: int) -> list[Listed]:
    """The files of a repository that are downloaded: weights, configuration, tokenizer, metadata, card, sample of rows; `config.json` last.

    Args:
        entries: its listing.
        name: of the repository, for messages.
        max_size: bytes that all of them together may have.

    Raises:
        UserError: names that leave the folder or fall together, links, no readable weights, no configuration, or too many bytes.
    """
    entries = _bounded(entries, name)
    for entry in entries:
        _check_path(entry.path, name)
    found = {entry.path: entry for entry in entries if is_taken(entry.path)}
    if WEIGHTS in found:  # of both forms the single file, as transformers does
        found = {path: entry for path, entry in found.items() if not SHARD.fullmatch(path)}
    _check_collisions(entries, found, name)
    for entry in found.values():
        _check_file(entry, name)
    _check_weights(found, entries, name)
    total = sum(entry.size for entry in found.values())
    if total > max_size:
        raise UserError(
            f"expected at most {_mib(max_size)} from {name}, got {_mib(total)}; give --max-size {total // 2**20 + 1}MB to take it"
        )
    return sorted(found.values(), key=lambda entry: (entry.path == CONFIG, entry.path))


def _bounded(entries: Iterable[Listed], name: str) -> list[Listed]:
    found = []
    for entry in entries:
        found.append(entry)
        if len(found) > MOST_ENTRIES:
            raise UserError(f"expected at most {MOST_ENTRIES:,} entries in {name}, got more; no checkpoint has so many files")
    return found


def is_taken(path: str) -> bool:
    """Whether a file of a repository is one that is fetched and checked, by its name."""
    return path in OTHERS or path == WEIGHTS or SHARD.fullmatch(path) is not None


def _check_path(path: str, name: str) -> None:
    """A name that could lead out of the folder it is written to, or that a terminal or a file system reads otherwise, is refused."""
    parts = PurePosixPath(path).parts
    wrong = (
        not path
        or path.startswith("/")
        or "\\" in path
        or ".." in parts
        or path != "/".join(parts)
        or re.match(r"[A-Za-z]:", path)
        or not path.isprintable()
    )
    if wrong:
        raise UserError(f"expected plain file names in {name}, got {one_line(repr(path))[:80]}, which leads elsewhere; it is not taken")


def _check_collisions(entries: Sequence[Listed], found: dict[str, Listed], name: str) -> None:
    """Two names that are one on some file systems: which of them would be loaded is not known."""
    for folded in {_folded(path) for path in found}:
        same = [entry.path for entry in entries if _folded(entry.path) == folded]
        if len(same) > 1:
            raise UserError(f"expected one file of each name in {name}, got {' and '.join(map(one_line, same[:2]))}; it is not taken")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


def _check_file(entry: Listed, name: str) -> None:
    if entry.kind != "file":
        raise UserError(f"expected {entry.path} in {name} to be a file, got a {one_line(entry.kind)[:20]}; links are not followed")
    if entry.size < 0 or not (SHA256.fullmatch(entry.digest) or GIT.fullmatch(entry.digest)):
        raise UserError(f"expected a size and a hash of {entry.path} in {name}, got {entry.size} and '{one_line(entry.digest)[:20]}'")
    if not entry.path.endswith(".safetensors") and entry.size > LARGEST_OTHER:
        raise UserError(f"expected {entry.path} in {name} to have at most {_mib(LARGEST_OTHER)}, got {_mib(entry.size)}; it is not taken")


def _check_weights(found: dict[str, Listed], entries: Sequence[Listed], name: str) -> None:
    if not any(path.endswith(".safetensors") for path in found) and "adapter_config.json" not in found:
        pickled = next((entry.path for entry in entries if entry.path.endswith(PICKLED)), None)
        got = f"only pickled ones ({pickled}), which can run code and are not read" if pickled else "none"
        raise UserError(f"expected weights as safetensors in {name}, got {got}; ask for another revision, or for converted weights")
    if CONFIG not in found:
        raise UserError(f"expected a {CONFIG} in {name}, got none; it is no model that transformers loads")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
