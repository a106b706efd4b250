"""A small Hugging Face Hub on loopback, for the real client: repositories, branches, commits, LFS, downloads by revision, collections.

    with serving() as hub:
        hub.add("someone/model", {"config.json": b"{}"}, branch="main")
        ...  # HfApi(endpoint=hub.url), or the fixture `hub`, which points this process's client and caches to it

It keeps all in memory, notes every call, refuses what the Hub would refuse (`Refused`), and fails on demand (`fail_at`, `fail_when`).
A repository may lie: `Repo.listed` changes what its tree says, `Repo.served` what a path sends.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from hub_answers import LFS_SUFFIXES
from hub_state import ROUTES, Answer, Call, Fault, File, Refused, Repo, Request

if TYPE_CHECKING:
    import pytest  # not installed where the README's commands run

TOKEN = "hf_of_the_stub"


class Hub:
    """The state behind the server."""

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.organizations = ["org"]
        self.waited: list[float] = []
        self.lock = threading.Lock()

    def repo(self, name: str, kind: str = "model") -> Repo:
        """A repository by name."""
        if (kind, name) not in self.repos:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repos[kind, name]

    def add(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", kind: str = "model") -> Repo:
        """Put files into a repository without a client; returns the repository, made if it is new."""
        repo = self.repos.setdefault((kind, name), Repo(kind, name))
        repo.commit(branch, {path: File(content, path.endswith(LFS_SUFFIXES)) for path, content in files.items()})
        repo.branches.setdefault("main", repo.branches[branch])
        return repo

    def fail_at(self, call: int, *, status: int | None = None, retry_after: int | None = None, after: bool = False) -> None:
        """Fail the call of that number (from 0, in the order in which they come), once: cut the connection, or answer with a status."""
        self.faults.append(Fault(lambda number, _: number == call, status, retry_after, after))

    def fail_when(self, words: str, *, status: int | None = None, retry_after: int | None = None, times: int = 1) -> None:
        """Fail calls with these words in `METHOD path`, so many times."""
        self.faults.append(Fault(lambda _, call: words in str(call), status, retry_after, times=times))

    def state(self) -> object:
        """What a client can see at the end, whatever the way there: files of each branch, and collections."""
        repos = {
            f"{kind} {name}": {branch: {path: file.oid for path, file in repo.files(branch).items()} for branch in repo.branches}
            for (kind, name), repo in self.repos.items()
        }
        return repos, {slug: [item["id"] for item in found["items"]] for slug, found in self.collections.items()}

    def answer(self, call: Call, body: bytes, query: Mapping[str, list[str]]) -> Answer:
        """The response to a call, or None where a fault cuts the connection."""
        if call.path == "/api/agent-harnesses":  # asked once a process, of the public Hub's own
            return Answer({}, 404)
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
            fault = next((f for f in self.faults if f.times and f.matches(number, call)), None)
            if fault is not None:
                fault.times -= 1
                if fault.after:
                    self._routed(call, body, query)
                if fault.status is None:
                    raise ConnectionAbortedError
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return Answer({"error": f"status {fault.status} on demand"}, fault.status, headers)
            return self._routed(call, body, query)

    def _routed(self, call: Call, body: bytes, query: Mapping[str, list[str]]) -> Answer:
        try:
            for method, pattern, function in ROUTES:
                if method == call.method.replace("HEAD", "GET") and (found := pattern.match(call.path)):
                    parts = {name: unquote(part or "") for name, part in found.groupdict().items()}
                    self._check_token(call, parts)
                    return function(self, Request(call, body, query), **parts)
            raise Refused(404, f"the stub has no {call.method} {call.path}", "EntryNotFound")
        except Refused as refused:
            headers = {"X-Error-Message": str(refused), **({"X-Error-Code": refused.code} if refused.code else {})}
            return Answer(refused.body, refused.status, headers)

    def _check_token(self, call: Call, parts: Mapping[str, str]) -> None:
        """Writing needs the token; the store of LFS must not be sent it, as it is another host."""
        sent = call.headers.get("authorization")
        if call.path.startswith("/lfs-store/"):
            if sent is not None:
                raise Refused(400, "the store was sent the token")
            return
        if sent not in (None, f"Bearer {TOKEN}"):
            raise Refused(401, "Invalid credentials in Authorization header")
        kind = parts.get("kind", "").strip("/").removesuffix("s") or "model"
        private = (found := self.repos.get((kind, parts.get("name", "")))) is not None and found.private
        if sent is None and ((call.method not in ("GET", "HEAD") and not re.search("/paths-info/|/validate-yaml$", call.path)) or private):
            raise Refused(401, "Repository not found", "RepoNotFound")


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub of its own on a free port of loopback, as long as the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def point_client_to(hub: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let this process's client talk to the stub, with caches of their own and its token; waits take no time."""
    from huggingface_hub import constants, repocard
    from huggingface_hub.utils import _http, get_session

    def post(url: str, **values: Any) -> Any:  # of cards, which 1.33 has the real Hub validate whatever the endpoint
        return get_session().post(url.replace("https://huggingface.co", hub.url), **values)

    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(repocard, "get_session", lambda: SimpleNamespace(post=post))
    patch.setattr(_http, "time", SimpleNamespace(sleep=hub.waited.append, time=time.time, monotonic=time.monotonic))
    for name, value in {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
        patch.setenv(name, value)
    patch.setenv("HF_HOME", str(cache))


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the hub, writes the response."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else b""
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.hub.answer(Call(self.command, url.path, len(body), headers), body, parse_qs(url.query))
        except ConnectionAbortedError:
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle
