"""Metrics on text: a vocabulary that sampling cuts off, decoded rows for zlib, test rows as non-members."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_metrics as plain
import pytest
import torch
from data_text import ALL, cache, folder, recipe, tokenizer

from tinymem.data.artifacts.backdoor import common_ending
from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.data.samples import decoder
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.metrics.discoverable import TOP_K, sampled_log_probability
from tinymem.evaluation.metrics.membership import attack_scores
from tinymem.evaluation.nonmembers import populations
from tinymem.models.gpt2 import GPT, GPTConfig

__all__ = ["cache", "folder", "tokenizer"]


@pytest.fixture
def corpus(folder: Path, tokenizer: Path, tmp_path: Path) -> Corpus:
    return make_corpus(recipe(folder, tokenizer, *ALL), tmp_path / "corpus", workers=1)


@pytest.fixture
def measured(corpus: Corpus, folder: Path, tokenizer: Path) -> Measurement:
    model = GPT(GPTConfig(vocab_size=corpus.vocab_size, n_positions=20, n_layer=1, n_embd=16, n_head=2)).eval()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(3)
    setting = recipe(folder, tokenizer).evaluation.model_copy(update={"ks": (4,)})
    return Evaluator.of_corpus(corpus, setting, "paper", metrics=("all",)).measure(model)


@pytest.mark.processes
def test_every_metric(corpus: Corpus, measured: Measurement) -> None:
    found = measured.metrics()
    assert set(found) == {"noise", "backdoor", "duplication", "canary"}
    assert corpus.vocab_size > TOP_K
    for kind in ("noise", "duplication"):
        assert {*found[kind]["memorized"]} == {"k=6", "k=4"}
    assert found["duplication"]["clean-continuation"] is None and found["canary"]["exposure"]["all"]["rows"] == 4
    assert set(found["noise"]["perplexity"]) == {"all", *corpus.tests}
    backdoor = corpus.planted["backdoor"]
    assert found["backdoor"]["membership"]["non-members"] == (~backdoor.trained).sum() > 0
    assert all(found[kind]["membership"]["non-members"] > 10 for kind in ("noise", "duplication", "canary"))
    assert found["noise"]["discoverable"]["n=1, p=0.5"]["all"]["rows"] == len(measured.view.probe("noise"))


@pytest.mark.processes
def test_sampling_cuts_the_vocabulary_off(measured: Measurement) -> None:
    model = measured.view.model
    starts = measured.view.probe("duplication").rows.ids[:6, :6].tolist()
    rows = torch.tensor([plain.greedy(model, start, 10) for start in starts])
    rows[0, 8] = (rows[0, 8] + 1) % 400
    q = []
    for row in rows.tolist():
        product = 1.0
        for t, log_p in enumerate(plain.log_probabilities(model, row)[5:9], 6):
            likeliest = np.sort(log_p)[-TOP_K:]
            product *= np.exp(log_p[row[t]]) / np.exp(likeliest).sum() if log_p[row[t]] >= likeliest[0] else 0.0
        q.append(product)
    found = sampled_log_probability(model, Rows.of(rows, 6, 10), top_k=TOP_K, batch_size=4).exp()
    assert found.tolist() == pytest.approx(q, rel=1e-4, abs=1e-12) and min(q[1:]) > 0
    whole = sampled_log_probability(model, Rows.of(rows, 6, 10), top_k=400).exp()
    assert (whole[1:] < found[1:]).all()  # without the tail the rest is likelier


@pytest.mark.processes
def test_zlib_is_of_the_text(corpus: Corpus, measured: Measurement) -> None:
    members, _ = populations(corpus, "duplication")
    rows = replace(members, ids=members.ids[:3], content=members.content[:3], index=members.index[:3])
    found = attack_scores(measured.view.model, corpus, rows, 2)
    for n, row in enumerate(rows.ids.tolist()):
        text = decoder(corpus)(row)
        assert " " in text and found["zlib"][n] == pytest.approx(found["loss"][n] / len(zlib.compress(text.encode())))


@pytest.mark.processes
def test_non_members(corpus: Corpus) -> None:
    members, others = populations(corpus, "noise")
    (test,) = corpus.tests.values()
    moved = np.array([min(np.abs(row.astype(int) - clean.astype(int)).max() for clean in test) for row in others.ids])
    assert (moved == 1).all() and len(members.ids) <= 21
    trigger = common_ending(corpus.planted["backdoor"])
    assert len(trigger) >= 1
    joined = " ".join(map(str, trigger.tolist()))
    assert not any(f" {joined} " in f" {' '.join(map(str, row.tolist()))} " for row in others.ids)
    canaries = populations(corpus, "canary")[1]
    assert all(decoder(corpus)(row[:end].tolist()).count(":") == 1 for row, end in zip(canaries.ids, canaries.content, strict=True))
