"""Batch size, padding and model class change no metric, and the one pass gives what a plain loop gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import plain_metrics as plain
import pytest
import torch
from helpers import QUICKSTART, ROOT, TINY, python
from plain_metrics import assert_same

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.planted import Planted
from tinymem.data.rows import Rows
from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.forward import ForwardPlan, TokenQuery
from tinymem.evaluation.probes import memorized_rows
from tinymem.models.adapters import logits, logits_at
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import Run

KS = (6, 16)


def evaluator_of(run: Run, corpus: Corpus, **options: Any) -> Evaluator:
    setting = run.recipe.evaluation.model_copy(update={"ks": KS, "batch_size": options.pop("batch_size", 512)})
    return Evaluator.of_corpus(corpus, setting, options.pop("protocol", "paper"), metrics=("all",), **options)


def test_a_difference_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="/a/b"):
        assert_same({"a": {"b": 1}}, {"a": {"b": 2}})
    with pytest.raises(AssertionError, match="/a"):
        assert_same({"a": 0.5}, {"a": 0.5001})


@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_batch_size(protocol: str, tiny_run: Run) -> None:
    model, corpus = tiny_run.model(), tiny_run.corpus()
    found = []
    for size in (1, 7, 64):
        measured = evaluator_of(tiny_run, corpus, batch_size=size, protocol=protocol).measure(model)
        found.append({"metrics": measured.metrics(), "accuracy": measured.accuracy.as_dict(), "perplexity": measured.perplexity})
        found[-1]["memorized"] = {kind: flags.tolist() for kind, flags in measured.memorized.items()}
    assert_same(found[0], found[2])
    assert_same(found[1], found[2])
    assert found[2]["metrics"]["backdoor"]["memorized"]["own prompt"]["all"]["rows"] > 0


def padded(corpus: Corpus, tokens: int) -> Corpus:
    """The same corpus with more padding behind every row."""

    def longer(rows: np.ndarray, fill: int) -> np.ndarray:
        return np.pad(rows, ((0, 0), (0, tokens)), constant_values=fill)

    def planted(p: Planted) -> Planted:
        return replace(p, ids=longer(p.ids, corpus.pad), clean=longer(p.clean, corpus.pad))

    data = corpus.spec.data.model_copy(update={"row_tokens": corpus.row_tokens + tokens})
    return replace(
        corpus,
        spec=corpus.spec.model_copy(update={"data": data}),
        clean=longer(corpus.clean, corpus.pad),
        tests={name: longer(rows, corpus.pad) for name, rows in corpus.tests.items()},
        determined={name: longer(flags, 1) for name, flags in corpus.determined.items()},
        planted={kind: planted(p) for kind, p in corpus.planted.items()},
    )


def test_padding(tiny_run: Run) -> None:
    model, corpus = tiny_run.model(), tiny_run.corpus()
    wide = GPT(GPTConfig(**{**vars(model.config), "n_positions": 40})).eval()  # ten more positions, which nothing may read
    weights = model.state_dict()
    weights["transformer.wpe.weight"] = torch.cat([weights["transformer.wpe.weight"], torch.full((10, model.config.n_embd), torch.nan)])
    wide.load_state_dict(weights)
    expected = evaluator_of(tiny_run, corpus).measure(model)
    found = evaluator_of(tiny_run, padded(corpus, 10)).measure(wide)
    assert found.accuracy == expected.accuracy and found.perplexity == pytest.approx(expected.perplexity, rel=1e-6)
    assert_same(found.metrics(), expected.metrics())


def test_parts_of_a_sheet_join(tiny_run: Run) -> None:
    model, plan = tiny_run.model(), evaluator_of(tiny_run, tiny_run.corpus()).plan
    whole = plan.outputs(model, batch_size=8)
    parts = [plan.outputs(model, batch_size=8, process=(rank, 3)) for rank in range(3)]
    assert all((part.predicted_NT != whole.predicted_NT).any() for part in parts)
    assert torch.equal(
        torch.stack([part.predicted_NT for part in parts]).amax(0), whole.predicted_NT
    )  # as `TokenOutputs.of_all` joins them
    assert torch.equal(torch.stack([part.loss_NT for part in parts]).sum(0), whole.loss_NT)


def test_the_pass_is_the_plain_loop(tiny_run: Run) -> None:
    model = tiny_run.model()
    ids = torch.randint(14, (9, 30), generator=torch.Generator().manual_seed(0))
    ids[4] = ids[2]  # one row twice, asked other tokens
    asked = torch.rand(9, 30, generator=torch.Generator().manual_seed(1)) < 0.3
    plan = ForwardPlan({("a", ""): TokenQuery(ids[:5], asked[:5]), ("b", ""): TokenQuery(ids[5:, :20], asked[5:, :20])})
    assert len(plan.ids_NT) == 8
    outputs = plan.outputs(model, batch_size=3)
    for key, rows in ((("a", ""), range(5)), (("b", ""), range(5, 9))):
        scores = plan.scores(outputs, key)
        for n, row in enumerate(rows):
            table = plain.log_probabilities(model, ids[row].tolist())
            for t in range(scores.ids.shape[1]):
                if t and asked[row, t]:
                    assert scores.predicted[n, t] == table[t - 1].argmax()
                    assert float(scores.loss[n, t]) == pytest.approx(-table[t - 1][ids[row, t]], rel=1e-4, abs=1e-5)
                else:
                    assert scores.predicted[n, t] == -1 and scores.loss[n, t] == 0


@pytest.mark.thorough
@pytest.mark.processes
def test_the_benchmark_compares_with_a_bare_loop(tiny_run: Run) -> None:
    done = python(ROOT / "benchmarks" / "measurement.py", tiny_run.path, "--repeats", 1)  # it fails if the counts differ
    assert done.code == 0, done.err
    assert [line.split("  ")[0] for line in done.out.splitlines()[:3]] == ["bare loop", "measurement", "with default"]


def test_rows_that_ask_nothing() -> None:
    plan = ForwardPlan({})
    assert plan.outputs(torch.nn.Linear(1, 1), batch_size=4).predicted_NT.numel() == 0
    nothing = Rows.of(torch.zeros(0, 5))
    assert memorized_rows(torch.nn.Linear(1, 1), nothing).shape == (0,)


def test_logits_at_positions(tiny_run: Run) -> None:
    model, ids = tiny_run.model(), torch.randint(14, (3, 12))
    places = torch.tensor([0, 5, 12, 35])
    expected = logits(model, ids).flatten(0, 1)[places]
    assert torch.allclose(logits_at(model, ids, places), expected, atol=1e-5)
    handle = model.register_forward_hook(lambda _m, _x, y: y + 1)  # a hook on the whole model is not passed by
    assert torch.allclose(logits_at(model, ids, places), expected + 1, atol=1e-5)
    handle.remove()


def test_transformers_gives_the_same(tiny_run: Run) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint, dtype=torch.float32).eval()
    evaluator = evaluator_of(tiny_run, tiny_run.corpus())
    assert_same(evaluator.measure(theirs).metrics(), evaluator.measure(tiny_run.model()).metrics(), tolerance=1e-4)


@pytest.mark.parametrize("kind", ["duplication", "canary"])
def test_batch_size_of_other_artifacts(kind: str) -> None:
    more = ", length: 2" if kind == "canary" else ""
    recipe = load_recipe(
        QUICKSTART, [*TINY[:5], f"artifacts=[{{kind: {kind}, rows: 4, copies: 2{more}}}]", "evaluation={prompt: 8, match: 8}"]
    )
    corpus, model = make_corpus(recipe), GPT(GPTConfig(n_positions=30, n_layer=1, n_embd=16, n_head=2)).eval()
    found = []
    for size in (1, 64):
        setting = recipe.evaluation.model_copy(update={"batch_size": size, "ks": (3,)})
        found.append(Evaluator.of_corpus(corpus, setting, "paper", metrics=("all",)).measure(model).metrics())
    assert_same(*found)
