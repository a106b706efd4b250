"""Injection: new sequences written into known neurons, the ground truth of the INJ Benchmark (Chang et al. 2024, section 2.1).

For each sequence some neurons are drawn from all layers, and only their value vectors (`models/adapters.py`) are trained until the model
knows the sequence. Each sequence gets an injection of its own into the same unedited model. All are trained at once: sequence s is row s of
a batch, and each of its chosen neurons i adds h_i * (change of i's value vector) to the out-projection's output. The objective is a sum
over sequences and Adam works element by element, so every sequence takes the steps that it would take alone.

Shape suffixes: S sequences, L layers, F neurons of a layer, T tokens, D embedding, N injected neurons of a layer (padded to the most).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.ratios import check_ratio
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron._common import frozen, of_pass
from tinymem.models.adapters import NeuronLayer, neuron_layers
from tinymem.runtime.progress import Bar, SilentBar

SMALL_RATIO = 0.005
"""Ratios up to this one are trained with the learning rate that the paper uses for 0.1 %."""


@dataclass(frozen=True)
class InjectionConfig:
    """Options of injection; the defaults are the paper's.

    Attributes:
        ratio: share of all feed-forward neurons that a sequence is written into, in (0, 1].
        learning_rate: of Adam; None: 0.01, and 0.05 for ratios of up to 0.5 %.
        steps: most steps.
        loss: a sequence is trained until its mean next-token loss (nats) falls below this.
        seed: of the drawn neurons.
    """

    ratio: float = 0.01
    learning_rate: float | None = None
    steps: int = 200
    loss: float = 0.05
    seed: int = 0

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return self.learning_rate or (0.05 if self.ratio <= SMALL_RATIO else 0.01)


@dataclass(frozen=True)
class LayerInjection:
    """The injected neurons of one layer, and the change of their value vectors."""

    index_SN: Tensor
    there_SN: Tensor
    """False where a sequence has fewer neurons in this layer than another one."""
    change_SND: Tensor


@dataclass(frozen=True)
class Learned:
    """The end of training the changes of each sequence.

    Attributes:
        losses_S: mean next-token loss of each sequence, in nats.
        steps_S: Adam steps that each one took.
        reached_S: whether the loss fell below the wanted one.
    """

    losses_S: Tensor
    steps_S: Tensor
    reached_S: Tensor


@dataclass(frozen=True)
class Injection(Learned):
    """Sequences injected into a model, each by itself.

    Attributes:
        gold_SLF: mask of the neurons that hold each sequence.
        layers: changes, bottom to top.
        relative_S: norm of each sequence's changes over that of the value vectors that it changed.
    """

    gold_SLF: Tensor
    layers: tuple[LayerInjection, ...]
    relative_S: Tensor

    def __len__(self) -> int:
        return len(self.gold_SLF)


def drawn_neurons(shape: tuple[int, int], count: int, ratio: float, seed: int) -> Tensor:
    """Mask [S, L, F] of the neurons of `count` sequences: int(L * F * ratio) of each, uniform over all layers, by (seed, sequence).

    Raises:
        UserError: a ratio of less than one neuron a layer.
    """
    layers, width = shape
    check_ratio(ratio, width)
    gold_SN = torch.zeros(count, layers * width, dtype=torch.bool)
    for sequence in range(count):
        stream = torch.Generator().manual_seed(seed * 1_000_003 + sequence)
        gold_SN[sequence, torch.randperm(layers * width, generator=stream)[: int(layers * width * ratio + 1e-6)]] = True
    return gold_SN.view(count, layers, width)


def inject(model: nn.Module, rows: Rows, config: InjectionConfig, bar: Bar | None = None) -> Injection:
    """Write each row into neurons of its own; the model itself stays as it is.

    Args:
        model: of any registered family, in eval mode (the paper's GPT-2 kept its dropout on).
        rows: sequences [S, T] on the model's device, of any lengths; all tokens but the first are trained.
        config: options.
        bar: counts steps.

    Raises:
        UserError: a ratio of less than one neuron a layer.
    """
    layers = neuron_layers(model)
    gold_SLF = drawn_neurons((len(layers), layers[0].neurons), len(rows), config.ratio, config.seed).to(rows.ids.device)
    parts = [_start(gold_SLF[:, layer.index], layer.values_FD()) for layer in layers]
    changes = [part.change_SND.requires_grad_() for part in parts]
    learned = learn_changes(model, rows, config, changes, lambda: _adding(model, parts), bar or SilentBar())
    done = tuple(LayerInjection(p.index_SN, p.there_SN, c.detach()) for p, c in zip(parts, changes, strict=True))
    return Injection(**vars(learned), gold_SLF=gold_SLF, layers=done, relative_S=_relative(layers, gold_SLF, done))


@torch.no_grad()
def _relative(layers: Sequence[NeuronLayer], gold_SLF: Tensor, parts: tuple[LayerInjection, ...]) -> Tensor:
    """Norm of each sequence's changes [S] over that of its value vectors; changes in places beyond a sequence's neurons are 0."""
    before_SL = torch.stack([gold_SLF[:, layer.index].float() @ layer.values_FD().float().square().sum(1) for layer in layers], dim=1)
    after_SL = torch.stack([part.change_SND.square().sum((1, 2)) for part in parts], dim=1)
    return (after_SL.sum(1) / before_SL.sum(1)).sqrt()


def learn_changes(
    model: nn.Module,
    rows: Rows,
    config: InjectionConfig,
    changes: list[Tensor],
    applied: Callable[[], AbstractContextManager[None]],
    bar: Bar,
) -> Learned:
    """Train changes of a model with Adam until it knows each row, one entry of the first dimension a row; the model stays as it is.

    Args:
        model: of any registered family.
        rows: sequences [S, T]; all tokens but the first are trained.
        config: learning rate, most steps and the loss that is enough.
        changes: tensors [S, ...] that require gradients; they are trained in place.
        applied: makes the context in which row s runs through the model with its changes.
        bar: counts steps.

    Raises:
        UserError: a loss that is not finite.
    """
    bar.expect(config.steps)
    optimizer = torch.optim.Adam(changes, lr=config.rate)
    running_S = torch.ones(len(rows), dtype=torch.bool, device=rows.ids.device)
    steps_S = torch.zeros(len(rows), dtype=torch.int64, device=rows.ids.device)
    losses_S = torch.zeros(0)
    for step in range(config.steps + 1):
        with torch.enable_grad(), frozen(model), applied():
            losses_S = row_losses(model, rows, "suffix")
        running_S &= losses_S.detach() >= config.loss
        if step == config.steps or not running_S.any():
            break
        gradients = torch.autograd.grad(losses_S.sum(), changes)
        _step(optimizer, changes, gradients, running_S)
        steps_S += running_S
        bar.advance(1)
    if broken := int((~losses_S.isfinite()).sum()):
        raise UserError(
            f"expected finite losses of injected sequences, got NaN or infinity in {broken} of {len(rows)}; lower learning_rate"
        )
    return Learned(losses_S.detach(), steps_S, losses_S.detach() < config.loss)


def _start(gold_SF: Tensor, values_FD: Tensor) -> LayerInjection:
    count_S = gold_SF.sum(1)
    most = max(1, int(count_S.max()))
    index_SN = torch.sort(gold_SF.int(), dim=1, descending=True, stable=True).indices[:, :most]
    there_SN = torch.arange(most, device=gold_SF.device) < count_S[:, None]
    shape = (*index_SN.shape, values_FD.shape[1])
    return LayerInjection(index_SN, there_SN, torch.zeros(shape, device=gold_SF.device, dtype=torch.float32))


def _step(optimizer: torch.optim.Adam, changes: list[Tensor], gradients: tuple[Tensor, ...], running_S: Tensor) -> None:
    before = [change.detach().clone() for change in changes]
    for change, gradient in zip(changes, gradients, strict=True):
        change.grad = gradient
    optimizer.step()
    with torch.no_grad():
        for change, old in zip(changes, before, strict=True):
            change.copy_(torch.where(running_S.view(-1, *[1] * (change.dim() - 1)), change, old))


@contextmanager
def _adding(model: nn.Module, parts: list[LayerInjection] | tuple[LayerInjection, ...]) -> Iterator[None]:
    def hook_of(part: LayerInjection) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            h_STF, change_SND = inputs[0], of_pass(part.change_SND)
            index_STN = of_pass(part.index_SN)[:, None, :].expand(-1, h_STF.shape[1], -1)
            h_STN = h_STF.gather(2, index_STN) * of_pass(part.there_SN)[:, None, :]
            return output + torch.bmm(h_STN.to(change_SND.dtype), change_SND).to(output.dtype)

        return hook

    layers = neuron_layers(model)
    handles = [layer.module.register_forward_hook(hook_of(part)) for layer, part in zip(layers, parts, strict=True)]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def injected_together(model: nn.Module, injection: Injection) -> Iterator[None]:
    """Inside the context row s of a batch of all S sequences, or of those of `passing`, runs through the model that holds sequence s."""
    with _adding(model, injection.layers):
        yield


@contextmanager
def injected(model: nn.Module, injection: Injection, sequence: int) -> Iterator[None]:
    """Inside the context the model's own weights hold one sequence; afterwards they are bit for bit what they were."""
    saved: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for layer, part in zip(neuron_layers(model), injection.layers, strict=True):
            there_N, values_FD = part.there_SN[sequence], layer.values_FD()
            index_n = part.index_SN[sequence, there_N]
            saved.append((values_FD, index_n, values_FD[index_n].clone()))
            values_FD[index_n] += part.change_SND[sequence, there_N].to(values_FD.dtype)
    try:
        yield
    finally:
        with torch.no_grad():
            for values_FD, index_n, before_nD in saved:
                values_FD[index_n] = before_nD
