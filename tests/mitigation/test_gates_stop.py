"""Learned gates of single rows: training ends when every row has stopped, with the state that it would have had."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.methods.neuron import _gates
from tinymem.testing import config_of, tiny_case


@pytest.mark.slow
def test_rows_that_have_stopped_are_not_trained_on(monkeypatch):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get("slim")
    config = config_of(method, epochs=200, penalty=1e4, stop=0.5, learning_rate=0.1)
    taken = []
    learn = _gates.learn
    monkeypatch.setattr(_gates, "learn", lambda *a, **k: (taken.append(s) or s for s in learn(*a, **k)))
    early = method.by_row(model, data, config)
    assert len(taken) == _gates.LOOKS and not taken[-1].running_G.any()
    late = list(learn(model, data, config, _gates.Rule(1.0, lambda c, _: c.clamp(0, 1), torch.abs), by_row=True))[-1]
    assert torch.equal(late.parameters_GLF, taken[-1].parameters_GLF)
    assert torch.equal(early, _gates.ranks(late.parameters_GLF, late.neg_grad_sum_GLF))
    taken.clear()
    method.by_row(model, data, replace(config, stop=0.0, epochs=30))
    assert len(taken) == 30
