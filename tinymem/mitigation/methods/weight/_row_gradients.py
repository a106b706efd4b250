"""Gradients of each row's loss apart, with respect to the feed-forward parameters, from one backward pass.

The weight gradient of a linear layer is an outer product of its inputs and the gradients of its outputs, summed over tokens; summed over
the tokens of one row it is that row's gradient.

Shape suffixes: B rows, T tokens, I inputs, O outputs, P parameters of one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.models.adapters import mlp_parameters


def row_gradients(model: nn.Module, rows: Rows, over: Over = "row") -> Iterator[tuple[str, Tensor]]:
    """Name and flat gradients [B, P] of each feed-forward parameter, a matrix in the published layout [in, out].

    Raises:
        UserError: a feed-forward block with parameters outside linear layers.
    """
    owners = _owners(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(owner: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[owner] = (inputs[0].detach(), output)

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in owners.items()]  # type: ignore[arg-type]
    try:
        total = row_losses(model, rows, over).sum()
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(total, [seen[name][1] for name in owners])
    for (name, module), gradient_BTO in zip(owners.items(), gradients, strict=True):
        yield f"{name}.weight", (seen[name][0].transpose(1, 2) @ gradient_BTO).flatten(1)
        if getattr(module, "bias", None) is not None:
            yield f"{name}.bias", gradient_BTO.sum(1)


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """Linear layers of the feed-forward blocks by name."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in mlp_parameters(model)))
    owners = {name: model.get_submodule(name) for name in names}
    for name, module in owners.items():
        if not isinstance(module, nn.Linear) and type(module).__name__ != "Conv1D":
            raise UserError(f"expected feed-forward blocks of linear layers, got {type(module).__name__} at {name}; SOU cannot take it")
    return owners
