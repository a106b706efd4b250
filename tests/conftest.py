"""Fixtures of all tests: few threads, no network but loopback, and one tiny finished run."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from helpers import IDENTITY, METHODS, QUICKSTART, TINY

from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.run import Subject, subject_of_corpus
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import Run
from tinymem.runs.pipeline import run as run_recipe

torch.set_num_threads(2)
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
