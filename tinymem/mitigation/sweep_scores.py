"""Edits of many configurations from one run of a method, where it allows that, each with the cost that it would have alone.

Scores do not depend on the ratio, so one scoring pass serves all ratios; Greedy scores up to the largest, and its order of removal serves
the smaller ones. Slim, Hard Concrete and the subnets pass through 1 and 10 epochs on the way to 20; those that train at their ratio (the
subnets) run once for each.

Row for row the edits are those of separate runs, errors and refusals included: where a method scores up to its ratio, a pass that fails
for the largest ratio may succeed for smaller ones, so those are scored again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from tinymem.errors import UserError, no_exit
from tinymem.mitigation.ablation import AblationConfig, Scores, ablate, select
from tinymem.mitigation.config import HasEpochs, MethodConfig
from tinymem.mitigation.method import MitigationData, Unlearner, apply, is_control, refuse_if_nothing, scores_of
from tinymem.runtime.cost import Cost, measured
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar

Begin = Callable[[Sequence[MethodConfig], float], None]


@dataclass(frozen=True)
class Edit:
    """A configuration with its edited model, or with the error instead.

    Attributes:
        cost: of this configuration run alone: scoring, selection and ablation.
        shared: whether its scores served other configurations too.
        found: what the method put into its data's.
    """

    config: MethodConfig
    result: nn.Module | Exception
    cost: Cost = field(default_factory=Cost)
    shared: bool = False
    found: JsonObject = field(default_factory=dict)


def pass_key(method: Unlearner, config: MethodConfig) -> str:
    """The options, as JSON, that must be equal for two configurations to come from one scoring pass."""
    options = config.as_json()
    if method.kind == "score":
        options.pop("ratio")
    if method.by_epoch:
        options.pop("epochs")
    return canonical_json(options)


def shared_edits(
    model: nn.Module, method: Unlearner, data: MitigationData, configs: Sequence[MethodConfig], begin: Begin = lambda _configs, _spent: None
) -> Iterator[Edit]:
    """Yield the edit of every configuration; those of one `pass_key` come from one pass.

    `begin` is called before each piece of work with its configurations and the seconds that they have cost so far, which they would also
    cost alone.
    """
    passes: dict[str, list[MethodConfig]] = {}
    for config in configs:
        passes.setdefault(pass_key(method, config), []).append(config)
    for together in passes.values():
        yield from _pass(model, method, data, together, begin)


def _pass(model: nn.Module, method: Unlearner, data: MitigationData, configs: list[MethodConfig], begin: Begin) -> Iterator[Edit]:
    together: list[MethodConfig] = []
    for config in configs:
        if len(configs) == 1 or _is_trivial(model, method, data, config):
            begin([config], 0.0)
            yield _alone(model, method, data, config)
        else:
            together.append(config)
    if together and method.by_epoch:
        yield from _by_epoch(model, method, data, sorted(together, key=_epochs_and_ratio), begin)
    elif together:
        yield from _by_ratio(model, method, data, sorted(together, key=_ratio), begin)


def _by_epoch(model: nn.Module, method: Unlearner, data: MitigationData, left: list[MethodConfig], begin: Begin) -> Iterator[Edit]:
    """Yield the edits of one run to the highest number of epochs, each made from its state at the configuration's own number."""
    assert method.by_epoch is not None
    device, spent, reached = _device(model), Cost(), 0
    states = method.by_epoch(model, data, left[-1])
    while left:
        begin(left, spent.seconds)
        try:
            with no_exit(method.name), measured(device) as cost:
                while reached < _epochs(left[0]):
                    reached, state = next(states)
        except Exception as error:
            yield from (Edit(config, error) for config in left)
            return
        spent = _sum(spent, cost)
        for config in [c for c in left if _epochs(c) == reached]:
            begin([config], spent.seconds)
            make = partial(_ablated, model, state, config) if isinstance(state, Scores) else state
            yield _made(make, model, config, spent)
        left = [c for c in left if _epochs(c) > reached]


def _by_ratio(model: nn.Module, method: Unlearner, data: MitigationData, left: list[MethodConfig], begin: Begin) -> Iterator[Edit]:
    """One scoring pass at the largest ratio; a method with `steps` has passes that grow with the ratio."""
    device, steps = _device(model), method.steps
    while left:
        charged = left[-1:] if steps else left  # a pass that is too long at one ratio may be short at a smaller one
        begin(charged, 0.0)
        bar = _Stopwatch(data.bar, {steps(model, c) for c in left[:-1]} if steps else set(), device)
        try:
            with no_exit(method.name), measured(device) as cost:
                scores = scores_of(method, model, replace(data, bar=bar), left[-1])
        except Exception as error:
            yield from (Edit(config, error) for config in charged)
            left = left[: -len(charged)]
            continue
        for config in left:
            seconds = bar.seconds.get(steps(model, config), cost.seconds) if steps else cost.seconds
            spent = Cost(seconds, cost.peak_mb)
            begin([config], spent.seconds)
            yield _made(partial(_ablated, model, scores, config), model, config, spent)
        return


class _Stopwatch:
    """A progress bar that records when chosen numbers of steps were reached, on the device."""

    def __init__(self, bar: Bar, marks: set[int], device: torch.device) -> None:
        self.bar, self.marks, self.device = bar, marks, device
        self.done, self.seconds, self.started = 0.0, dict[int, float](), time.perf_counter()

    def expect(self, total: float) -> None:
        self.bar.expect(total)

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        if self.done in self.marks:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[int(self.done)] = time.perf_counter() - self.started
        self.bar.advance(steps, note)


def _alone(model: nn.Module, method: Unlearner, data: MitigationData, config: MethodConfig) -> Edit:
    data = replace(data, found={})
    try:
        with no_exit(method.name), measured(_device(model)) as cost:
            edited = apply(method, model, data, config)
    except Exception as error:
        return Edit(config, error)
    return Edit(config, edited, cost, found=data.found)


def _ablated(model: nn.Module, scores: Scores, config: MethodConfig) -> nn.Module:
    assert isinstance(config, AblationConfig)  # `scorer` takes no other
    return ablate(model, select(model, scores, config))


def _made(make: Callable[[], nn.Module], model: nn.Module, config: MethodConfig, spent: Cost) -> Edit:
    """The edit that `make` makes of a pass that has cost `spent`."""
    try:
        with measured(_device(model)) as cost:
            edited = make()
    except Exception as error:
        return Edit(config, error, shared=True)
    return Edit(config, edited, _sum(spent, cost), shared=True)


def _is_trivial(model: nn.Module, method: Unlearner, data: MitigationData, config: MethodConfig) -> bool:
    """Whether an edit needs no scores: the control, nothing to forget, or a ratio known to round to nothing."""
    if is_control(config) or not len(data.forget):
        return True
    if method.kind == "edit" or not isinstance(config, AblationConfig):
        return False
    try:
        refuse_if_nothing(model, method, config)
        if method.steps:
            method.steps(model, config)
    except UserError:
        return True
    return False


def _epochs_and_ratio(config: MethodConfig) -> tuple[int, float]:
    return _epochs(config), _ratio(config)


def _epochs(config: MethodConfig) -> int:
    assert isinstance(config, HasEpochs)  # checked where a method registers with `by_epoch`
    return config.epochs


def _ratio(config: MethodConfig) -> float:
    return config.ratio if isinstance(config, AblationConfig) else 0.0


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.seconds + other.seconds, max(one.peak_mb, other.peak_mb))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
