"""Comparison of each method with its plain loop on a part of the work: the factor to the whole, and the difference of the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tinymem.bench import plain_loops, plain_weight_loops
from tinymem.bench.case import Case
from tinymem.data.rows import Rows
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.neuron import act, hard_concrete, ig, slim, zero
from tinymem.mitigation.methods.neuron._gates import Rule, learn
from tinymem.mitigation.methods.weight import balanced_subnet, durable, greedy, sou, subnet
from tinymem.mitigation.methods.weight._batches import batches
from tinymem.runtime.cost import measured

FAR = 1e-3
STEPS, ZERO_STRIDE, IG_POSITIONS, GREEDY_RATIO = 20, 32, 5, 0.001


@dataclass(frozen=True)
class Comparison:
    """Seconds of the plain loop on a part of the work, and the difference of its scores from ours there."""

    part: str
    seconds: float
    factor: float
    """Factor from the part to the whole work."""
    difference: str


@dataclass(frozen=True)
class Part:
    """A part of the work: its data, both computations, and its share."""

    what: str
    factor: float
    plain: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    choices: bool = False
    """If true, the results are choices of weights, compared by the number that differ."""


def compare(name: str, case: Case, rows: int, scale: float) -> Comparison | None:
    """Time the plain loop of a method and check it against ours; None: the method has none."""
    if name not in PARTS:
        return None
    part = PARTS[name](case, case.data, rows)
    with measured(case.data.forget.ids.device) as cost:
        plain = part.plain().double().cpu()
    ours = part.ours().double().cpu()
    if part.choices:
        difference = f"{int((plain != ours).sum())} of {len(plain)} choices differ"
    else:
        relative = (plain - ours).abs() / plain.abs().max()
        difference = f"{float(relative.max()):.0e} of the largest score"
        if beyond := int((relative > FAR).sum()):
            difference += f", {beyond} of {len(plain)} beyond {FAR:g}"
    factor = part.factor * min(1.0, scale) if name == "greedy" else part.factor
    return Comparison(part.what, cost.seconds, factor, difference)


def _some(data: MitigationData, rows: int) -> tuple[MitigationData, float]:
    some = data.forget.take(torch.arange(min(rows, len(data.forget)), device=data.forget.ids.device))
    return replace(data, forget=some), len(data.forget) / len(some)


def _flat(scores: Scores | dict[str, Tensor]) -> Tensor:
    values = scores.values if isinstance(scores, Scores) else scores
    return torch.cat([s.flatten() for s in values.values()])


def _act(case: Case, data: MitigationData, rows: int) -> Part:
    part, factor = _some(data, max(rows, 32))
    return Part(
        f"{len(part.forget)} rows", factor,
        lambda: plain_loops.act(case.model, part).flatten(),
        lambda: _flat(act.act(case.model, part, act.ActConfig())),
    )  # fmt: skip


def _zero(case: Case, data: MitigationData, rows: int) -> Part:
    part, factor = _some(data, rows)
    return Part(
        f"{len(part.forget)} rows, every {ZERO_STRIDE}th neuron", factor * ZERO_STRIDE,
        lambda: plain_loops.zero(case.model, part, ZERO_STRIDE),
        lambda: zero.by_row(case.model, part, zero.ZeroConfig()).mean(0)[:, ::ZERO_STRIDE],
    )  # fmt: skip


def _ig(case: Case, data: MitigationData, rows: int) -> Part:
    part, _ = _some(data, rows)
    start = (part.forget.prompt + part.forget.end) // 2
    middle = replace(part, forget=Rows(part.forget.ids, start, start + IG_POSITIONS))
    positions = int((data.forget.end - data.forget.prompt).sum())
    return Part(
        f"{len(part.forget)} rows, {IG_POSITIONS} middle positions each", positions / (IG_POSITIONS * len(part.forget)),
        lambda: plain_loops.ig(case.model, middle),
        lambda: ig.by_row(case.model, middle, ig.IGConfig()).mean(0),
    )  # fmt: skip


def _gates(case: Case, data: MitigationData, rows: int, *, hard: bool) -> Part:
    part, _ = _some(data, 32)
    kind = hard_concrete.HardConcreteConfig if hard else slim.SlimConfig
    config = kind(epochs=STEPS, stop=0.0)  # the plain loop stops for nothing
    rule: Rule = hard_concrete._rule(config) if isinstance(config, hard_concrete.HardConcreteConfig) else slim.RULE

    def ours() -> Tensor:
        *_, state = learn(case.model, part, config, rule, by_row=False)
        return state.parameters_GLF[0]

    return Part(
        f"{STEPS} steps of {len(part.forget)} rows", 20 * -(-len(data.forget) // 32) / STEPS,
        lambda: plain_loops.gates(case.model, part, STEPS, hard=hard, penalty=config.penalty, rate=config.learning_rate),
        ours,
    )  # fmt: skip


def _durable(case: Case, data: MitigationData, rows: int, *, aggregate: bool) -> Part:
    return Part(
        "all", 1.0,
        lambda: _flat(plain_weight_loops.durable(case.model, data, 0.01, aggregate=aggregate)),
        lambda: _flat(durable.durable(case.model, data, durable.DurableConfig())),
    )  # fmt: skip


def _sou(case: Case, data: MitigationData, rows: int) -> Part:
    part, factor = _some(data, rows)
    return Part(
        f"{len(part.forget)} rows", factor,
        lambda: _flat(plain_weight_loops.sou(case.model, part)),
        lambda: _flat(sou.sou(case.model, part, sou.SOUConfig())),
    )  # fmt: skip


def _first_batches(data: MitigationData, steps: int) -> list[Tensor]:
    return list(batches(len(data.forget), len(data.retain), "shuffled", 64, data.generator()))[:steps]


def _greedy(case: Case, data: MitigationData, rows: int) -> Part:
    total = sum(p.numel() for p in case.model.parameters())
    weights = plain_weight_loops.mlp_weights(case.model)
    places, start = {}, 0
    for name, parameter in weights.items():
        places[name] = start
        start += parameter.numel()
    config = greedy.GreedyConfig(ratio=(STEPS + 0.5) / start)
    steps = min(STEPS, len(_first_batches(data, STEPS)))

    def ours() -> Tensor:
        flat = _flat(greedy.greedy(case.model, data, config))
        return flat.argsort(descending=True)[:steps]

    def plain() -> Tensor:
        return torch.tensor([places[n] + i for n, i in plain_weight_loops.greedy(case.model, data, _first_batches(data, steps))])

    return Part(f"{steps} steps of 64 rows", GREEDY_RATIO * total / steps, plain, ours, choices=True)


def _subnet(case: Case, data: MitigationData, rows: int, *, balanced: bool) -> Part:
    """One epoch over the rows of 20 steps (Subnet: over all rows, for as many epochs as give 20 steps)."""
    kept = max(0, min(len(data.retain), STEPS * 64 - len(data.forget))) if balanced else 0
    part = replace(data, retain=data.retain.take(torch.arange(kept, device=data.retain.ids.device)))
    per_epoch = -(-(len(data.forget) + kept) // 64)
    epochs = max(1, STEPS // per_epoch)
    options = {"ratio": 0.1, "epochs": epochs}

    def plain() -> Tensor:
        return plain_weight_loops.subnet(case.model, part, epochs, 0.1, 0.9 if balanced else 0.0)

    def ours() -> Tensor:
        if balanced:
            edited = balanced_subnet.balanced_subnet(case.model, part, balanced_subnet.BalancedSubnetConfig(**options))  # type: ignore[arg-type]
        else:
            edited = subnet.subnet(case.model, part, subnet.SubnetConfig(**options))  # type: ignore[arg-type]
        pairs = plain_weight_loops.mlp_weights(edited, matrices=True).values()
        return torch.cat([(p == 0).flatten() for p in pairs])

    whole = -(-(len(data.forget) + len(data.retain)) // 64) * 10 if balanced else -(-len(data.forget) // 64)
    return Part(f"{epochs * per_epoch} steps of 64 rows", whole / (epochs * per_epoch), plain, ours, choices=True)


PARTS: dict[str, Callable[[Case, MitigationData, int], Part]] = {
    "act": _act,
    "zero": _zero,
    "ig": _ig,
    "slim": lambda case, data, rows: _gates(case, data, rows, hard=False),
    "hard-concrete": lambda case, data, rows: _gates(case, data, rows, hard=True),
    "durable": lambda case, data, rows: _durable(case, data, rows, aggregate=False),
    "durable-agg": lambda case, data, rows: _durable(case, data, rows, aggregate=True),
    "sou": _sou,
    "greedy": _greedy,
    "subnet": lambda case, data, rows: _subnet(case, data, rows, balanced=False),
    "balanced-subnet": lambda case, data, rows: _subnet(case, data, rows, balanced=True),
}
