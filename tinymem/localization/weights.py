"""INJ for weights: sequences written into known weights of the feed-forward matrices, and how many of them a scorer names.

The neurons' benchmark (Chang et al. 2024, section 2.1) carried over to single weights: for each sequence some weights are drawn from all
feed-forward matrices, biases left out, and only these are trained, by Adam, until the model knows the sequence. All sequences are
trained in one batch: row s runs with its own changes. A weight's place counts through the matrices laid end to end, each in the published
layout [in, out], so that a checkpoint gives one result whichever class holds it.

Shape suffixes: S sequences, N injected weights of a sequence, P weights of all matrices, T tokens, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.injection import InjectionConfig, Learned, learn_changes
from tinymem.localization.ratios import check_ratio
from tinymem.localization.recall import Recall, TensorScope
from tinymem.mitigation.ablation import AblationConfig, Scores, check_scores
from tinymem.mitigation.method import MethodCall, MitigationData
from tinymem.mitigation.ranking import highest
from tinymem.models.adapters import in_out, layer_of, mlp_parameters
from tinymem.runtime.progress import Bar, SilentBar

MAXIMUM_CHANGES = 1 << 28
"""Entries of the changes, spread over whole matrices, that are trained at once."""


@dataclass(frozen=True)
class WeightInjection(Learned):
    """Sequences injected into a model's weights, each by itself.

    Attributes:
        place_SN: places of the weights that hold each sequence.
        change_SN: what was added to each.
        relative_S: norm of each sequence's changes over that of the weights that it changed.
    """

    place_SN: Tensor
    change_SN: Tensor
    relative_S: Tensor

    def __len__(self) -> int:
        return len(self.place_SN)


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """The feed-forward matrices by name, as views [in, out], from bottom to top."""
    return {name: in_out(model, p.detach()) for name, p in mlp_parameters(model, matrices_only=True).items()}


def drawn_weights(sizes: Sequence[int], count: int, ratio: float, seed: int) -> Tensor:
    """Places [S, N] of the weights of `count` sequences: int(P * ratio) of each, uniform over all matrices, by (seed, sequence).

    Raises:
        UserError: a ratio of less than one weight a matrix.
    """
    check_ratio(ratio, min(sizes), "weight")
    total = sum(sizes)
    streams = [torch.Generator().manual_seed(seed * 1_000_003 + sequence) for sequence in range(count)]
    return torch.stack([torch.randperm(total, generator=stream)[: int(total * ratio + 1e-6)].sort().values for stream in streams])


def inject_weights(model: nn.Module, rows: Rows, config: InjectionConfig, bar: Bar | None = None) -> WeightInjection:
    """Write each row into weights of its own; the model itself stays as it is.

    Args:
        model: of any registered family.
        rows: sequences [S, T] on the model's device, of any lengths; all tokens but the first are trained.
        config: options; the ratio is the share of all feed-forward weights.
        bar: counts steps.

    Raises:
        UserError: a ratio of less than one weight a matrix.
    """
    sizes = [matrix.numel() for matrix in matrices(model).values()]
    place_SN = drawn_weights(sizes, len(rows), config.ratio, config.seed).to(rows.ids.device)
    together = max(1, MAXIMUM_CHANGES // sum(sizes))
    pieces = torch.arange(len(rows), device=rows.ids.device).split(together)
    parts = [_inject(model, rows.take(index), place_SN[index], config, bar or SilentBar()) for index in pieces]
    return WeightInjection(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(WeightInjection)})


def _inject(model: nn.Module, rows: Rows, place_SN: Tensor, config: InjectionConfig, bar: Bar) -> WeightInjection:
    change_SN = torch.zeros(place_SN.shape, device=place_SN.device, requires_grad=True)
    learned = learn_changes(model, rows, config, [change_SN], lambda: _adding(model, place_SN, change_SN), bar)
    before_SN = torch.cat([matrix.flatten() for matrix in matrices(model).values()]).float()[place_SN]
    relative_S = change_SN.detach().norm(dim=1) / before_SN.norm(dim=1)
    return WeightInjection(**vars(learned), place_SN=place_SN, change_SN=change_SN.detach(), relative_S=relative_S)


@contextmanager
def _adding(model: nn.Module, place_SN: Tensor, change_SN: Tensor) -> Iterator[None]:
    """Inside the context row s of a batch runs through the model with its own weights changed."""
    found = matrices(model)
    whole_SP = torch.zeros(len(place_SN), sum(m.numel() for m in found.values()), device=place_SN.device).scatter(1, place_SN, change_SN)
    parts = whole_SP.split([m.numel() for m in found.values()], dim=1)
    handles = []
    for (name, matrix), part_SP in zip(found.items(), parts, strict=True):
        hook = _hook(part_SP.view(-1, *matrix.shape))
        handles.append(model.get_submodule(name.rpartition(".")[0]).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(change_SIO: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _, inputs, output: output + torch.bmm(inputs[0].to(change_SIO.dtype), change_SIO).to(output.dtype)


@contextmanager
def injected_weights(model: nn.Module, injection: WeightInjection, sequence: int) -> Iterator[None]:
    """Inside the context the model's own weights hold one sequence; afterwards they are bit for bit what they were."""
    place_N, change_N = injection.place_SN[sequence], injection.change_SN[sequence]
    saved: list[tuple[Tensor, tuple[Tensor, Tensor], Tensor]] = []
    try:
        start = 0
        for matrix in matrices(model).values():
            here_N = (place_N >= start) & (place_N < start + matrix.numel())
            row_n, column_n = _row_and_column(place_N[here_N] - start, matrix)
            saved.append((matrix, (row_n, column_n), matrix[row_n, column_n].clone()))
            matrix[row_n, column_n] += change_N[here_N].to(matrix.dtype)
            start += matrix.numel()
        yield
    finally:
        for matrix, at, before_n in saved:
            matrix[at] = before_n


def _row_and_column(place_n: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    return place_n // matrix.shape[1], place_n % matrix.shape[1]


def refuse_unless_weights(call: MethodCall) -> None:
    """Raise UserError unless the method ranks weights."""
    ranks = call.method.kind == "score" or call.method.ranked is not None
    if call.method.properties.unit != "weight" or not ranks or not isinstance(call.config, AblationConfig):
        raise UserError(f"expected methods that rank weights (durable, sou, subnet, balanced-subnet, ...), got {call.name}")


def scores_of_weights(call: MethodCall, model: nn.Module, data: MitigationData) -> list[Tensor]:
    """Scores [in, out] of each feed-forward matrix for `data.forget` together; -infinity where a scorer leaves a matrix out.

    Raises:
        UserError: a method that ranks no weights.
    """
    refuse_unless_weights(call)
    found: Scores = (call.method.ranked or call.method.function)(model, data, call.config)
    check_scores(model, found)
    known = {name: in_out(model, values) for name, values in found.values.items()}
    return [known[name] if name in known else torch.full_like(matrix, -torch.inf) for name, matrix in matrices(model).items()]


@dataclass(frozen=True)
class Question:
    """How many weights a scorer may name (a share), and among which scores are compared."""

    top: float
    scope: TensorScope


def weight_recalls(
    call: MethodCall, model: nn.Module, data: MitigationData, injection: WeightInjection, questions: Sequence[Question]
) -> tuple[list[Recall], float]:
    """Recall of a scorer that sees one injected model after the other, an answer a question, and the seconds of all its scores.

    A method whose scores depend on its ratio is asked at the ratio of `call`.

    Raises:
        UserError: a method that ranks no weights.
    """
    values, seconds = torch.zeros(len(questions), len(injection), dtype=torch.float64), 0.0
    data.bar.expect(len(injection))
    for sequence in range(len(injection)):
        alone = replace(data, forget=data.forget.batches(1)[sequence], bar=SilentBar())
        with injected_weights(model, injection, sequence):
            began = time.perf_counter()
            scores = scores_of_weights(call, model, alone)
            if data.forget.ids.is_cuda:
                torch.cuda.synchronize()
            seconds += time.perf_counter() - began
        hits = [_hits(model, scores, injection.place_SN[sequence], question) for question in questions]
        values[:, sequence] = torch.tensor(hits, dtype=torch.float64) / injection.place_SN.shape[1]
        data.bar.advance(1)
    return [Recall(values_S, _chance(model, question)) for values_S, question in zip(values, questions, strict=True)], seconds


def _hits(model: nn.Module, scores: Sequence[Tensor], place_N: Tensor, question: Question) -> int:
    """Injected weights among the highest scores."""
    masks: dict[str, Tensor] = {}
    by_name = dict(zip(matrices(model), scores, strict=True))
    for names, count in _groups(model, question):
        masks |= dict(zip(names, highest([by_name[name] for name in names], count), strict=True))
    return int(torch.cat([masks[name].flatten() for name in by_name])[place_N].sum())


def _chance(model: nn.Module, question: Question) -> float:
    """Expected recall of a random choice: the share of the weights that are named."""
    return sum(count for _, count in _groups(model, question)) / sum(matrix.numel() for matrix in matrices(model).values())


def _groups(model: nn.Module, question: Question) -> list[tuple[list[str], int]]:
    """Matrices whose weights compete, and how many are named: rounded, in the whole model rounded down, as of neurons."""
    found, groups = matrices(model), dict[object, list[str]]()
    for name in found:
        key = name if question.scope == "tensor" else layer_of(model, name) if question.scope == "layer" else None
        groups.setdefault(key, []).append(name)
    sizes = [sum(found[name].numel() for name in names) for names in groups.values()]
    counts = [int(n * question.top + 1e-6) if question.scope == "model" else round(n * question.top) for n in sizes]
    return list(zip(groups.values(), counts, strict=True))
