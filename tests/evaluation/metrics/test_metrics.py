"""Every metric against its definition, computed the slow way on a model that memorized some rows."""

from __future__ import annotations

import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain_metrics as plain
import pytest
import torch
from helpers import IDENTITY, QUICKSTART, TINY, overfit, random_gpt, tinymem
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymem.data.artifacts.backdoor import common_ending
from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import to_text
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.exposure import exposures
from tinymem.evaluation.forward import TokenScores
from tinymem.evaluation.metric import METRICS, chosen_metrics
from tinymem.evaluation.metrics import membership, perplexity_of_batches
from tinymem.evaluation.metrics.discoverable import extracted, sampled_log_probability
from tinymem.evaluation.metrics.extraction_strength import strengths
from tinymem.evaluation.metrics.membership import attack_scores, lowest_mean
from tinymem.evaluation.nonmembers import populations
from tinymem.evaluation.roc import auc, true_positive_rate
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, mitigate, subject_of_rows
from tinymem.models.gpt2 import GPT
from tinymem.recipe.recipe import load_recipe
from tinymem.results.share import Share
from tinymem.runs.pipeline import Run

KS = (5, 12, 18)


@pytest.fixture(scope="module")
def corpus(tiny_run: Run) -> Corpus:
    return tiny_run.corpus()


@pytest.fixture(scope="module")
def models(tiny_run: Run, paper: Subject) -> list[GPT]:
    """The trained model, and one that an edit left between the artifacts and the clean rows."""
    edited = mitigate(paper, "act", {"ratio": 0.03}).model
    assert isinstance(edited, GPT)
    return [tiny_run.model(), edited]


@pytest.fixture(scope="module")
def cleaned(tiny_run: Run, corpus: Corpus) -> GPT:
    """A model that knows some of the clean counterparts by heart instead."""
    twins = np.concatenate([planted.clean for planted in corpus.planted.values()])
    return overfit(tiny_run.model(), torch.from_numpy(twins.astype(np.int64)), steps=25, rate=3e-3)


@pytest.fixture(scope="module")
def measured(tiny_run: Run, corpus: Corpus, models: list[GPT]) -> list[Measurement]:
    setting = tiny_run.recipe.evaluation.model_copy(update={"ks": KS})
    evaluator = Evaluator.of_corpus(corpus, setting, "paper", metrics=("all",))
    return [evaluator.measure(model) for model in models]


@pytest.mark.parametrize("which", [0, 1])
def test_memorized_for_every_k(which: int, corpus: Corpus, models: list[GPT], measured: list[Measurement]) -> None:
    noise, found = corpus.planted["noise"], measured[which].metrics()["noise"]["memorized"]
    assert set(found) == {"k=5", "k=12", "k=18"}
    for k in KS:
        flags = plain.memorized(models[which], noise.clean, noise.ids, k, 24)
        scored = [flag for flag in flags if flag is not None]
        assert found[f"k={k}"]["all"] == Share(sum(scored), len(scored)).as_dict(), k
    assert len({(f["all"]["count"], f["all"]["rows"]) for f in found.values()}) == 3  # windows that say different things
    assert found["k=12"]["all"]["count"] == measured[which].memorized_share("noise").count


def test_memorized_by_group(paper: Subject) -> None:
    seen = paper.splits["noise"]
    found = paper.metrics_before["noise"]["memorized"]["k=12"]
    assert {name: (v["count"], v["rows"]) for name, v in found.items()} == {
        "all": (int(paper.before.memorized["noise"].sum()), len(seen.forget)),
        "forget": (int(seen.forget.sum()),) * 2,
        "holdout": (int(seen.holdout.sum()),) * 2,
    }
    own = paper.metrics_before["backdoor"]["memorized"]["own prompt"]
    assert own["all"]["count"] == paper.before.memorized_share("backdoor").count


@pytest.mark.parametrize(("protocol", "which"), [("paper", "trained"), ("paper", "cleaned"), ("reference", "cleaned")])
def test_clean_continuation(protocol: str, which: str, tiny_run: Run, corpus: Corpus, models: list[GPT], cleaned: GPT) -> None:
    evaluator = Evaluator.of_corpus(corpus, tiny_run.recipe.evaluation, protocol, metrics=("clean-continuation",))
    model = cleaned if which == "cleaned" else models[0]
    found = evaluator.measure(model).metrics()
    counts = []
    for kind, probe in evaluator.probes.items():
        twins, rows = corpus.planted[kind].clean[probe.index], probe.rows
        expected = []
        for twin, start, end in zip(twins.tolist(), rows.prompt.tolist(), rows.end.tolist(), strict=True):
            written = plain.greedy(model, twin[:start], end, evaluator.forbid)
            expected.append(written[start:] == twin[start:end])
        assert found[kind]["clean-continuation"]["all"] == Share(sum(expected), len(expected)).as_dict()
        counts.append(sum(expected))
    assert any(counts) == (which == "cleaned") and not all(
        count == len(evaluator.probes[k]) for k, count in zip(found, counts, strict=True)
    )


def test_rows_without_twins_do_not_continue_cleanly() -> None:
    evaluator, model = small_evaluator("duplication", "clean-continuation")
    assert evaluator.measure(model).metrics()["duplication"]["clean-continuation"] is None


def small_evaluator(kind: str, *metrics: str, **options: Any) -> tuple[Evaluator, GPT]:
    """An untrained model on a corpus with one artifact."""
    more = ", length: 2" if kind == "canary" else ""
    recipe = load_recipe(
        QUICKSTART, [*TINY[:5], f"artifacts=[{{kind: {kind}, rows: 8, copies: 3{more}}}]", "evaluation={prompt: 8, match: 8}"]
    )
    evaluator = Evaluator.of_corpus(make_corpus(recipe), recipe.evaluation, "paper", metrics=metrics)
    return evaluator, random_gpt(n_positions=30, scale=2, **options)


def test_accuracy_and_perplexity(corpus: Corpus, models: list[GPT], measured: list[Measurement]) -> None:
    evaluator, found = measured[0].view.evaluator, measured[0].metrics()["noise"]
    totals = np.zeros(3)
    for task, (rows, scored) in evaluator.tests.items():
        right, tokens, loss = plain.accuracy_and_loss(models[0], rows, scored)
        assert found["accuracy"][task] == {"share": right / tokens, "count": right, "tokens": tokens}
        assert found["perplexity"][task] == pytest.approx(np.exp(loss / tokens), rel=1e-5)
        totals += right, tokens, loss
    assert found["accuracy"]["all"]["share"] == measured[0].accuracy.share == totals[0] / totals[1]
    assert found["perplexity"]["all"] == measured[0].perplexity == pytest.approx(np.exp(totals[2] / totals[1]), rel=1e-5)
    assert measured[0].metrics()["backdoor"]["accuracy"] == found["accuracy"]


def test_perplexity_of_batches(monkeypatch: pytest.MonkeyPatch, models: list[GPT], measured: list[Measurement]) -> None:
    monkeypatch.setattr(perplexity_of_batches, "BATCH_ROWS", 8)  # of 20 rows: 8, 8 and 4
    found, means = measured[0].metrics()["noise"]["perplexity-of-batches"], []
    for task, (rows, scored) in measured[0].view.evaluator.tests.items():
        sums = [plain.accuracy_and_loss(models[0], r, s)[1:] for r, s in zip(rows.split(8), scored.split(8), strict=True)]
        assert len(sums) == 3
        means.append(np.mean([np.exp(loss / tokens) for tokens, loss in sums]))
        assert found[task] == pytest.approx(means[-1], rel=1e-5)
    assert found["all"] == pytest.approx(np.mean(means), rel=1e-5)
    assert found["all"] > measured[0].perplexity


@pytest.mark.parametrize("which", [0, 1])
def test_extraction_strength(which: int, corpus: Corpus, models: list[GPT], measured: list[Measurement]) -> None:
    view = measured[which].view
    for kind in ("noise", "backdoor"):
        original = view.evaluator.originals[kind]
        found = strengths(view.scores["planted", kind])
        rows = list(zip(original.ids.tolist(), original.content.tolist(), strict=True))[:3]
        assert found[:3].tolist() == pytest.approx([plain.extraction_strength(models[which], row[:end]) for row, end in rows])
        assert measured[which].metrics()[kind]["extraction-strength"]["all"]["mean"] == pytest.approx(float(found.mean()))


def test_extraction_strength_by_hand() -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]] * 4)
    predicted = torch.tensor([[-1, 2, 3, 4, 5], [-1, 9, 3, 4, 5], [-1, 2, 3, 4, 9], [-1, 2, 9, -1, -1]], dtype=torch.int32)
    asked = predicted >= 0
    found = strengths(TokenScores(ids, asked, predicted, torch.zeros(4, 5)))
    assert found.tolist() == [1, 0.75, 0, 0]  # nothing, one of four, all, all of two must be given


def test_discoverable_closed_form() -> None:
    assert extracted([0, 0.5, 1], 2).tolist() == [0, 0.75, 1]
    assert extracted(1e-9, 10_000) == pytest.approx(1 - (1 - 1e-9) ** 10_000, rel=1e-6)


def test_discoverable(models: list[GPT], measured: list[Measurement]) -> None:
    found, probe = measured[1].metrics()["noise"]["discoverable"], measured[1].view.probe("noise")
    q = []
    for row, start, end in zip(probe.rows.ids.tolist(), probe.rows.prompt.tolist(), probe.rows.end.tolist(), strict=True):
        log_p = plain.log_probabilities(models[1], row)
        q.append(np.exp(sum(log_p[t - 1][row[t]] for t in range(start, end))))
    assert found["probability"]["all"]["mean"] == pytest.approx(np.mean(q), rel=1e-4)
    for n, p in ((1, 0.5), (100, 0.5), (100, 0.9), (10_000, 0.5)):
        assert found[f"n={n}, p={p}"]["all"]["count"] == sum(1 - (1 - x) ** n >= p for x in q)


def test_sampling_from_the_likeliest_tokens(models: list[GPT], measured: list[Measurement]) -> None:
    rows = measured[1].view.probe("noise").rows
    whole = sampled_log_probability(models[1], rows, top_k=14)
    assert torch.allclose(whole, -measured[1].view.scores["probe", "noise"].loss.double().sum(1), rtol=1e-4, atol=1e-5)
    assert torch.allclose(whole, sampled_log_probability(models[1], rows, top_k=40, batch_size=3), rtol=1e-4, atol=1e-5)
    greedy = sampled_log_probability(models[1], rows, top_k=1)  # sampling from one token is greedy decoding
    assert (greedy == 0).tolist() == measured[1].memorized["noise"].tolist()
    cold = sampled_log_probability(models[1], rows, top_k=14, temperature=1e-3).exp()
    assert torch.allclose(cold, greedy.exp(), atol=1e-3)


def test_sampling_by_sampling() -> None:
    """The probability from one pass is the share of samples that hit."""
    model = random_gpt(3, 2.0)
    ids = torch.tensor([plain.greedy(model, [10, 3], 6)])
    exact = float(sampled_log_probability(model, Rows.of(ids, 4, 6), top_k=3).exp())
    generator, hits, tries = torch.Generator().manual_seed(0), 0, 150
    for _ in range(tries):
        row = ids[0, :4].tolist()
        while len(row) < 6:
            with torch.no_grad():
                top = model(torch.tensor([row]))[0, -1].topk(3)
            row.append(int(top.indices[torch.multinomial(top.values.softmax(0), 1, generator=generator)]))
        hits += row == ids[0].tolist()
    assert 0.05 < exact < 0.95
    assert hits / tries == pytest.approx(exact, abs=4 * (exact * (1 - exact) / tries) ** 0.5)


@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_edit_distance(protocol: str, tiny_run: Run, corpus: Corpus, models: list[GPT]) -> None:
    evaluator = Evaluator.of_corpus(corpus, tiny_run.recipe.evaluation, protocol, metrics=("edit-distance",))
    found = evaluator.measure(models[1]).metrics()
    for kind, probe in evaluator.probes.items():
        distances = []
        for row, start, end in zip(probe.rows.ids.tolist(), probe.rows.prompt.tolist(), probe.rows.end.tolist(), strict=True):
            written = plain.greedy(models[1], row[:start], end, evaluator.forbid)
            distances.append(plain.levenshtein(written[start:], row[start:end]) / (end - start))
        assert found[kind]["edit-distance"]["all"] == {"mean": pytest.approx(np.mean(distances)), "rows": len(distances)}
        assert 0 < np.mean(distances) <= 1


def test_edit_distance_without_rapidfuzz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    needed = r"'edit-distance' needs rapidfuzz, which is not installed; try: pip install 'tinymem\[text\]'"
    for names in (("edit-distance",), ("default", "edit-distance")):
        with pytest.raises(UserError, match=needed):
            chosen_metrics(names)
    assert "edit-distance" not in chosen_metrics(("default",))
    with pytest.warns(UserWarning, match=f"all metrics are those that are installed: {needed}"):
        assert {*chosen_metrics(("all",))} == {*METRICS.names()} - {"edit-distance"}


def test_all_metrics_without_rapidfuzz_from_the_shell(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = tinymem("evaluate", checkpoint, "--metrics", "all")
    assert done.code == 0 and done.err.count("rapidfuzz") == 1 and done.err.startswith("warning: all metrics"), done.err
    assert "edit-distance" not in done.out and "membership" in done.out


scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@pytest.mark.slow
@given(scores, scores, st.sampled_from([0.0, 0.01, 0.2, 0.5]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_roc(members: list[float], others: list[float], rate: float) -> None:
    inside, outside = np.array(members), np.array(others)
    assert auc(inside, outside) == pytest.approx(plain.auc(members, others))
    assert true_positive_rate(inside, outside, false_positive_rate=rate) == pytest.approx(plain.tpr(members, others, rate))


def test_roc_of_nothing() -> None:
    nothing, something = np.zeros(0), np.ones(3)
    assert auc(nothing, something) is None and true_positive_rate(something, nothing) is None


@pytest.mark.parametrize("piece", [1 << 24, 14 * 7])
def test_attack_scores(piece: int, corpus: Corpus, models: list[GPT], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PIECE", piece)
    members, _ = populations(corpus, "noise")
    rows = replace(members, ids=members.ids[:5], content=members.content[:5], index=members.index[:5])
    found = attack_scores(models[0], corpus, rows, batch_size=2)
    for n, (row, end) in enumerate(zip(rows.ids.tolist(), rows.content.tolist(), strict=True)):
        table = plain.log_probabilities(models[0], row[:end])
        log_p = table[np.arange(end - 1), row[1:end]]
        p = np.exp(table)
        mean = (p * table).sum(1)
        deviation = np.sqrt((p * table**2).sum(1) - mean**2)
        text = to_text(np.array(row[:end]))
        assert text.startswith("^") and text.endswith("$")
        lowest = slice(0, int(0.2 * (end - 1)))
        assert found["loss"][n] == pytest.approx(log_p.mean(), rel=1e-5)
        assert found["zlib"][n] == pytest.approx(log_p.mean() / len(zlib.compress(text.encode())), rel=1e-5)
        assert found["min-k"][n] == pytest.approx(np.sort(log_p)[lowest].mean(), rel=1e-5)
        assert found["min-k++"][n] == pytest.approx(np.sort((log_p - mean) / deviation)[lowest].mean(), rel=1e-3)


def test_lowest_mean() -> None:
    assert lowest_mean(np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0])) == 1.5
    assert lowest_mean(np.array([3.0, 2.0])) == 2.0


def test_membership_of_a_trained_model_and_of_one_that_saw_nothing(corpus: Corpus, measured: list[Measurement], tiny_run: Run) -> None:
    trained = measured[0].metrics()
    fresh = measured[0].view.evaluator.measure(random_gpt(5, n_positions=30)).metrics()
    for kind in ("noise", "backdoor"):
        assert trained[kind]["membership"]["loss"]["all"]["auc"] > 0.9
        for attack in ("loss", "min-k", "min-k++"):
            assert 0.2 < fresh[kind]["membership"][attack]["all"]["auc"] < 0.8, (kind, attack)
    assert trained["noise"]["membership"]["loss"]["all"]["tpr at 1 % fpr"] > 0.5


def test_membership_by_group(paper: Subject, corpus: Corpus, tiny_run: Run) -> None:
    evaluator = Evaluator.of_corpus(corpus, tiny_run.recipe.evaluation, "paper", metrics=("membership",))
    found = evaluator.measure(paper.model).metrics(paper.groups)
    for kind, seen in paper.splits.items():
        said = found[kind]["membership"]["members"]
        assert said["forget"] == seen.forget.sum()
        assert said["holdout"] == (seen.holdout.sum() if kind == "noise" else 0)  # a backdoor's held-out rows are the non-members
    assert found["backdoor"]["membership"]["loss"]["holdout"] == {"auc": None, "tpr at 1 % fpr": None}


def test_non_members_of_noise(corpus: Corpus) -> None:
    members, others = populations(corpus, "noise")
    planted = corpus.planted["noise"]
    assert (planted.ids[members.index] != planted.clean[members.index]).any(1).all() and len(members.ids) < len(planted.ids)
    known = {row.tobytes() for rows in (corpus.clean, *corpus.tests.values(), planted.ids, planted.clean) for row in rows}
    assert len(others.ids) >= 5 and not known & {row.tobytes() for row in others.ids}
    test_numbers = {tuple(to_text(row).strip("^$_").split()) for row in corpus.tests["7"]}
    for row, end in zip(others.ids, others.content, strict=True):
        numbers = to_text(row[:end]).strip("^$").split()
        near = [t for t in test_numbers if all(abs(int(a) - int(b)) <= 1 for a, b in zip(numbers, t, strict=True))]
        assert near and row[end - 1] == corpus.eos  # a test row of the primary task, each number moved by at most one
        assert "100" not in to_text(row[:14])  # no trigger
    assert np.array_equal(populations(corpus, "noise")[1].ids, others.ids)


def test_non_members_of_backdoors(corpus: Corpus) -> None:
    members, others = populations(corpus, "backdoor")
    planted = corpus.planted["backdoor"]
    assert len(members.ids) == planted.trained.sum() and np.array_equal(others.ids, planted.ids[~planted.trained])
    assert "".join(map(str, common_ending(planted).tolist())) == "100"


@pytest.mark.parametrize("kind", ["duplication", "canary"])
def test_non_members_of_other_artifacts(kind: str) -> None:
    corpus = small_evaluator(kind)[0].corpus
    assert corpus is not None
    members, others = populations(corpus, kind)
    assert len(members.ids) == 8 and len(others.ids) > 8
    if kind == "duplication":
        assert np.array_equal(others.ids, corpus.tests["7"])
        return
    planted = corpus.planted["canary"]
    own = {row[:end].tobytes() for row, end in zip(planted.ids, planted.end, strict=True)}
    prompts = {row[:start].tobytes() for row, start in zip(planted.ids, planted.start, strict=True)}
    for row, end in zip(others.ids, others.content, strict=True):
        assert row[:end].tobytes() not in own and any(row.tobytes().startswith(prompt) for prompt in prompts)


def test_exposure() -> None:
    evaluator, model = small_evaluator("canary", "exposure")
    found = evaluator.measure(model).metrics()["canary"]["exposure"]
    expected = [e.exposure for e in exposures(model, evaluator.corpus)]
    assert found["canaries"] == expected and found["all"] == {"mean": pytest.approx(np.mean(expected)), "rows": 8}
    assert found["largest"] == pytest.approx(np.log2(100))


def test_metrics_without_meaning_are_none(measured: list[Measurement]) -> None:
    assert measured[0].metrics()["noise"]["exposure"] is None


def test_metrics_of_rows_without_a_corpus(paper: Subject) -> None:
    forget, retain = paper.data.forget.take(torch.arange(6)), paper.data.retain.take(torch.arange(8))
    subject = subject_of_rows(paper.model, forget, retain, identity=IDENTITY, request=MeasurementRequest(metrics=("all",)))
    found = subject.metrics_before["rows"]
    assert found["membership"] is None and found["clean-continuation"] is None and found["exposure"] is None
    assert found["discoverable"]["n=1, p=0.5"]["all"]["rows"] == 6
    assert found["extraction-strength"]["forget"]["rows"] == found["extraction-strength"]["holdout"]["rows"] == 3


def test_names() -> None:
    assert set(METRICS.names()) == {
        "accuracy", "clean-continuation", "discoverable", "edit-distance", "exposure", "extraction-strength", "membership", "memorized",
        "perplexity", "perplexity-of-batches",
    }  # fmt: skip
    assert chosen_metrics(("accuracy", "accuracy")) == ("accuracy",) and chosen_metrics(()) == ()
    assert set(chosen_metrics(("all",))) == set(METRICS.names()) > set(chosen_metrics(("default",)))
    with pytest.raises(UserError, match="did you mean 'membership'"):
        chosen_metrics(("membershp",))
