"""One teacher-forced pass over many rows, from which most metrics follow.

All evaluation rows are deduplicated and batched once, each with a mask of its queried tokens. Rows of similar length share a batch that
ends at its last queried token, and only queried tokens go through the language-model head. The pass yields the arg-max and the loss of
every queried token, from which the metrics follow. So no metric depends on the batch size, on padding after the queried tokens, or on
which process computed which batch, other than through the rounding of float32.

Shape suffixes: N rows, T tokens, B rows of a batch, n queried tokens of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.models.adapters import logits_at
from tinymem.runtime.progress import Bar, SilentBar

Key = tuple[str, str]  # the purpose of the rows ("probe", "test", ...), and their artifact or test set
NOT_QUERIED = -1
CPU_TOKENS = 4096  # of a batch on a CPU: its activations stay in the cache, a fifth faster on the quickstart than 512 rows


@dataclass(frozen=True)
class TokenQuery:
    """Rows of token ids [N, T] and which tokens [N, T] are to be predicted from those before; the first token of a row cannot be."""

    ids: Tensor
    queried: Tensor
    forbid: bool = False
    """If true, the token that decoding may not produce (protocol reference: EOS) is excluded from the arg-max of these rows."""


@dataclass(frozen=True)
class TokenScores:
    """A model's arg-max and loss at the queried tokens of rows [N, T]."""

    ids: Tensor
    queried: Tensor
    predicted: Tensor
    """Arg-max given the true tokens before (int32); -1 where not queried."""
    loss: Tensor
    """Cross-entropy in nats (float32); 0 where not queried."""

    @property
    def right(self) -> Tensor:
        """Mask [N, T] of the queried tokens that are the arg-max."""
        return self.predicted == self.ids

    def memorized(self, window_NT: Tensor) -> Tensor:
        """Mask [N] of rows that greedy decoding reproduces: every token of the window, which must have been queried, is the arg-max."""
        return ~(window_NT & self.queried & ~self.right).any(1)


@dataclass(frozen=True)
class _Batch:
    ids_BT: Tensor
    positions_n: Tensor
    """Positions in the flattened batch whose next token is queried."""
    places_n: Tensor
    """Positions of the queried tokens in the flattened rows [N * T]."""
    targets_n: Tensor
    forbidden_n: Tensor | None


@dataclass(frozen=True)
class TokenOutputs:
    """A model's outputs for a forward plan, or one process's part of them: arg-max and loss of each queried token [N, T]."""

    predicted_NT: Tensor
    loss_NT: Tensor

    def of_all(self, processes: int) -> TokenOutputs:
        """The outputs of all processes (of torch.distributed) combined; every process must call this."""
        if processes > 1:
            torch.distributed.all_reduce(self.predicted_NT, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(self.loss_NT, torch.distributed.ReduceOp.SUM)
        return self


@dataclass
class ForwardPlan:
    """Token queries by key, deduplicated and batched once and run on many models. All rows are on the models' device."""

    parts: Mapping[Key, TokenQuery]
    _batches: dict[int, list[_Batch]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.length = max((part.ids.shape[1] for part in self.parts.values()), default=1)
        ids = [_padded(part.ids, self.length) for part in self.parts.values()]
        queried = [_padded(part.queried, self.length) for part in self.parts.values()]
        forbid = [torch.full((len(part.ids), 1), int(part.forbid)) for part in self.parts.values()]
        self._merge(ids, queried, forbid)

    def _merge(self, ids: list[Tensor], queried: list[Tensor], forbid: list[Tensor]) -> None:
        """Deduplicate the rows; a distinct row's queried tokens are the union over its copies."""
        device = ids[0].device if ids else torch.device("cpu")
        whole = torch.cat([torch.cat(forbid), torch.cat([i.cpu() for i in ids])], dim=1) if ids else torch.zeros(0, 2, dtype=torch.int64)
        first, place = _distinct(whole)
        self.forbid_N, self.ids_NT = (whole[first, 0] > 0).to(device), whole[first, 1:].contiguous().to(device)
        self.queried_NT = torch.zeros_like(self.ids_NT, dtype=torch.bool)
        counts = [len(i) for i in ids]
        self.places = dict(zip(self.parts, place.to(device).split(counts), strict=True))
        for index, part in zip(self.places.values(), queried, strict=True):
            self.queried_NT |= torch.zeros_like(self.ids_NT, dtype=torch.int32).index_add_(0, index, part.int()) > 0
        self.queried_NT[:, 0] = False

    @torch.no_grad()
    def outputs(
        self, model: nn.Module, *, batch_size: int, forbid: int | None = None, process: tuple[int, int] = (0, 1), bar: Bar | None = None
    ) -> TokenOutputs:
        """The model's outputs; process r of w computes every w-th batch from the r-th on. `bar` counts the batches."""
        predicted_NT = torch.full_like(self.ids_NT, NOT_QUERIED, dtype=torch.int32)
        loss_NT = torch.zeros_like(self.ids_NT, dtype=torch.float32)
        rank, world = process
        if self.ids_NT.device.type == "cpu":
            batch_size = min(batch_size, max(1, CPU_TOKENS // self.length))
        batches, bar = self._cut(batch_size)[rank::world], bar or SilentBar()
        bar.expect(len(batches))
        for batch in batches:
            scores_nV = logits_at(model, batch.ids_BT, batch.positions_n).float()
            loss_NT.view(-1)[batch.places_n] = F.cross_entropy(scores_nV, batch.targets_n, reduction="none")
            if forbid is not None and batch.forbidden_n is not None:
                scores_nV[batch.forbidden_n, forbid] = -torch.inf
            predicted_NT.view(-1)[batch.places_n] = scores_nV.argmax(-1).int()
            bar.advance()
        return TokenOutputs(predicted_NT, loss_NT)

    def scores(self, outputs: TokenOutputs, key: Key) -> TokenScores:
        """The outputs for one part of the plan, row for row."""
        part, index = self.parts[key], self.places[key]
        length = part.ids.shape[1]
        queried = part.queried.clone()
        queried[:, :1] = False
        predicted = outputs.predicted_NT[index, :length].masked_fill(~queried, NOT_QUERIED)
        return TokenScores(part.ids, queried, predicted, outputs.loss_NT[index, :length].masked_fill(~queried, 0))

    def _cut(self, batch_size: int) -> list[_Batch]:
        """Batches of rows of similar length, each cut after its last queried token."""
        if batch_size not in self._batches:
            last_N = (self.queried_NT * torch.arange(self.length, device=self.ids_NT.device)).amax(1)
            order = torch.sort(last_N, stable=True).indices
            order = order[last_N[order] > 0]
            self._batches[batch_size] = [self._batch(rows, int(last_N[rows].max())) for rows in order.split(batch_size) if len(rows)]
        return self._batches[batch_size]

    def _batch(self, rows: Tensor, length: int) -> _Batch:
        ids_BT = self.ids_NT[rows, :length].contiguous()
        row_n, before_n = self.queried_NT[rows, 1 : length + 1].nonzero(as_tuple=True)
        places_n = rows[row_n] * self.length + before_n + 1
        forbidden_n = self.forbid_N[rows[row_n]]
        return _Batch(
            ids_BT,
            row_n * length + before_n,
            places_n,
            self.ids_NT.view(-1)[places_n],
            forbidden_n if bool(forbidden_n.any()) else None,
        )


def _distinct(rows_NT: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first occurrence of each distinct row, ascending, and for every row [N] the number of its distinct row."""
    _, first, inverse = np.unique(rows_NT.numpy(), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return torch.from_numpy(first[order]), torch.from_numpy(rank[inverse.reshape(-1)])


def _padded(rows_NT: Tensor, length: int) -> Tensor:
    return F.pad(rows_NT, (0, length - rows_NT.shape[1])) if rows_NT.shape[1] < length else rows_NT
