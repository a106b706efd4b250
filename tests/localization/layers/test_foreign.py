"""Models of all families as stacks of blocks: against the models themselves, and blocks that are exchanged and copied."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tinymem.errors import UserError
from tinymem.localization.layers.foreign import Contexts, layers_of
from tinymem.models.adapters import logits
from tinymem.models.families import FAMILIES


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama", "gemma3", "opt"])
def test_a_stack_computes_what_its_model_does_and_takes_anothers_blocks(family):
    torch.manual_seed(0)
    one, other = (FAMILIES.get(family).tiny(30, 16).eval() for _ in range(2))
    contexts: Contexts = {}
    a, b = layers_of(one, contexts), layers_of(other, contexts)
    for ids in (torch.randint(2, 30, (4, 9)), torch.randint(2, 30, (2, 5))):
        with torch.no_grad():
            states = a.embed(ids)
            torch.testing.assert_close(a.head(a.through(states)), logits(one, ids))
            copied = a.swapped(b, [0, 1]).through(states)
            for block, theirs in zip(a.blocks, b.blocks, strict=True):
                block.load_state_dict(theirs.state_dict())
            torch.testing.assert_close(copied, a.through(states))
            torch.testing.assert_close(deepcopy(a.blocks[0])(states), a.blocks[0](states))


def test_nothing_of_a_model_changes_and_one_that_does_more_is_refused():
    model = FAMILIES.get("gemma2").tiny(30, 16).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.config.final_logit_softcapping = 0.01
    with pytest.raises(UserError, match="which does more"):
        layers_of(model, {})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(block._forward_pre_hooks for block in model.model.layers)
