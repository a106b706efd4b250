"""What the stub of the Hub keeps and passes around: repositories with their commits, calls, answers, faults; see `hub_stub`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []


class Refused(Exception):
    """What the Hub answers with an error status."""

    def __init__(self, status: int, message: str, code: str = "", body: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **(body or {})}


@dataclass(frozen=True)
class Answer:
    """A response: JSON, unless the body is bytes."""

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request as it came, in the order in which it came."""

    method: str
    path: str
    size: int
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class File:
    """A file of a commit, with the ids that git and LFS give it."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Git's id of the blob; of the pointer for LFS."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        blob = pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    def listed(self, path: str) -> dict[str, Any]:
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}} if self.lfs else {}
        return {"type": "file", "path": path, "size": len(self.content), "oid": self.oid, **lfs}


Files = dict[str, File]


@dataclass
class Repo:
    """A repository: its refs, and the files of every commit."""

    kind: str
    name: str
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    listed: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    served: dict[str, bytes] = field(default_factory=dict)

    def commit(self, branch: str, files: Files, message: str = "commit") -> str:
        self.messages.append(f"{branch}: {message}")
        content = [self.branches.get(branch), len(self.commits), sorted((path, file.oid) for path, file in files.items())]
        commit = hashlib.sha1(json.dumps([self.kind, self.name, *content]).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def at(self, revision: str) -> str:
        """The commit of a branch, tag or commit."""
        commit = self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.at(revision)]


@dataclass
class Fault:
    """What happens to the calls that match: the connection ends, before or after the call took effect, or a status comes."""

    matches: Callable[[int, Call], bool]
    status: int | None = None
    retry_after: int | None = None
    after: bool = False
    times: int = 1


def route(method: str, pattern: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Answer calls of a method whose path matches: {repo} is a kind and a name, {any} part of a path."""
    kinds = r"(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    expression = pattern.replace("{repo}", kinds).replace("{file}", r"(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)")
    expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression)

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((method, re.compile(f"^{expression}$"), function))
        return function

    return register


@dataclass(frozen=True)
class Request:
    """The body and query of a call."""

    call: Call
    body: bytes
    query: Mapping[str, list[str]]

    @property
    def json(self) -> dict[str, Any]:
        if not self.call.headers.get("content-type", "").startswith("application/"):
            raise Refused(415, f"expected JSON, got {self.call.headers.get('content-type')}")
        return json.loads(self.body)
