"""Gates on neurons, learned with Adam: the shared part of Slim and Hard Concrete.

The free parameters have shape [G, L, F]: G = 1 for one gate per neuron that all rows share (set-level), or G = rows for a gate per row.
The objective is a sum over G and Adam works element by element, so many rows at once take the same steps as each row alone.
Layers that are left out keep a gate of 1. A group stops for good, on the device, once its penalty falls below `stop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.mitigation.methods.neuron._common import NeuronConfig, cropped, frozen, gated, passing, row_generators, width
from tinymem.mitigation.methods.pieces import Pieces
from tinymem.mitigation.methods.replay import Replayed
from tinymem.mitigation.option_ranges import check_least
from tinymem.models.adapters import neuron_layers
from tinymem.training.rounded_adamw import refuse_fp16

PASS, PASS_WIDTH = 700, 576
"""So many tokens of a model of this width take as long as one pass more of a replayed step: of SmolLM2-135M on an H200."""
LOOKS = 25
"""Steps between two looks, each of which waits for the device, at whether every row has stopped."""


@dataclass(frozen=True, kw_only=True)
class GatesConfig(NeuronConfig):
    """Options of Slim and Hard Concrete.

    Attributes:
        epochs: passes over the forget rows (`by_row`: steps, since each row is its own batch).
        penalty: weight of the mean penalty; as published, in units of 1 over the number of neurons.
        stop: no more steps once the mean penalty is below this.
        over: loss over the `suffix`, or over the whole `row` as in the published TinyMem code.
    """

    epochs: int = 20
    learning_rate: float = 1e-2
    penalty: float = 100.0
    stop: float = 0.1
    over: Over = "suffix"
    batch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, epochs=1)


@dataclass(frozen=True)
class Rule:
    """The definition of a learned gate: its start value, its function of the parameters, and its penalty."""

    start: float
    gate: Callable[[Tensor, Tensor], Tensor]
    """(parameters, uniform noise) -> gates, both [G, L, F]."""
    penalty: Callable[[Tensor], Tensor]
    """Parameters of one layer or more -> penalty of each."""
    noisy: bool = False


@dataclass(frozen=True)
class Learned:
    """Parameters after an epoch, and the accumulated negative loss gradient of each, summed over the steps so far."""

    epoch: int
    parameters_GLF: Tensor
    neg_grad_sum_GLF: Tensor
    running_G: Tensor
    """Groups that have not stopped; a state does not change any more once all have."""


def learn_by_row(model: nn.Module, data: MitigationData, config: GatesConfig, rule: Rule) -> Learned:
    """Train a gate per row and neuron until every row has stopped, or for `epochs` steps."""
    for state in learn(model, data, config, rule, by_row=True):
        if state.epoch == config.epochs or (state.epoch % LOOKS == 0 and not state.running_G.any()):
            break
    return state


def learn(model: nn.Module, data: MitigationData, config: GatesConfig, rule: Rule, *, by_row: bool) -> Iterator[Learned]:
    """Train the gates; yields after each epoch, so that 1, 10 and 20 epochs come from one run.

    Raises:
        UserError: a model in fp16.
    """
    refuse_fp16(model)
    layers = neuron_layers(model)
    rows = data.forget if config.over == "row" else cropped(data.forget)
    shape = (len(rows) if by_row else 1, len(layers), width(layers))
    parameters = torch.full(shape, rule.start, device=rows.ids.device, requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=config.learning_rate, capturable=parameters.is_cuda)
    neg_grad_sum, running = torch.zeros_like(parameters), torch.ones(shape[0], 1, 1, dtype=torch.bool, device=rows.ids.device)
    noise = torch.empty_like(parameters, requires_grad=False)
    draws = _draws(rows, data, shape, by_row) if rule.noisy else None
    pieces = Pieces(model, rows.ids.shape[1], gradients=True, rows=max(1, len(rows)))  # of frozen weights few activations are kept

    def step(index: Tensor) -> None:
        batch = rows.take(index)
        neg_grad, penalty_G = _gradients(model, batch, alike or [_whole(batch)], parameters, noise, config, rule, pieces, sum_rows=by_row)
        running.logical_and_((penalty_G >= config.stop)[:, None, None])
        before = parameters.detach().clone()
        optimizer.step()
        with torch.no_grad():
            parameters.copy_(torch.where(running, parameters, before))
            neg_grad_sum.add_(neg_grad * running)

    order, size = data.generator(), max(1, len(rows)) if by_row else config.batch_size
    replayed = Replayed(step, model, steps=config.epochs * (len(rows) // size), any_family=True)
    launched = rows.ids.is_cuda and not replayed.usable  # pass after pass from the host, which takes longer than a small model's tokens
    ends = rows.end if config.over == "suffix" else rows.lengths()
    alike = _alike(ends, PASS * (PASS_WIDTH / layers[0].values_FD().shape[1]) ** 2) if by_row and not launched else None
    data.bar.expect(config.epochs)
    for epoch in range(1, config.epochs + 1):
        shuffled = torch.arange(len(rows)) if by_row else torch.randperm(len(rows), generator=order)
        for index in shuffled.split(size):
            if draws:
                noise.copy_(next(draws))
            replayed(index)
        data.bar.advance(1)
        yield Learned(epoch, parameters.detach().clone(), neg_grad_sum.clone(), running.flatten().clone())


def _gradients(
    model: nn.Module,
    batch: Rows,
    alike: list[Alike],
    parameters: Tensor,
    noise: Tensor,
    config: GatesConfig,
    rule: Rule,
    pieces: Pieces,
    *,
    sum_rows: bool,
) -> tuple[Tensor, Tensor]:
    """Set the parameters' gradient of loss + penalty; returns -d loss / d parameters [G, L, F] and each group's penalty [G]."""
    first, loss_gradient = (1 if config.skip_bottom else 0), torch.zeros_like(parameters, requires_grad=False)
    weight = 1.0 if sum_rows else 1 / len(batch)

    def add(index: Tensor, _: set[str]) -> None:
        with passing(index), gated(model, _layers(rule.gate(parameters, noise), first, index)):
            losses_B = row_losses(model, _cut(batch.take(index), tokens), config.over)
        loss_gradient.add_(torch.autograd.grad(losses_B, parameters, torch.full_like(losses_B, weight))[0])

    with torch.enable_grad(), frozen(model):
        for group in alike:
            tokens = group.tokens
            pieces.run(group.index, add)
        penalty_G = rule.penalty(parameters[:, first:]).mean((1, 2))
        (penalty_gradient,) = torch.autograd.grad(penalty_G.sum(), parameters)
    parameters.grad = loss_gradient + config.penalty * penalty_gradient
    return -loss_gradient, penalty_G.detach()


@dataclass(frozen=True)
class Alike:
    """Rows of a batch that go through the model together, as long as the longest of them."""

    index: Tensor
    tokens: int


def _whole(batch: Rows) -> Alike:
    return Alike(torch.arange(len(batch), device=batch.ids.device), batch.ids.shape[1])


def _alike(tokens_B: Tensor, pass_cost: float) -> list[Alike]:
    """All rows, in the passes that cost least: a pass costs its rows times its tokens, and `pass_cost` tokens more."""
    sorted_B, order = tokens_B.cpu().sort()
    tokens = sorted_B.tolist()
    best: list[tuple[float, int]] = [(0, 0)]  # of the first n rows: the least cost, and where their last pass begins
    for n in range(1, len(tokens) + 1):
        best.append(min((best[m][0] + (n - m) * tokens[n - 1] + pass_cost, m) for m in range(n)))
    found, end = [], len(tokens)
    while end:
        start = best[end][1]
        found.append(Alike(order[start:end].sort().values.to(tokens_B.device), tokens[end - 1]))
        end = start
    return found


def _cut(rows: Rows, tokens: int) -> Rows:
    return rows if tokens == rows.ids.shape[1] else replace(rows, ids=rows.ids[:, :tokens])


def _layers(gates_GLF: Tensor, first: int, index: Tensor) -> list[Tensor]:
    """Gates [G, 1, F] of each layer for the rows of `index`: their own, or those that all rows share; ones below layer `first`."""
    gates_GLF = gates_GLF if len(gates_GLF) == 1 else gates_GLF[index]
    return [torch.ones_like(gates_GLF[:, :1])] * first + [gate_GF[:, None] for gate_GF in gates_GLF.unbind(1)[first:]]


def _draws(rows: Rows, data: MitigationData, shape: tuple[int, int, int], by_row: bool) -> Iterator[Tensor]:
    """Uniform noise [G, L, F] for each step; a row's stream depends on the seed and its tokens, not on the other rows."""
    streams = row_generators(rows, data.seed) if by_row else [data.generator()]
    while True:
        yield torch.stack([torch.rand(shape[1:], generator=stream) for stream in streams]).to(rows.ids.device)


def ranks(parameters_GLF: Tensor, neg_grad_sum_GLF: Tensor) -> Tensor:
    """Scores [G, L, F]: the rank of each neuron by its parameter, ties (to 1e-6) by its accumulated negative loss gradient.

    Where the penalty outweighs the loss all parameters fall in step, and a plain sort would choose among ties at will.
    """
    coarse = (parameters_GLF.double() * 1e6).round().flatten(1)
    order = torch.argsort(neg_grad_sum_GLF.flatten(1), dim=1, stable=True)
    order = order.gather(1, torch.argsort(coarse.gather(1, order), dim=1, stable=True))
    places = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return places.view_as(parameters_GLF).float().masked_fill_(parameters_GLF.isnan(), math.nan)
