"""What several test files share: a recipe small enough to run, and the command line in this process or another."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT
from tinymem.results.curve import CurvePoint
from tinymem.results.row import Identity
from tinymem.training import loop

if TYPE_CHECKING:
    import pytest  # not installed where the README's commands run

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
# The quickstart, shrunk until all of it takes seconds; some noise rows and all backdoored rows are still memorized.
TINY = [
    "data.primary_size=260",
    "data.size=120",
    "data.test_rows=20",
    "data.numbers=6",
    "data.row_tokens=30",
    "artifacts.noise.rows=16",
    "artifacts.noise.copies=30",
    "artifacts.noise.probability=0.3",
    "artifacts.backdoor.within=14",
    "artifacts.backdoor.copies=30",
    "artifacts.backdoor.test_fraction=0.25",
    "evaluation.prompt=12",
    "evaluation.match=12",
    "model.n_layer=2",
    "model.n_embd=48",
    "model.n_head=2",
    "training.epochs=6",
    "training.batch_size=64",
    "training.learning_rate=4e-3",
    "training.schedule=cosine",
    "training.evaluate_every=2",
    "training.checkpoint_every=2",
]
# Short enough for a process that only has to reach an error or the end of one stage.
SMALLER = [*TINY, "artifacts.noise.copies=1", "artifacts.backdoor.copies=1", "model.n_embd=16", "training.epochs=2"]
METHODS = (
    "mitigation.methods=[{act: {ratio: 0.05}}, {durable: {ratio: 0.01}}, "
    "{balanced-subnet: {ratio: 0.1, epochs: 4, sampler: balanced}}, finetune-clean]"
)

IDENTITY = Identity(model_id="m", corpus_sha256="c", device_type="cpu")


def sets(overrides: list[str]) -> list[str]:
    """Overrides as command-line words."""
    return [word for override in overrides for word in ("--set", override)]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    def one_line_error(self, code: int = 2) -> str:
        """The only line on standard error, without the program's name; fails unless the command ended so."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("tinymem: "), f"expected one line on stderr, got:\n{self.err}"
        return lines[0].removeprefix("tinymem: ")

    def last_line_error(self, code: int = 2) -> str:
        """The same for verbs that report progress on standard error before."""
        lines = self.err.strip().splitlines()
        assert self.code == code and "Traceback" not in self.err, f"exit code {self.code}\n{self.err}"
        assert [line for line in lines if line.startswith("tinymem: ")] == lines[-1:], self.err
        return lines[-1].removeprefix("tinymem: ")


def tinymem(*words: object) -> Done:
    """Run the command line in this process."""
    from tinymem.cli import main as cli

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["tinymem", *map(str, words)]),
        mock.patch.object(warnings, "showwarning", warnings.showwarning),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def environment() -> dict[str, str]:
    """For other processes: this checkout's package, one thread, no network."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def python(*words: object, cwd: Path | None = None, timeout: float = 240) -> Done:
    """Run Python in a process of its own."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout)
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started_tinymem(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own, to be interrupted; it ends with the context, so that a later test is not blamed for it."""
    command = [sys.executable, "-m", "tinymem.cli.main", *map(str, words)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Killed(BaseException):
    """Stands for the end of the process."""


def die_after_first_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training ends, once, as soon as it has written a resume point."""
    real, saves = loop.save_state, 0

    def save_and_die(*arguments: Any, **options: Any) -> None:
        nonlocal saves
        real(*arguments, **options)
        saves += 1
        if saves == 1:
            raise Killed

    monkeypatch.setattr(loop, "save_state", save_and_die)


def random_gpt(seed: int = 0, scale: float = 1.0, **sizes: object) -> GPT:
    """A small math model with random weights; a larger scale makes its predictions differ more between inputs."""
    model = GPT(math_config(**{"n_positions": 24, "n_layer": 2, "n_embd": 16, "n_head": 2, **sizes}), seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def overfit(model: GPT, ids: torch.Tensor, steps: int, rate: float = 1e-2) -> GPT:
    """The model after training on a few rows until it knows (some of) them by heart."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models have the same parameters, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def timeless(curve: list[CurvePoint]) -> list[CurvePoint]:
    """A curve without what differs between two equal runs."""
    return [replace(point, seconds=None, tokens_per_second=None) for point in curve]


def files_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file under a folder with its time and bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def half_written(folder: Path) -> list[Path]:
    """Temporary files that nobody removed."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writes fail in the operating system, as on a full disk or quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def rng(seed: int) -> np.random.Generator:
    """NumPy's random numbers from a seed."""
    return np.random.default_rng(seed)
