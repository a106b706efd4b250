"""Fixtures of all tests: few threads, no network but loopback, one tiny finished run, and marks that say what is slow."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # on the full disks that tests make, Python would leave halves of compiled modules

import pytest
import torch
from helpers import IDENTITY, METHODS, QUICKSTART, TINY
from hub_stub import Hub, point_client_to, serving

from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.run import Subject, subject_of_corpus
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import Run
from tinymem.runs.pipeline import run as run_recipe
from tinymem.runtime.version import version_and_commit
from tinymem.training import loop

torch.set_num_threads(1)
sys.dont_write_bytecode = True
# As a shell's job in the background or under nohup has them; its processes would ignore a test's Ctrl-C or closed terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
HAPPENED: list[str] = []  # in the test that is running, by the names of marks
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse to reach any host but this one."""
    patch = pytest.MonkeyPatch()

    def guarded(name: str, place: int) -> None:
        original = getattr(socket.socket if place else socket, name)

        def call(*arguments: Any, **options: Any) -> Any:
            target = arguments[place]
            host = target[0] if isinstance(target, tuple) else target
            on_disk = bool(place) and not isinstance(target, tuple)  # a Unix socket
            if not (on_disk or host is None or str(host).startswith(LOOPBACK)):
                raise AssertionError(f"a test tried to reach {host}; tests run without network")
            return original(*arguments, **options)

        patch.setattr(socket.socket if place else socket, name, call)

    for name in ("connect", "connect_ex"):
        guarded(name, 1)
    guarded("getaddrinfo", 0)
    yield
    patch.undo()


def watch() -> None:
    """Note from now on which tests start processes or train epochs."""

    def heard(event: str, _: object) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            HAPPENED.append("processes")

    def noted(owner: type, method: str, kind: str) -> None:
        original = getattr(owner, method)

        def call(self: object) -> None:
            HAPPENED.append(kind)
            original(self)

        setattr(owner, method, call)

    sys.addaudithook(heard)
    noted(BaseProcess, "start", "processes")  # spawned ones raise no event
    noted(loop._Run, "one_epoch", "training")


version_and_commit()  # asks git once in a process, and not in the first test that writes a page
watch()


def pytest_collection() -> None:
    """Search for no garbage while everything is imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage, which would take a tenth of the tests' time."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the trained run."""
    for item in items:
        if "tiny_run" in getattr(item, "fixturenames", ()):
            item.add_marker("training")


@pytest.fixture(autouse=True)
def marks_say_what_is_slow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process or trains a model without the mark for it."""
    HAPPENED.clear()
    yield
    unmarked = sorted({kind for kind in HAPPENED if request.node.get_closest_marker(kind) is None})
    assert not unmarked, f"mark this test: @pytest.mark.{unmarked[0]}"


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What TinyMem remembers of its user is of the tests, in their processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("TINYMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in other processes of the tests, since threads change the order of sums; and for tiny tensors, on which they only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the shrunken quickstart. Shared: copy it before changing anything in it."""
    recipe = load_recipe(QUICKSTART, [*TINY, METHODS])
    return run_recipe(recipe, runs=tmp_path_factory.mktemp("tiny") / "runs", device="cpu")


@pytest.fixture(scope="session")
def checkpoint(tiny_run: Run) -> Path:
    """The tiny run's checkpoint folder."""
    return tiny_run.checkpoint


@pytest.fixture(scope="session")
def paper(tiny_run: Run) -> Subject:
    """The tiny run's model with what a method may see of it, under protocol paper."""
    return subject_of_corpus(tiny_run.model(), tiny_run.corpus(), tiny_run.recipe, identity=IDENTITY)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stub of the Hugging Face Hub that this process's client talks to, logged in."""
    with serving() as found:
        point_client_to(found, tmp_path / "hf", monkeypatch)
        yield found


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """A file with a method of a user's own, `halver`, that fails when asked to."""
    path = tmp_path / "halver.py"
    path.write_text(
        "from copy import deepcopy\nfrom dataclasses import dataclass\nimport torch\n"
        "from tinymem import MethodConfig, Properties, editor\n"
        "@dataclass(frozen=True)\nclass Config(MethodConfig):\n    factor: float = 0.5\n"
        "@editor('halver', config=Config, properties=Properties(unit='model', order='zeroth'))\n"
        "def halver(model, data, config):\n"
        "    if config.factor == 0: raise ArithmeticError('a half of nothing')\n"
        "    edited = deepcopy(model)\n    with torch.no_grad():\n"
        "        for p in edited.parameters(): p.mul_(config.factor)\n    return edited\n"
    )
    with UNLEARNERS.temporary():
        yield path
