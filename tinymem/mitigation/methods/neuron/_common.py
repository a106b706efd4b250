"""Shared parts of the neuron methods: options, the positions that predict a suffix, activations, and gates on them.

Shape suffixes: S rows scored apart, B rows of a batch, T tokens, L layers, F neurons of a layer, D embedding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.methods.pieces import rows_at_once
from tinymem.models.adapters import NeuronLayer, logits, neuron_layers, seen_neurons


@dataclass(frozen=True, kw_only=True)
class NeuronConfig(AblationConfig):
    """Options of every neuron method.

    Attributes:
        skip_bottom: leave the bottom layer as it is (Chang et al. do so when they delete; TinyMem edits every layer).
    """

    skip_bottom: bool = False

    def eligible(self, layers: list[NeuronLayer]) -> list[NeuronLayer]:
        """All layers, or all but the bottom one (`skip_bottom`)."""
        return layers[1:] if self.skip_bottom else layers


def row_generators(rows: Rows, seed: int) -> list[torch.Generator]:
    """A random generator per row, seeded by `seed` and the row's tokens before its end, hence independent of the other rows."""
    texts = [ids[:end].numpy().tobytes() for ids, end in zip(rows.ids.cpu(), rows.end.tolist(), strict=True)]
    return [torch.Generator().manual_seed(seed + zlib.crc32(text)) for text in texts]


def as_scores(model: nn.Module, scores_LF: Tensor, config: NeuronConfig) -> Scores:
    """Neuron scores by the name of the layer's weight; without the bottom layer where the config leaves it out."""
    return Scores("neuron", {layer.weight_name: scores_LF[layer.index] for layer in config.eligible(neuron_layers(model))})


def width(layers: list[NeuronLayer]) -> int:
    """Number of neurons of a layer.

    Raises:
        UserError: the layers differ.
    """
    widths = {layer.neurons for layer in layers}
    if len(widths) != 1:
        raise UserError(f"expected feed-forward blocks of one width, got widths {sorted(widths)}; this method stacks them")
    return widths.pop()


def predicting(rows: Rows) -> Tensor:
    """Positions [B, T] that predict a suffix token: position t predicts token t + 1."""
    predicts_BT = rows.window().roll(-1, dims=1)
    predicts_BT[:, -1] = False
    return predicts_BT


def cropped(rows: Rows) -> Rows:
    """The rows without the tokens after the last suffix: a causal model's suffix losses do not depend on them."""
    end = int(rows.end.max()) if len(rows) else 0
    return replace(rows, ids=rows.ids[:, :end], length=None if rows.length is None else rows.length.clamp(max=end))


def span(rows: Rows) -> tuple[int, int]:
    """First and one past the last position that predicts a suffix token in any row."""
    low, high = torch.stack([rows.prompt.min(), rows.end.max()]).tolist()
    return max(0, low - 1), max(1, high - 1)


@contextmanager
def frozen(model: nn.Module, but: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Inside the context no parameter `but` these requires a gradient, so that activations for others' gradients are not kept."""
    kept = {id(parameter) for parameter in but}
    trainable = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


_rows_of_pass: ContextVar[Tensor | None] = ContextVar("rows of a pass", default=None)


@contextmanager
def passing(index_B: Tensor) -> Iterator[None]:
    """Inside the context passes are of these rows of a batch only, and what its rows have of their own (`of_pass`) is theirs."""
    token = _rows_of_pass.set(index_B)
    try:
        yield
    finally:
        _rows_of_pass.reset(token)


def of_pass(x_S: Tensor) -> Tensor:
    """The entries [B, ...] of a tensor [S, ...] with one for each row, of the rows that go through the model."""
    index_B = _rows_of_pass.get()
    return x_S if index_B is None else x_S[index_B.to(x_S.device)]


@contextmanager
def gated(model: nn.Module, gates: list[Tensor]) -> Iterator[None]:
    """Inside the context layer l's activations [B, T, F] are multiplied by `gates[l]`: [F], or [B, 1, F] for a gate per row."""

    def hook_of(gate: Tensor) -> object:
        return lambda _, inputs: (inputs[0] * gate.to(inputs[0]), *inputs[1:])

    handles = [layer.module.register_forward_pre_hook(hook_of(gate)) for layer, gate in zip(neuron_layers(model), gates, strict=True)]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activity(model: nn.Module, rows: Rows, batch_size: int, mode: str = "mean_abs") -> Iterator[Tensor]:
    """Mean absolute activations [B, L, F] at the positions that predict the suffix, batch by batch (`abs_mean`: |mean|)."""
    size = min(batch_size, rows_at_once(model, rows.ids.shape[1], gradients=False) or batch_size)
    for batch in rows.batches(size):
        yield _activity(model, cropped(batch), mode)


def _activity(model: nn.Module, rows: Rows, mode: str) -> Tensor:
    at_BT1, sums = predicting(rows)[:, :, None], []
    count_B1 = at_BT1.sum(1).clamp(min=1)

    def see(_: int, h_BTF: Tensor) -> None:
        total_BF = ((h_BTF.abs() if mode == "mean_abs" else h_BTF).float() * at_BT1.to(h_BTF.device)).sum(1)
        sums.append(total_BF.to(count_B1.device) / count_B1)

    with seen_neurons(model, see):
        logits(model, rows.ids, rows.ids.shape[1] - 1)
    return torch.stack(sums, dim=1).abs()
