"""Greedy choices of a model of any type, with the final norm and the language-model head in float32.

In 16 bits many logits of a large vocabulary are equal, so that the arg-max of a head in bfloat16 is that of the lower id among several.

Shape suffixes: B rows, T tokens, D embedding, V vocabulary, P predicted tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tinymem.models.adapters import family_of
from tinymem.models.gpt2 import GPT

MAXIMUM_LOGITS = 1 << 27
"""Numbers of one product with the head: half a gigabyte."""


class PreciseHead:
    """A model's hidden states, and its head in float32; made by `precise_head`."""

    def __init__(self, model: nn.Module) -> None:
        self.body: Any = model.transformer if isinstance(model, GPT) else getattr(model, str(getattr(model, "base_model_prefix", "")))
        head: Any = model.transformer.wte if isinstance(model, GPT) else model.get_output_embeddings()  # type: ignore[operator]
        bias = getattr(head, "bias", None)
        self.weight_VD, self.bias_V = head.weight.detach().float(), None if bias is None else bias.detach().float()

    @torch.no_grad()
    def choices(self, ids_BT: Tensor, start: int) -> Tensor:
        """The token [B, P] that greedy decoding takes at each place from `start` to the end, given the true tokens before it."""
        hidden = self.body(ids_BT)
        hidden_BTD = hidden if isinstance(hidden, Tensor) else hidden.last_hidden_state
        x_nD = hidden_BTD[:, start - 1 : -1].to(self.weight_VD.device).float().flatten(0, 1)  # elsewhere where the model is spread
        parts = [self._best(part) for part in x_nD.split(max(1, MAXIMUM_LOGITS // len(self.weight_VD)))]
        return torch.cat(parts).view(len(ids_BT), -1).to(ids_BT.device)

    def _best(self, x_nD: Tensor) -> Tensor:
        # caps and scales of logits, as Gemma's, keep their order
        return nn.functional.linear(x_nD, self.weight_VD, self.bias_V).argmax(-1)


@contextmanager
def precise_head(model: nn.Module) -> Iterator[PreciseHead]:
    """Inside the context the model's final norm, and what follows it, compute in float32; its weights are the same again afterwards."""
    last = _last_modules(model)
    types = [{parameter.dtype for parameter in module.parameters()} for module in last]
    handles = [module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:])) for module in last]
    for module in last:
        module.float()
    try:
        yield PreciseHead(model)
    finally:
        for handle, module, dtypes in zip(handles, last, types, strict=True):
            handle.remove()
            for dtype in dtypes:  # a norm has one; to float32 and back changes no bit
                module.to(dtype)


def _last_modules(model: nn.Module) -> list[nn.Module]:
    """The final norm, and OPT's projection to the width of its embedding."""
    family = family_of(model)
    parent = model.get_submodule(family.blocks.rpartition(".")[0])
    found = [getattr(parent, name, None) for name in (family.final_norm, "project_out") if name]
    return [module for module in found if isinstance(module, nn.Module)]
