"""A plugin for the tests of sweeps: methods that sleep, fail, hang, eat memory or die as they are told, and keep a log of what they did."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from copy import deepcopy
from dataclasses import dataclass

import torch

from tinymem import AblationConfig, MethodConfig, Properties, Scores, editor, scorer
from tinymem.models.adapters import mlp_parameters

WEIGHT = Properties(unit="weight", order="zeroth")


@dataclass(frozen=True, kw_only=True)
class FakeConfig(MethodConfig):
    """What goes wrong."""

    number: int = 0
    seconds: float = 0.0
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class SlowConfig(AblationConfig):
    """Seconds a step."""

    seconds: float = 0.0
    fails_above: float = 1.0


def log(text: str) -> None:
    """Append a line, in one write, to the file that FAKE_LOG names."""
    if path := os.environ.get("FAKE_LOG"):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{text} {os.getpid()} {os.getppid()}\n".encode())
        os.close(file)


def go_wrong(how: str) -> None:
    if how == "raise":
        raise ArithmeticError("a half of nothing")
    if how == "hang":
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock: no thread of this process can do anything about it
    if how == "eat":
        eaten = [torch.ones(16 * 2**20) for _ in range(24)]  # 1.5 GiB, and no more if nobody stops it
        time.sleep(1000)
        del eaten
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)


@editor("fake", config=FakeConfig, properties=WEIGHT)
def fake(model, data, config):
    """Source: none. Cost: as told. Options: number, seconds, how."""
    log(f"{config.number}")
    time.sleep(float(os.environ.get("FAKE_SECONDS", config.seconds)))
    if not os.environ.get("FAKE_HEALED"):
        go_wrong(config.how)
    edited = deepcopy(model)
    with torch.no_grad():
        for parameter in edited.parameters():
            parameter.mul_(1 + config.number / 1000)
    return edited


def steps(model, config):
    """So many steps of scoring at a ratio: its percent."""
    return round(config.ratio * 100)


@scorer("slow", config=SlowConfig, properties=WEIGHT, steps=steps)
def slow(model, data, config):
    """Source: none. Cost: as told. Options: ratio, of, scope, seconds, fails_above."""
    log(f"slow {config.ratio}")
    if config.ratio > config.fails_above:
        raise ArithmeticError("too much")
    for _ in range(steps(model, config)):
        time.sleep(config.seconds)
        data.bar.advance(1)
    return Scores("weight", {name: p.detach().abs() for name, p in mlp_parameters(model).items()})
