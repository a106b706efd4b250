"""The base class of regularizers, and their combination; `regularizer_section` has their options and their registry.

A regularizer is a module whose buffers are its whole state: they go into the resume point and nothing else does. All hooks have fixed
shapes and read nothing back to the host, so that a training step can be captured in one CUDA graph.

Shape suffixes: B rows, T tokens, P predicted tokens (T - 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.models.gpt2 import GPT
from tinymem.training.parallel import mean_over_processes


class Regularizer(nn.Module):
    """Base class of regularizers, whose hooks do nothing. A step calls each once: `before`, `token_weights`, `penalty`, and `after`."""

    weighs_tokens: ClassVar[bool] = False
    """If true, `token_weights` is called, which needs the loss of every token."""

    weighs_by_loss: ClassVar[bool] = False
    """If true, `token_weights` reads the losses, not the ids alone."""

    leaves_mean: bool = False
    """If true, dropped tokens are also left out of the mean's denominator."""

    def attach(self, model: GPT) -> None:
        """Prepare for a model that is on its device: make buffers, add hooks."""

    def before(self, row_ids_B: Tensor) -> None:
        """Receive the ids of the distinct training rows in the next batch; ids are the same over copies and epochs."""

    def token_weights(self, ids_BT: Tensor, losses_BP: Tensor) -> Tensor | None:
        """Weights [B, P] of the tokens' losses, 0 for dropped tokens."""
        return None

    def neuron_gates(self) -> Tensor | None:
        """Gates [L or 1, B, F], 0 or 1, that its hooks put on the neurons of the rows last received; None: it has no such hooks."""
        return None

    def penalty(self) -> Tensor | None:
        """A scalar to add to the loss, or None."""
        return None

    def after(self) -> None:
        """Change the weights that the optimizer has just updated, in place."""

    def fold(self, plain: GPT) -> None:
        """Change the weights of a copy without hooks so that it computes the same as the model outside training."""


class Regularizers(nn.Module):
    """The regularizers of a run, by name."""

    def __init__(self, parts: Iterable[tuple[str, Regularizer]] = ()) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name.replace("-", "_"): part for name, part in parts})

    def __iter__(self) -> Iterator[Regularizer]:
        yield from (part for part in self.parts.values() if isinstance(part, Regularizer))

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def weighs_tokens(self) -> bool:
        """Whether any regularizer weighs tokens."""
        return any(part.weighs_tokens for part in self)

    @property
    def weighs_by_loss(self) -> bool:
        """Whether any regularizer weighs tokens by their losses."""
        return any(part.weighs_by_loss for part in self)

    def neuron_gates(self) -> Tensor | None:
        """Gates [L or 1, B, F] on the neurons of the rows last received, of the one regularizer that may have some; or None."""
        return next((gates for part in self if (gates := part.neuron_gates()) is not None), None)

    def attach(self, model: GPT) -> None:
        """Attach each regularizer to the model, and move its buffers to the model's device."""
        for part in self:
            part.attach(model)
        self.to(next(model.parameters()).device)

    def before(self, row_ids_B: Tensor) -> None:
        """Announce the next batch to each regularizer."""
        for part in self:
            part.before(row_ids_B)

    def mean_loss(self, ids_BT: Tensor, losses_BP: Tensor, counts_B: Tensor | None = None) -> Tensor:
        """Weighted mean of the tokens' losses [B, P]: dropped tokens count 0, and leave the denominator where `leaves_mean` is set.

        `counts_B` takes rows out altogether; over several processes the mean of the results is the mean of the whole batch.
        """
        weights_BP = torch.ones_like(losses_BP)
        weights_BP = weights_BP if counts_B is None else weights_BP * counts_B[:, None]
        counted_BP = weights_BP
        for part in self:
            kept_BP = part.token_weights(ids_BT, losses_BP.detach()) if part.weighs_tokens else None
            if kept_BP is not None:
                weights_BP = weights_BP * kept_BP
                counted_BP = counted_BP * kept_BP if part.leaves_mean else counted_BP
        # The same denominator on every process, so that their averaged gradients are those of the whole batch.
        return (weights_BP * losses_BP).sum() / mean_over_processes(counted_BP.sum()).clamp(min=1)

    def penalty(self) -> Tensor | None:
        """Sum of the penalties, a scalar; None if there are none."""
        penalties = [p for p in (part.penalty() for part in self) if p is not None]
        return torch.stack(penalties).sum() if penalties else None

    def after(self) -> None:
        """Tell each regularizer that the optimizer has updated the weights."""
        for part in self:
            part.after()

    def folded(self, model: GPT) -> GPT:
        """A plain GPT-2 that computes the same as the model outside training; the model itself is not changed."""
        plain = GPT(model.config).to(next(model.parameters()).device)
        plain.load_state_dict(model.state_dict())
        for part in self:
            part.fold(plain)
        return plain.eval()
