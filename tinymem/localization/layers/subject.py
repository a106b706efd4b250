"""What localization by layer works on: models as stacks of blocks, and the single predictions (decisions) that were planted.

Techniques see nothing else, so they run alike on noised sequences and on classifiers with flipped labels:

    decision            a state that is read, the target that training taught there, and the target that it replaced
    noised sequences    one decision for each token that the noise changed: the state before it, the planted token, the clean one
    classification      one decision a row: the state of its last token, the flipped label, the true label

The names of Dankers and Titov 2024 (section 3) in parentheses: `model` (theta_M2) learned the planted rows, `early` (theta_M1) is the first
checkpoint that knew them, `counterfactual` (theta_O) is the same training with the planted rows replaced by their clean counterparts, and
`start` (theta_P) is where both began.

Shape suffixes: R rows, T tokens, D embedding, n decisions, C tokens or classes, L blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.models.gpt2 import GPT

BATCH = 256
"""Rows of one forward pass."""


class Unembedding(nn.Module):
    """The end of a language model: final norm and logits [..., C] from states [..., D]. A deep copy is no longer tied to the embedding."""

    def __init__(self, norm: nn.Module, embedding: nn.Embedding, bias_C: Tensor | None = None) -> None:
        super().__init__()
        self.norm, self.embedding = norm, embedding
        self.register_buffer("bias_C", None if bias_C is None else bias_C.detach(), persistent=False)

    def forward(self, states_D: Tensor) -> Tensor:
        return F.linear(self.norm(states_D), self.embedding.weight, self._buffers["bias_C"])


@dataclass(frozen=True)
class LayeredModel:
    """A model as the parts that are exchanged: what comes before the blocks, the blocks, and what reads the last one's states.

    Attributes:
        embed: inputs [R, T] to the states [R, T, D] that enter the first block.
        blocks: each maps states [R, T, D] to states [R, T, D]; causal, so that states do not depend on later tokens.
        head: states [n, D] behind the last block to logits [n, C], final norm included.
    """

    embed: Callable[[Tensor], Tensor]
    blocks: tuple[nn.Module, ...]
    head: nn.Module

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return len(self.blocks)

    def swapped(self, other: LayeredModel, layers: Collection[int]) -> LayeredModel:
        """This model with the blocks of another at some places (from 0); embedding and head stay."""
        mixed = [other.blocks[i] if i in layers else block for i, block in enumerate(self.blocks)]
        return replace(self, blocks=tuple(mixed))

    def through(self, states_RTD: Tensor, first: int = 0) -> Tensor:
        """States behind the last block of those that enter block `first`."""
        for block in self.blocks[first:]:
            states_RTD = block(states_RTD)
        return states_RTD


@dataclass(frozen=True)
class Decisions:
    """Predictions in rows: decision n reads the state of row `row_n[n]` at position `at_n[n]`; ordered by row. All are int64.

    Attributes:
        ids_RT: inputs; those behind a decision's position do not matter to it.
        row_n: index of each decision's row, never falling.
        at_n: position whose state predicts the target.
        planted_n: target of training: the noised token, or the label as it was trained on.
        original_n: target that the planted one replaced; equal to it where nothing was replaced (clean rows).
    """

    ids_RT: Tensor
    row_n: Tensor
    at_n: Tensor
    planted_n: Tensor
    original_n: Tensor

    def __len__(self) -> int:
        return len(self.row_n)

    def take(self, index_n: Tensor) -> Decisions:
        """Some decisions, in rising order of `index_n`, with their rows alone."""
        rows, row_n = self.row_n[index_n].unique_consecutive(return_inverse=True)
        return Decisions(self.ids_RT[rows], row_n, self.at_n[index_n], self.planted_n[index_n], self.original_n[index_n])

    def of_rows(self, rows: Tensor) -> Decisions:
        """All decisions of some rows, whose order is that of `rows`."""
        count_R = torch.bincount(self.row_n, minlength=len(self.ids_RT))
        start_R, count_r = count_R.cumsum(0) - count_R, count_R[rows]
        row_n = torch.arange(len(rows), device=rows.device).repeat_interleave(count_r)
        within_n = torch.arange(len(row_n), device=rows.device) - (count_r.cumsum(0) - count_r)[row_n]
        index_n = start_R[rows][row_n] + within_n
        return Decisions(self.ids_RT[rows], row_n, self.at_n[index_n], self.planted_n[index_n], self.original_n[index_n])

    def batches(self, rows: int = BATCH) -> Iterator[Decisions]:
        """Consecutive pieces of at most `rows` rows."""
        for index in torch.arange(len(self.ids_RT), device=self.ids_RT.device).split(rows):
            yield self.of_rows(index)

    def at(self, states_RTD: Tensor) -> Tensor:
        """The states [n, D] that the decisions read."""
        return states_RTD[self.row_n, self.at_n]

    def to(self, device: torch.device | str) -> Decisions:
        """These decisions on another device."""
        return Decisions(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class LayerSubject:
    """Everything that a technique of localization by layer is given; all models have the same shape, and all is on one device.

    Attributes:
        model: memorized the planted rows (theta_M2).
        counterfactual: trained alike on their clean counterparts (theta_O).
        start: what both were trained from (theta_P).
        early: first checkpoint that knew the planted rows (theta_M1); `model` where no other was kept.
        noised: planted decisions that `model` makes as planted and `counterfactual` does not.
        clean: decisions of clean training rows, several for each noised one, alike in position and original target.
        held_out: clean decisions that nothing retrains on, as many as `noised`.
        retraining: every training target of clean rows without those of `held_out`; layers are retrained on them.
        training: every training target of planted and clean rows; the head of a frozen model is trained on them.
        exact: every target of a noised row's test of memorization, which is memorized if all are right; None: decisions alone count.
        control: layers (from 0) that alone could learn the planted rows, in a control model.
    """

    model: LayeredModel
    counterfactual: LayeredModel
    start: LayeredModel
    early: LayeredModel
    noised: Decisions
    clean: Decisions
    held_out: Decisions
    retraining: Decisions
    training: Decisions
    exact: Decisions | None = None
    control: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return self.model.depth


@dataclass(frozen=True)
class Predictions:
    """What a model predicts at each decision: the likeliest target [n], and log-probabilities [n] of the planted and the original one."""

    likeliest_n: Tensor
    planted_n: Tensor
    original_n: Tensor


def gpt_layers(model: GPT) -> LayeredModel:
    """Our GPT-2 as a stack of blocks that share its parameters."""
    body = model.transformer

    def embed(ids_RT: Tensor) -> Tensor:
        states_RTD: Tensor = body.wte(ids_RT) + body.wpe.weight[: ids_RT.shape[1]]
        return states_RTD

    return LayeredModel(embed, tuple(body.h), Unembedding(body.ln_f, body.wte))


@torch.no_grad()
def predictions(model: LayeredModel, decisions: Decisions, *, rows: int = BATCH) -> Predictions:
    """A model's predictions at all decisions."""
    return predictions_from(model, 0, ((batch, model.embed(batch.ids_RT)) for batch in decisions.batches(rows)))


@torch.no_grad()
def predictions_from(model: LayeredModel, first: int, entering: Iterable[tuple[Decisions, Tensor]]) -> Predictions:
    """Predictions of batches of decisions whose states [R, T, D] enter block `first` (L: the head)."""
    found = [_read(model, batch, model.through(states_RTD, first)) for batch, states_RTD in entering]
    return Predictions(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def states(model: LayeredModel, decisions: Decisions, *, rows: int = BATCH) -> Tensor:
    """Hidden states [L + 1, n, D] that the decisions read: of the embedding, then behind each block."""
    parts = []
    for batch in decisions.batches(rows):
        states_RTD = model.embed(batch.ids_RT)
        read = [batch.at(states_RTD)]
        for block in model.blocks:
            states_RTD = block(states_RTD)
            read.append(batch.at(states_RTD))
        parts.append(torch.stack(read))
    return torch.cat(parts, dim=1)


def _read(model: LayeredModel, batch: Decisions, states_RTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logp_nC = model.head(batch.at(states_RTD)).float().log_softmax(-1)
    n = torch.arange(len(batch), device=logp_nC.device)
    return logp_nC.argmax(-1), logp_nC[n, batch.planted_n], logp_nC[n, batch.original_n]
