"""Take a checkpoint from the Hub: `ORG/NAME[@revision]` becomes a local, verified folder in the client's cache.

Nothing that is fetched is trusted: the listing is checked before the download (`listing`), every file's hash after it, and what the
repository says of itself is compared with what is there (`claims`). No pickle and no code is downloaded. Without network the cache
serves, and is verified in the same way, as the client names its files by their hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.hub.claims import check_claims
from tinymem.hub.client import hub_api, hub_errors, persistent, status_of
from tinymem.hub.listing import MOST_ENTRIES, OTHERS, SHARD, Listed, taken
from tinymem.hub.names import HubName, hub_name, is_hub_name
from tinymem.hub.pins import Snapshot, pins
from tinymem.models.weights import CONFIG, WEIGHTS
from tinymem.runtime.files import file_sha256
from tinymem.runtime.memory import largest_memory

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LEAST = 4 * 2**30
"""Bytes that are taken without being asked for more, on any machine."""


def checkpoint_folder(given: Path | str, *, revision: str | None = None, max_size: int | None = None) -> Path:
    """The folder of a checkpoint that is given as a path, or as `ORG/NAME[@revision]` of the Hub, which is fetched.

    A path that exists is never taken for a name; neither is one whose first folder is here.

    Raises:
        UserError: as `fetch`.
    """
    text = str(given)
    if revision is None and not is_hub_name(text):
        return Path(given)
    return fetch(hub_name(text, revision), max_size=max_size).folder


def fetch(name: HubName, *, max_size: int | None = None) -> Snapshot:
    """Download what a checkpoint needs at a revision, and verify it. A branch is the commit that it was when it was first asked for.

    Args:
        name: repository and revision.
        max_size: bytes that all files together may have, checked before the download; None: as many as the memory of this machine, or of a
            GPU of it, holds.

    Raises:
        UserError: no such repository or revision, one that is not safe or not whole, or no network and nothing in the cache.
    """
    known = pins()
    if name not in known:
        known[name] = _fetched(name, max(LEAST, largest_memory()) if max_size is None else max_size)
    return known[name]


def _fetched(name: HubName, max_size: int) -> Snapshot:
    with hub_errors(f"fetch {name} from the Hub"):
        commit = _commit_of(name)
        if commit is None:
            return _cached(name)
        files = taken(_listed(hub_api(), name, commit), str(name), max_size)
        folder = _downloaded(name, commit, files)
    check_claims(folder, str(name), _verified(folder, files, name))
    return Snapshot(name, commit, folder)


def cached_folder(name: HubName) -> Path | None:
    """The folder of a revision in the client's cache, not verified; None where it was not fetched whole. The network is not asked."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name.repo, CONFIG, revision=name.revision)  # the last file that is fetched
    return Path(found).parent if isinstance(found, str) else None


def _commit_of(name: HubName) -> str | None:
    """The commit that a revision is now; None where the Hub cannot be reached."""
    try:
        return persistent(hub_api().model_info, name.repo, revision=name.revision).sha
    except Exception as error:
        if status_of(error) is not None:
            raise
        return None


def _listed(api: HfApi, name: HubName, commit: str) -> Iterator[Listed]:
    """The top of a repository's tree, up to one entry more than is taken."""
    listed = persistent(lambda: list(islice(api.list_repo_tree(name.repo, revision=commit, recursive=False), MOST_ENTRIES + 1)))
    for entry in listed:
        lfs = getattr(entry, "lfs", None)
        is_file = hasattr(entry, "blob_id")
        digest = lfs.sha256 if lfs else getattr(entry, "blob_id", "")
        yield Listed(str(entry.path), "file" if is_file else "folder", int(getattr(entry, "size", 0)), str(digest))


def _downloaded(name: HubName, commit: str, files: list[Listed]) -> Path:
    """The snapshot's folder. `config.json` comes last and by the revision's own name, which the client remembers for offline use."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    folder = Path()
    for file in files:
        url = hf_hub_url(name.repo, file.path, revision=commit)
        size = persistent(get_hf_file_metadata, url).size
        if size is not None and size != file.size:
            raise UserError(f"expected {file.size:,} bytes of {file.path} in {name} as its listing says, got {size:,}; it is not taken")
        revision = name.revision if file.path == CONFIG else commit
        folder = Path(persistent(hf_hub_download, name.repo, file.path, revision=revision)).parent
    if folder.name != commit:  # the branch has moved since: this command stays with the first one
        folder = Path(persistent(hf_hub_download, name.repo, CONFIG, revision=commit)).parent
    return folder


def _cached(name: HubName) -> Snapshot:
    """What the client's cache has of a revision, verified against the hashes in its files' names."""
    folder = cached_folder(name)
    if folder is None or not any(folder.glob("*.safetensors")):  # of a branch that moved there may be its config.json alone
        raise UserError(f"could not fetch {name} from the Hub: it cannot be reached, and the client's cache has none of it")
    paths = [path for path in folder.iterdir() if path.name in OTHERS or path.name == WEIGHTS or SHARD.fullmatch(path.name)]
    hashes = _verified(folder, [Listed(path.name, "file", path.stat().st_size, path.resolve().name) for path in paths], name)
    check_claims(folder, str(name), hashes)
    return Snapshot(name, folder.name, folder)


def _verified(folder: Path, files: list[Listed], name: HubName) -> dict[str, str]:
    """The SHA-256 of files by their names, as far as the Hub has it; what is not, byte for byte, what its hash says is refused and deleted.

    Raises:
        UserError: other bytes, or a file that lies outside the repository's cache.
    """
    cache = folder.parent.parent.resolve()
    for file in files:
        path = folder / file.path
        place = path.resolve()
        if not place.is_relative_to(cache) or not place.is_file():
            raise UserError(f"expected {file.path} of {name} in the client's cache, got a link that leads out of it; delete {path}")
        if place.stat().st_size != file.size or _digest(place, file.digest) != file.digest:
            place.unlink()
            path.unlink(missing_ok=True)
            raise UserError(f"expected {file.path} of {name} with the hash {file.digest[:12]}, got other bytes; deleted: run again")
    return {file.path: file.digest for file in files if len(file.digest) == 64}


def _digest(path: Path, like: str) -> str:
    """SHA-256 of a file, or git's SHA-1 of its blob where that is what the Hub has."""
    if len(like) == 64:
        return file_sha256(path)
    sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha1.update(block)
    return sha1.hexdigest()
