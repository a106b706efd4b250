"""What a method sees and what is kept from it, under both protocols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import IDENTITY, QUICKSTART, TINY, random_gpt

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import PAD
from tinymem.errors import UserError
from tinymem.mitigation.run import Subject, mitigate, subject_of_corpus
from tinymem.mitigation.subject import _split
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.runs.pipeline import Run


def text(rows: Any) -> set[bytes]:
    return {np.asarray(row, dtype=np.uint8).tobytes() for row in rows}


def subject_of(run: Run, **changes: Any) -> tuple[Subject, Corpus]:
    values = run.recipe.model_dump(mode="json")
    seed = changes.pop("seed", run.recipe.seed)
    recipe = Recipe.model_validate({**values, "mitigation": {**values["mitigation"], **changes}}).model_copy(update={"seed": seed})
    return subject_of_corpus(run.model(), run.corpus(), recipe, identity=IDENTITY), run.corpus()


def seen_rows(subject: Subject, corpus: Corpus, kind: str, part: str) -> set[bytes]:
    flags = getattr(subject.splits[kind], part)
    return text(corpus.planted[kind].ids[subject.evaluator.probes[kind].index[flags]])


def test_noise_is_split_in_halves(tiny_run: Run, paper: Subject) -> None:
    seen, memorized = paper.splits["noise"], paper.before.memorized["noise"]
    assert memorized.sum() >= 2
    assert not (seen.forget & seen.holdout).any() and ((seen.forget | seen.holdout) == memorized).all()
    assert seen.forget.sum() == round(memorized.sum() / 2)
    again, _ = subject_of(tiny_run)
    assert (again.splits["noise"].forget == seen.forget).all()
    others = [subject_of(tiny_run, seed=seed)[0].splits["noise"] for seed in range(1, 6)]
    assert any((other.forget != seen.forget).any() for other in others)
    assert all(other.forget.sum() == seen.forget.sum() for other in others)


@pytest.mark.parametrize("fraction", [0.2, 1.0])
def test_forget_fraction(tiny_run: Run, fraction: float) -> None:
    subject, _ = subject_of(tiny_run, forget_fraction=fraction)
    memorized = subject.before.memorized["noise"].sum()
    assert subject.splits["noise"].forget.sum() == round(fraction * memorized)
    assert subject.splits["noise"].holdout.sum() == memorized - round(fraction * memorized)


def test_backdoors_seen_are_trained_and_kept_are_test_rows(tiny_run: Run, paper: Subject) -> None:
    corpus, probe, seen = tiny_run.corpus(), paper.evaluator.probes["backdoor"], paper.splits["backdoor"]
    memorized = paper.before.memorized["backdoor"]
    assert (seen.forget == (memorized & probe.trained)).all() and seen.forget.any()
    assert (seen.holdout == (memorized & ~probe.trained)).all() and seen.holdout.any()
    assert seen_rows(paper, corpus, "backdoor", "forget") <= text(corpus.training_rows()[0])


def test_held_out_rows_are_in_no_training_set() -> None:
    for seed in range(4):
        corpus = make_corpus(load_recipe(QUICKSTART, [*TINY, f"seed={seed}"]))
        trained = text(corpus.training_rows()[0])
        for kind, planted in corpus.planted.items():
            assert not text(planted.ids[~planted.trained]) & trained, f"held-out {kind} rows are trained on with seed {seed}"


def test_forget_rows_are_the_planted_rows_without_padding(tiny_run: Run, paper: Subject) -> None:
    corpus, forget = tiny_run.corpus(), paper.data.forget
    index = {kind: paper.evaluator.probes[kind].index[paper.splits[kind].forget] for kind in ("noise", "backdoor")}
    expected = np.concatenate([corpus.planted[kind].ids[rows] for kind, rows in index.items()])
    assert len(forget) == len(expected) > 3 and (forget.ids.numpy() == expected).all()
    for ids, prompt, end in zip(forget.ids, forget.prompt.tolist(), forget.end.tolist(), strict=True):
        assert (ids[end:] == PAD).all() and ids[end - 1] != PAD and 0 < prompt < end
    noise = int(paper.splits["noise"].forget.sum())
    assert (forget.prompt[:noise] == 12).all()
    assert forget.prompt[noise:].tolist() == corpus.planted["backdoor"].start[index["backdoor"]].tolist()


def test_one_artifact_only(tiny_run: Run) -> None:
    subject, corpus = subject_of(tiny_run, forget="noise")
    assert not subject.splits["backdoor"].forget.any() and not subject.splits["backdoor"].holdout.any()
    assert text(subject.data.forget.ids) == seen_rows(subject, corpus, "noise", "forget")
    row = mitigate(subject, "act", {"ratio": 0.1}).rows[1]
    assert row["artifact"] == "backdoor" and row["rows_forget"] == 0 and row["forget_memorized_after"] is None
    assert row["memorized_before"] > 0.5 and row["memorized_after"] is not None


def test_an_artifact_that_is_not_there(tiny_run: Run) -> None:
    recipe = load_recipe(QUICKSTART, [*TINY, "mitigation.forget=noise"])
    corpus = tiny_run.corpus()
    del corpus.planted["noise"]
    with pytest.raises(UserError, match="artifact 'noise'"):
        subject_of_corpus(tiny_run.model(), corpus, recipe, identity=IDENTITY)


BACKDOOR = "artifacts=[{kind: backdoor, test_fraction: 0.25, trigger: '10'}]"
NOISE = "artifacts=[{kind: noise, rows: 24, probability: 0.3}]"
FAMILIES = {"additive": [], "multiplicative": ["data.family=multiplicative", "data.modulus=997"]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("protocol", "artifacts"), [("paper", None), ("reference", NOISE), ("reference", BACKDOOR)])
def test_retain_rows_hold_no_artifact_and_no_twin(family: str, protocol: str, artifacts: str | None) -> None:
    changes = [*TINY, *FAMILIES[family], "artifacts.backdoor.trigger='10'", f"protocol={protocol}"]
    recipe = load_recipe(QUICKSTART, [*changes, *([artifacts] if artifacts else [])])
    corpus = make_corpus(recipe)
    model = random_gpt(n_positions=corpus.row_tokens, n_layer=1, n_embd=8)
    retain = text(subject_of_corpus(model, corpus, recipe, identity=IDENTITY).data.retain.ids)
    assert len(retain) > 100 and corpus.planted
    for planted in corpus.planted.values():
        assert not retain & text(planted.ids), "a planted row is among the retain rows"
        assert not retain & text(planted.clean), "the twin of a planted row is among the retain rows"
    if protocol == "paper":  # in the published corpus, tasks share rows
        assert not retain & text(np.concatenate(list(corpus.tests.values()))), "a test row is among the retain rows"


def test_a_sample_of_a_long_text_is_kept_and_all_of_it_trains_further(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that weigh rows to keep see a sample; "extra" fine-tuning is on all data but the artifacts (paper, section 3.2)."""
    monkeypatch.setattr("tinymem.mitigation.subject.MAXIMUM_RETAIN", 100)
    subject, corpus = subject_of(tiny_run)
    assert len(subject.data.retain) == 100 < len(corpus.clean)
    assert text(subject.data.retain.ids) < text(corpus.clean)
    seen: list[Any] = []
    monkeypatch.setattr("tinymem.mitigation.methods.finetuning._common.logits", lambda model, ids: seen.append(ids) or model(ids))
    assert mitigate(subject, "finetune-extra", {"epochs": 1}).rows[0]["status"] == "ok"
    assert sorted(map(bytes, np.concatenate(seen).astype(np.uint8))) == sorted(map(bytes, corpus.clean))


@pytest.mark.parametrize(("memorized", "shown"), [(0, 0), (1, 1), (2, 1), (4, 2)])
def test_a_single_memorized_row_is_shown(tiny_run: Run, paper: Subject, memorized: int, shown: int) -> None:
    probe = paper.evaluator.probes["noise"]
    seen = _split(probe, np.arange(len(probe)) < memorized, tiny_run.recipe, True)
    assert (seen.forget.sum(), seen.holdout.sum()) == (shown, memorized - shown)


def test_twins_of_held_out_rows_are_held_out(tiny_run: Run, paper: Subject) -> None:
    corpus, twins = tiny_run.corpus(), text(paper.data.clean_counterparts.ids)
    for kind, planted in corpus.planted.items():
        index = paper.evaluator.probes[kind].index
        assert not twins & text(planted.clean[index[paper.splits[kind].holdout]])
        assert text(planted.clean[index[paper.splits[kind].forget]]) <= twins
        assert not twins & text(planted.clean[~planted.trained])


def test_reference_sees_all_memorized_rows(tiny_run: Run) -> None:
    values = tiny_run.recipe.model_dump(mode="json")
    recipe = Recipe.model_validate({**values, "protocol": "reference"})
    subject = subject_of_corpus(tiny_run.model(), tiny_run.corpus(), recipe, identity=IDENTITY)
    for kind, seen in subject.splits.items():
        assert (seen.forget == subject.before.memorized[kind]).all() and not seen.holdout.any()
    assert subject.splits["backdoor"].forget.any() and subject.identity.protocol == "reference"
    row = mitigate(subject, "act", {"ratio": 0.1}).rows[1]
    assert row["rows_holdout"] == 0 and row["holdout_memorized_before"] is None and row["forget_memorized_before"] == 1


@pytest.mark.parametrize("method", ["finetune-clean", "finetune-both"])
def test_without_clean_counterparts_a_fine_tuning_on_them_is_refused(paper: Subject, method: str) -> None:
    """It did not go wrong: a corpus of duplications or canaries alone has none."""
    rows = mitigate(replace(paper, data=replace(paper.data, clean_counterparts=None)), method, {}, progress=False).rows
    assert [row.status for row in rows] == ["refused", "refused"]
    assert str(rows[0].message).startswith("expected clean versions of the artifact rows, got rows without")
