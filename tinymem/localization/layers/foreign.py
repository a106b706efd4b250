"""A model of any registered family as a stack of blocks, through transformers' own modules.

A block of transformers is given more than states: masks, positions, rotary angles. They depend on the number of tokens alone as long as
nothing is padded, so they are recorded once for each length, on a pass of one row, and broadcast over the rows of a batch.

Shape suffixes: R rows, T tokens, D embedding.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.localization.layers.subject import LayeredModel, Unembedding, gpt_layers
from tinymem.models.adapters import family_of, logits
from tinymem.models.gpt2 import GPT

Argument = Tensor | tuple[Tensor, ...] | int | None
Named = dict[str, Argument]
Context = tuple[tuple[Argument, ...], Named]
"""Arguments of a block's call besides the states, by place and by name."""
Contexts = dict[int, list[Context]]
"""Of each block, by the number of tokens; models that exchange blocks share one."""


def layers_of(model: nn.Module, contexts: Contexts) -> LayeredModel:
    """A model as a stack of blocks that share its parameters.

    Args:
        model: of any registered family.
        contexts: filled as lengths come up; one for all models of a configuration.

    Raises:
        UserError: a family without a known final norm, or blocks and head that do not make up the model.
    """
    if isinstance(model, GPT):
        return gpt_layers(model)
    made = _Stack(model, contexts).layers()
    _check(model, made)
    return made


class _Reached(Exception):
    """Ends a forward pass where the first block begins."""


@dataclass
class _Stack:
    model: nn.Module
    contexts: Contexts

    def layers(self) -> LayeredModel:
        family = family_of(self.model)
        path = family.blocks.rpartition(".")[0]
        norm = getattr(self.model.get_submodule(path), family.final_norm, None) if family.final_norm else None
        out = self.model.get_output_embeddings()  # type: ignore[operator]
        if norm is None or out is None:
            raise UserError(f"expected a family with a final norm, got {family.name}; its plugin says it with final_norm")
        self.blocks = list(self.model.get_submodule(family.blocks).children())
        called = tuple(_Called(block, self.contexts, i) for i, block in enumerate(self.blocks))
        embedding = nn.Embedding.from_pretrained(out.weight, freeze=False)  # shares the tensor
        return LayeredModel(self.embed, called, Unembedding(norm, embedding, getattr(out, "bias", None)))

    def embed(self, ids_RT: Tensor) -> Tensor:
        """The states that enter the first block; what its blocks are given besides is recorded for this length."""
        if ids_RT.shape[1] not in self.contexts:
            self.contexts[ids_RT.shape[1]] = self._contexts(ids_RT[:1])
        states: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            states.append(inputs[0] if inputs else named["hidden_states"])
            raise _Reached

        handle = self.blocks[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model(ids_RT, use_cache=False)
        except _Reached:
            pass
        finally:
            handle.remove()
        return states[0]

    @torch.no_grad()
    def _contexts(self, ids_1T: Tensor) -> list[Context]:
        found: list[Context] = []

        def keep(_: nn.Module, inputs: tuple[Argument, ...], named: Named) -> None:
            found.append((inputs[1:], {name: value for name, value in named.items() if name != "hidden_states"}))

        handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in self.blocks]
        try:
            self.model(ids_1T, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return found


class _Called(nn.Module):
    """A block that is given what it is given in its place in the model; a deep copy has a block of its own, and the same contexts."""

    def __init__(self, block: nn.Module, contexts: Contexts, place: int) -> None:
        super().__init__()
        self.block, self.contexts, self.place = block, contexts, place

    def __deepcopy__(self, memo: dict[int, object]) -> _Called:
        return _Called(deepcopy(self.block, memo), self.contexts, self.place)

    def forward(self, states_RTD: Tensor) -> Tensor:
        others, named = self.contexts[states_RTD.shape[1]][self.place]
        found = self.block(states_RTD, *others, **named)
        states: Tensor = found[0] if isinstance(found, tuple) else found
        return states


@torch.no_grad()
def _check(model: nn.Module, made: LayeredModel) -> None:
    """Refuse a stack that does not compute what its model does, such as one with capped logits or scaled states."""
    ids_RT = torch.arange(6, device=next(model.parameters()).device).view(2, 3)
    found, wanted = made.head(made.through(made.embed(ids_RT))), logits(model, ids_RT)
    if not torch.allclose(found.float(), wanted.float(), rtol=1e-3, atol=1e-3):
        raise UserError(f"expected a model that is its embedding, blocks, final norm and head, got {type(model).__name__}, which does more")
