"""Put files into repositories of the Hub: one commit a branch, resumable at any call, and compared with what came of it.

Nothing of the state of an upload is kept here. What a branch holds on the Hub is asked for, by hash, and only what differs is sent: so a
push that was cut is run again, and one that is complete sends nothing.
What it holds of another model or corpus is not overwritten, unless the user says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinymem.errors import UserError
from tinymem.hub.client import hub_api, hub_errors, persistent, status_of
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
KEPT = ".gitattributes"
"""The Hub's own file, which says what LFS holds."""
LFS = (".safetensors", ".parquet", ".ids")
CALLS_A_REPOSITORY, CALLS_A_BRANCH = 3, 6
"""Refs, create and refs; create branch, two listings, preupload, LFS batch and commit. A card is one call more, a file in LFS too."""


@dataclass(frozen=True)
class LocalFile:
    """A file to publish: a path, or its content."""

    source: Path | bytes

    @cached_property
    def hashes(self) -> dict[int, str]:
        """By length: SHA-256, as LFS has it, and git's SHA-1 of a blob."""
        content = self.content
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return {64: hashlib.sha256(content).hexdigest(), 40: blob.hexdigest()}

    @property
    def content(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def is_as(self, digest: str) -> bool:
        """Whether the Hub's hash, of either kind, is this file's."""
        return self.hashes.get(len(digest)) == digest


@dataclass(frozen=True)
class Branch:
    """A branch and all its files.

    Attributes:
        name: of the branch.
        files: by path.
        series: what `step` orders the branches of, such as a seed.
        step: steps trained.
        is_copy: whether another branch of the push has the same model or corpus, as one has that of `main`.
    """

    name: str
    files: Mapping[str, LocalFile]
    series: str = ""
    step: int | None = None
    is_copy: bool = False

    @property
    def weights(self) -> tuple[str, ...]:
        """SHA-256 of each file of weights."""
        return tuple(file.hashes[64] for path, file in sorted(self.files.items()) if path.endswith(".safetensors"))


@dataclass(frozen=True)
class Repository:
    """A repository to publish.

    Attributes:
        name: ORG/NAME.
        kind: model or dataset.
        branches: in the order in which they are uploaded; the default branch, `main`, last.
        license: as the Hub abbreviates it.
    """

    name: str
    kind: Kind
    branches: Sequence[Branch]
    license: str

    @property
    def new_bytes(self) -> int:
        """Bytes to send where the Hub has none of it: equal LFS files go once, others with every commit."""
        lfs = {file.hashes[64]: file.size for branch in self.branches for path, file in branch.files.items() if path.endswith(LFS)}
        return sum(lfs.values()) + sum(f.size for branch in self.branches for path, f in branch.files.items() if not path.endswith(LFS))

    @property
    def calls(self) -> int:
        """Calls of the Hub of a first upload."""
        lfs = {file.hashes[64] for branch in self.branches for path, file in branch.files.items() if path.endswith(LFS)}
        cards = sum("README.md" in branch.files for branch in self.branches)
        return CALLS_A_REPOSITORY + CALLS_A_BRANCH * len(self.branches) - self._has_main + cards + len(lfs)

    @property
    def _has_main(self) -> bool:
        return any(branch.name == "main" for branch in self.branches)


@dataclass(frozen=True)
class Collection:
    """Repositories shown together, as those of one table."""

    title: str
    namespace: str
    items: Sequence[Repository]


@dataclass(frozen=True)
class Plan:
    """Everything that one push puts on the Hub."""

    repositories: Sequence[Repository]
    collections: Sequence[Collection] = ()

    @property
    def calls(self) -> int:
        """Calls of the Hub of a first upload."""
        return sum(repository.calls for repository in self.repositories) + sum(1 + len(found.items) for found in self.collections)

    def lines(self) -> Iterator[str]:
        """What would be sent, in words."""
        for repository in self.repositories:
            yield f"{repository.kind} {repository.name}, license {repository.license}, {repository.new_bytes:,} bytes"
            yield from (f"  {branch.name}: {counted(len(branch.files), 'file')}" for branch in repository.branches)
        for found in self.collections:
            yield f"collection '{found.title}' of {found.namespace}: {', '.join(item.name for item in found.items)}"
        total = sum(repository.new_bytes for repository in self.repositories)
        yield f"{total:,} bytes and {counted(self.calls, 'call')} of the Hub, where it has none of it yet"


def push(
    plan: Plan, *, private: bool = False, replace: bool = False, say: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, str]]:
    """Upload a plan, and compare what the Hub has then with what is here; returns the commit of each branch, by repository.

    All branches are looked at before anything is sent. A `main` that holds another model or corpus is left as it is.

    Args:
        plan: repositories and collections.
        private: whether repositories and collections are made private.
        replace: whether branches that hold another model or corpus are overwritten.
        say: is told of each branch.

    Raises:
        UserError: no login, a branch holds another model or corpus, the Hub refused or was cut off for longer than the tries last, or has
            other content than was sent.
    """
    check_login()
    commits = {}
    for repository in plan.repositories if replace else [_without_taken(repository, say) for repository in plan.repositories]:
        with hub_errors(f"push to {repository.name}", "run again: what is there stays, and the rest is sent"):
            commits[repository.name] = _push(repository, private, say)
    for collection in plan.collections:
        with hub_errors(f"make the collection '{collection.title}'", "run again: what is there stays"):
            _collect(hub_api(), collection, private)
    return commits


def check_login() -> None:
    """Raise UserError unless the client has a login; the token is never looked at further."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("expected a login at the Hugging Face Hub, got none; run `hf auth login`")


def _without_taken(repository: Repository, say: Callable[[str], None]) -> Repository:
    """The repository without a copy whose branch on the Hub holds something else than any branch of this push.

    Raises:
        UserError: a branch that is no copy holds another model or corpus.
    """
    api, name, content = hub_api(), repository.name, "weights" if repository.kind == "model" else "rows"
    free = []
    with hub_errors(f"look at {name}", "run again: nothing is changed"):
        refs = _refs(api, repository)
        for branch in repository.branches:
            is_filled = branch.name == "main" or refs.get(branch.name) != refs.get("main")  # a new branch is at the commit of main
            there = dict(_remote(api, repository, branch.name)) if branch.name in refs and is_filled else {}
            ours = repository.branches if branch.is_copy else [branch]
            if any(_holds_nothing_else(there, found) for found in ours):
                free.append(branch)
            elif branch.is_copy:
                say(f"{name}@{branch.name}: left as it is, it holds other {content} than are pushed; --replace overwrites it")
            else:
                raise UserError(
                    f"expected {name}@{branch.name} on the Hub to be new or to hold these {content}, it holds others; push to another "
                    "repository, or overwrite them with --replace"
                )
    return dataclasses.replace(repository, branches=free)


def _refs(api: HfApi, repository: Repository) -> dict[str, str]:
    """The commit of each branch on the Hub; none of a repository that is not there."""
    try:
        found = persistent(api.list_repo_refs, repository.name, repo_type=repository.kind)
    except Exception as error:  # of whichever HTTP library the client uses
        if status_of(error) in (401, 404):
            return {}
        raise
    return {ref.name: ref.target_commit for ref in found.branches}


def _holds_nothing_else(there: Mapping[str, str], branch: Branch) -> bool:
    """Whether every file in LFS on the Hub, which are weights and rows, is one of the branch's."""
    return all(path in branch.files and branch.files[path].is_as(digest) for path, digest in there.items() if len(digest) == 64)


def _push(repository: Repository, private: bool, say: Callable[[str], None]) -> dict[str, str]:
    api, name, kind = hub_api(), repository.name, repository.kind
    persistent(api.create_repo, name, repo_type=kind, private=private, exist_ok=True)
    if private and not persistent(api.repo_info, name, repo_type=kind).private:
        raise UserError(f"expected {name} to be private, it is there and public; make it private on the Hub, or leave --private out")
    refs = _refs(api, repository)
    commits = {}
    for branch in repository.branches:
        if branch.name not in refs:
            persistent(api.create_branch, name, branch=branch.name, repo_type=kind, exist_ok=True)
        commit = _fill(api, repository, branch)
        commits[branch.name] = commit or refs.get(branch.name, "")
        say(f"{name}@{branch.name}: {commit[:12] if commit else 'is there'}")
    _verify(repository, {branch.name: dict(_remote(api, repository, branch.name)) for branch in repository.branches})
    return commits


def _fill(api: HfApi, repository: Repository, branch: Branch) -> str | None:
    """Commit what differs, and delete what is no longer there; returns the commit, None where nothing differs."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = dict(_remote(api, repository, branch.name))
    wrong = [path for path, file in branch.files.items() if path not in there or not file.is_as(there[path])]
    extra = [path for path in there if path not in branch.files and path != KEPT]
    if not wrong and not extra:
        return None

    def commit() -> str:
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, _source(branch.files[path])) for path in wrong
        ]
        operations += [CommitOperationDelete(path) for path in extra]
        message, kind = f"TinyMem: {branch.name}", repository.kind
        made = api.create_commit(repository.name, operations, commit_message=message, revision=branch.name, repo_type=kind)
        return made.oid

    return persistent(commit)


def _source(file: LocalFile) -> str | bytes:
    return file.source if isinstance(file.source, bytes) else str(file.source)


def _remote(api: HfApi, repository: Repository, branch: str) -> Iterator[tuple[str, str]]:
    """Path and hash of every file that a branch holds on the Hub."""
    from huggingface_hub.hf_api import RepoFile

    entries = persistent(lambda: list(api.list_repo_tree(repository.name, revision=branch, repo_type=repository.kind, recursive=True)))
    for entry in entries:
        if isinstance(entry, RepoFile):
            yield entry.path, entry.lfs.sha256 if entry.lfs else entry.blob_id


def _verify(repository: Repository, remote: Mapping[str, Mapping[str, str]]) -> None:
    """Compare every branch on the Hub with the manifest, and steps with their neighbors.

    Raises:
        UserError: two steps that differ here are the same there, or a file has another hash.
    """
    for one, other in zip(repository.branches, repository.branches[1:], strict=False):
        is_next = one.series == other.series and one.step is not None and other.step is not None and one.step != other.step
        if is_next and one.weights != other.weights and _weights(remote[one.name]) == _weights(remote[other.name]):
            raise UserError(
                f"{one.name} and {other.name} differ here and have the same weights in {repository.name} on the Hub; do not use them: "
                "delete both branches there and push again"
            )
    for branch in repository.branches:
        for path, file in branch.files.items():
            found = remote[branch.name].get(path, "nothing")
            if not file.is_as(found):
                raise UserError(
                    f"expected {path} of {repository.name}@{branch.name} with SHA-256 {file.hashes[64][:12]} on the Hub, got {found[:12]}; "
                    "push again"
                )


def _weights(files: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(digest for path, digest in sorted(files.items()) if path.endswith(".safetensors"))


def _collect(api: HfApi, collection: Collection, private: bool) -> None:
    found = persistent(api.create_collection, collection.title, namespace=collection.namespace, private=private, exists_ok=True)
    for item in collection.items:
        persistent(api.add_collection_item, found.slug, item.name, item.kind, exists_ok=True)
