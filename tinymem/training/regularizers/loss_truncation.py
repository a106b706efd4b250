"""Loss truncation: do not learn from the rows that the model finds hardest.

Formula: rows whose mean loss is at or above the (1 - drop) quantile of the last `window` rows' losses count as 0.
Source: Kang and Hashimoto 2020, section 4 and their package loss_dropper; TinyMem paper, section 4.1. Everything is kept until `window`
    rows were seen. Published code finds a new quantile only after more than `window` rows (`refresh: 10000`); here it is of every step.
Note: it drops rows of high loss, so it can act only until a planted row is learned.
Cost: a sort of `window` numbers a step, on the device; state: those losses, two counters and the threshold.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from tinymem.recipe.training import LARGEST
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows, regularizer


@regularizer
class LossTruncationSection(RegularizerSection):
    """Options of loss truncation, under which rows of high loss count as 0 (Kang and Hashimoto 2020)."""

    kind: Literal["loss-truncation"] = "loss-truncation"
    drop: float = Field(0.05, ge=0, lt=1, description="share of the rows that are left out; the paper's: 0.01, 0.05 or 0.1")
    window: int = Field(10_000, ge=2, le=100_000_000, description="rows that the quantile is of; nothing is dropped before so many")
    refresh: int = Field(0, ge=0, le=LARGEST, description="rows before a new quantile; the published code has 10000")
    denominator: Literal["batch", "kept"] = Field("batch", description="rows that the loss is the mean of: all, or those kept")

    def make(self, rows: TrainingRows) -> LossTruncation:
        return LossTruncation(self)


class LossTruncation(Regularizer):
    """A regularizer that gives weight 0 to rows of high loss. Shape suffix W: the window's rows."""

    weighs_tokens: ClassVar[bool] = True
    weighs_by_loss: ClassVar[bool] = True
    losses_W: Tensor
    seen: Tensor
    since: Tensor
    threshold: Tensor

    def __init__(self, section: LossTruncationSection) -> None:
        super().__init__()
        self.refresh, self.leaves_mean = section.refresh, section.denominator == "kept"
        self.rank = (1 - section.drop) * (section.window - 1)
        self.register_buffer("losses_W", torch.zeros(section.window))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("since", torch.zeros((), dtype=torch.int64))
        self.register_buffer("threshold", torch.tensor(torch.inf))

    @torch.no_grad()
    def token_weights(self, ids_BT: Tensor, losses_BP: Tensor) -> Tensor:
        """Weights [B, P]: 1 in rows below the threshold, 0 in the others."""
        rows_B = losses_BP.float().mean(1)
        self._remember(_of_all_processes(rows_B))
        due = (self.seen >= len(self.losses_W)) & (self.since > self.refresh)
        self.threshold.copy_(torch.where(due, self._quantile(), self.threshold))
        self.since.mul_(~due)
        return (rows_B < self.threshold).to(losses_BP.dtype)[:, None].expand_as(losses_BP)

    def _remember(self, rows_B: Tensor) -> None:
        W = len(self.losses_W)
        for part_B in rows_B.split(W):  # a batch longer than the window would write a slot twice
            slots_B = (self.seen + torch.arange(len(part_B), device=part_B.device)) % W
            self.losses_W.index_copy_(0, slots_B, part_B)
            self.seen.add_(len(part_B))
            self.since.add_(len(part_B))

    def _quantile(self) -> Tensor:
        """The (1 - drop) quantile of the window's losses, linear between the two neighboring ranks as NumPy's percentile."""
        sorted_W = self.losses_W.sort().values
        low = int(self.rank)
        return torch.lerp(sorted_W[low], sorted_W[min(low + 1, len(sorted_W) - 1)], self.rank - low)


def _of_all_processes(rows_B: Tensor) -> Tensor:
    """The losses of the whole batch, in the same order on every process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows_B
    parts = [torch.empty_like(rows_B) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows_B)
    return torch.cat(parts)
