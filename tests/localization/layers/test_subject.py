"""Models as stacks of blocks, and decisions: against the model itself and plain loops."""

from __future__ import annotations

import torch

from tinymem.localization.layers.subject import Decisions, gpt_layers, predictions, states
from tinymem.models.gpt2 import GPT, GPTConfig


def tiny(seed=0):
    return GPT(GPTConfig(vocab_size=14, n_positions=12, n_layer=3, n_embd=16, n_head=2), seed=seed).double().eval()


def some(rows=5):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(14, (rows, 12), generator=generator)
    row, at = torch.tensor([0, 0, 2, 3, 3, 3]), torch.tensor([2, 7, 10, 0, 5, 6])
    return Decisions(ids, row, at, ids[row, at + 1], torch.randint(14, (6,), generator=generator))


def test_a_stack_computes_what_its_model_does():
    model, decisions = tiny(), some()
    found = predictions(gpt_layers(model), decisions, rows=2)
    logp = model(decisions.ids_RT).float().log_softmax(-1)[decisions.row_n, decisions.at_n]
    assert torch.equal(found.likeliest_n, logp.argmax(-1))
    torch.testing.assert_close(found.planted_n, logp.gather(1, decisions.planted_n[:, None])[:, 0])
    torch.testing.assert_close(found.original_n, logp.gather(1, decisions.original_n[:, None])[:, 0])
    hidden = states(gpt_layers(model), decisions, rows=2)
    assert hidden.shape == (4, 6, 16)
    final = model.transformer(decisions.ids_RT)[decisions.row_n, decisions.at_n]
    torch.testing.assert_close(model.transformer.ln_f(hidden[-1]), final)


def test_swapping_all_blocks_gives_the_others_and_swapping_none_gives_ones_own():
    """The two models share embedding and head here, so that all blocks of one are the whole of it."""
    one, other, decisions = tiny(0), tiny(1), some()
    other.transformer.wte, other.transformer.wpe, other.transformer.ln_f = one.transformer.wte, one.transformer.wpe, one.transformer.ln_f
    a, b = gpt_layers(one), gpt_layers(other)
    none, everything = predictions(a.swapped(b, ()), decisions), predictions(a.swapped(b, range(3)), decisions)
    assert torch.equal(none.planted_n, predictions(a, decisions).planted_n)
    assert torch.equal(everything.planted_n, predictions(b, decisions).planted_n)
    assert not torch.equal(everything.planted_n, none.planted_n)
    middle = a.swapped(b, [1])
    assert [block is theirs for block, theirs in zip(middle.blocks, b.blocks, strict=True)] == [False, True, False]


def test_parts_of_decisions_keep_their_rows():
    decisions = some()
    pieces = list(decisions.batches(2))
    assert [len(piece) for piece in pieces] == [2, 4, 0] and [len(piece.ids_RT) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([p.planted_n for p in pieces]), decisions.planted_n)
    assert torch.equal(torch.cat([p.ids_RT[p.row_n] for p in pieces]), decisions.ids_RT[decisions.row_n])
    part = decisions.take(torch.tensor([1, 4, 5]))
    assert torch.equal(part.ids_RT, decisions.ids_RT[[0, 3]]) and part.row_n.tolist() == [0, 1, 1]
    turned = decisions.of_rows(torch.tensor([3, 0]))
    assert turned.row_n.tolist() == [0, 0, 0, 1, 1] and torch.equal(turned.at_n, decisions.at_n[[3, 4, 5, 0, 1]])
