"""The columns of a result row: rates and counts, refused and failed methods, ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.edit_size import change
from tinymem.mitigation.method import UNLEARNERS, Properties, editor, parse_call
from tinymem.mitigation.run import Subject, mitigate, row_id
from tinymem.models.gpt2 import GPT
from tinymem.models.weights import weights_id
from tinymem.results.read import as_json
from tinymem.results.row import Identity
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import canonical_json


@dataclass(frozen=True, kw_only=True)
class Nothing(MethodConfig):
    """No options."""

    how: str = ""


@pytest.fixture
def spoiler() -> Iterator[str]:
    """A method that goes wrong in the way that it is asked for."""

    with UNLEARNERS.temporary():

        @editor("spoiler", config=Nothing, properties=Properties(unit="model", order="zeroth"))
        def spoil(model: nn.Module, data: Any, config: Nothing) -> nn.Module:
            if config.how == "raise":
                raise ZeroDivisionError("no luck")
            if config.how == "complain":
                raise UserError("expected luck, got none")
            edited = GPT(model.config, seed=9).eval()
            with torch.no_grad():
                edited.transformer.wte.weight.mul_({"nan": torch.nan, "huge": 1e30}.get(config.how, 1.0))
            return edited

        yield "spoiler"


def test_a_row_says_what_was_to_be_forgotten_and_of_which_weights(tiny_run: Run) -> None:
    found = {(row["forget"], row["forget_fraction"], row["weights"]) for row in tiny_run.rows}
    assert found == {("all", 0.5, weights_id(tiny_run.checkpoint))}


def test_rates_and_counts_by_hand(paper: Subject) -> None:
    outcome = mitigate(paper, "act", {"ratio": 0.05}, row="r")
    after = paper.evaluator.measure(outcome.model)
    assert [row["artifact"] for row in outcome.rows] == ["noise", "backdoor"]
    assert any(row["memorized_after"] != row["memorized_before"] for row in outcome.rows)
    for row in outcome.rows:
        kind = row["artifact"]
        split, probe = paper.splits[kind], paper.evaluator.probes[kind]
        assert (row["rows_scored"], row["rows_forget"], row["rows_holdout"]) == (len(probe), split.forget.sum(), split.holdout.sum())
        for when, flags in (("before", paper.before.memorized[kind]), ("after", after.memorized[kind])):
            assert row[f"memorized_count_{when}"] == flags.sum()
            assert row[f"memorized_{when}"] == flags.sum() / len(flags)
            assert row[f"forget_memorized_{when}"] == flags[split.forget].sum() / split.forget.sum()
            assert row[f"holdout_memorized_{when}"] == flags[split.holdout].sum() / split.holdout.sum()
            if kind == "noise":
                clean = ~probe.prompt_changed
                assert row[f"memorized_clean_prompt_{when}"] == flags[clean].sum() / clean.sum()
                assert row[f"memorized_noised_prompt_{when}"] == flags[~clean].sum() / (~clean).sum()
        assert row["performance_metric"] == "accuracy" and row["performance_before"] == paper.before.accuracy.share
        assert row["performance_after"] == after.accuracy.share and row["performance_ceiling"] == paper.evaluator.ceiling.share
        counted = (row["performance_tokens"], row["performance_count_before"], row["performance_count_after"])
        assert counted == (after.accuracy.rows, paper.before.accuracy.count, after.accuracy.count)
        assert row["forget_memorized_before"] == row["holdout_memorized_before"] == 1
        assert (row["edited_parameters"], row["edit_norm"]) == change(paper.model, outcome.model)
        assert row["seconds"] > 0 and row["peak_mb"] > 0 and row["id"] == "r" and row["config"]["ratio"] == 0.05


def test_change_by_hand() -> None:
    before, after = nn.Linear(2, 2), nn.Linear(2, 2)
    after.load_state_dict(before.state_dict())
    assert change(before, after) == (0, 0.0)
    with torch.no_grad():
        after.weight[0, 1] += 3
        after.bias[1] -= 4
    assert change(before, after) == (2, pytest.approx(5.0))


def test_refused(paper: Subject) -> None:
    outcome = mitigate(paper, "act", {"ratio": 1e-6})
    assert outcome.model is None and {row["status"] for row in outcome.rows} == {"refused"}
    for row in outcome.rows:
        assert "smallest that acts" in row["message"] and row["memorized_before"] is not None
        assert row["memorized_after"] is None and row["edited_parameters"] is None and row["seconds"] is None


@pytest.mark.parametrize(("how", "message"), [("raise", "ZeroDivisionError: no luck"), ("complain", "expected luck, got none")])
def test_failed(paper: Subject, spoiler: str, how: str, message: str) -> None:
    outcome = mitigate(paper, spoiler, {"how": how})
    assert outcome.model is None and outcome.error is not None
    assert [(row["status"], row["message"]) for row in outcome.rows] == [("failed", message)] * 2
    assert set(outcome.rows[0]) == set(mitigate(paper, spoiler, {}).rows[0])


@pytest.mark.parametrize("how", ["nan", "huge"])
def test_an_edit_that_breaks_the_model_still_gives_json(paper: Subject, spoiler: str, how: str) -> None:
    outcome = mitigate(paper, spoiler, {"how": how})
    canonical_json(as_json(outcome.rows))  # refuses NaN and infinity
    assert how != "nan" or ({row["status"] for row in outcome.rows} == {"failed"} and "NaN" in outcome.rows[0]["message"])


def test_unknown_method_and_option(paper: Subject) -> None:
    with pytest.raises(UserError, match="did you mean 'durable'"):
        mitigate(paper, "durabel", {})
    with pytest.raises(UserError, match="did you mean 'ratio'"):
        mitigate(paper, "act", {"rato": 0.1})


def test_row_ids_are_stable_and_distinct() -> None:
    identity = Identity(model_id="m", corpus_sha256="c", seed=0, protocol="paper", device_type="cpu", device="cpu (2 threads)")

    def id_of(name: str = "act", forget: Any = "all", options: dict[str, Any] | None = None, **changes: Any) -> str:
        return row_id(replace(identity, **changes), parse_call(name, options or {}), forget)

    assert id_of() == id_of(device="cpu (64 threads)", run="elsewhere") == id_of(options={"ratio": 0.05}) and len(id_of()) == 16
    others = [
        id_of("durable"), id_of(forget="noise"), id_of(options={"ratio": 0.1}), id_of(options={"mode": "abs_mean"}), id_of(seed=1),
        id_of(model_id="n"), id_of(corpus_sha256="d"), id_of(protocol="reference"), id_of(device_type="cuda"),
    ]  # fmt: skip
    assert len({id_of(), *others}) == 1 + len(others)


def test_a_row_that_was_computed_otherwise_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def id_of(name: str, device: str, data: str | None = "additive", **options: Any) -> str:
        return row_id(Identity(model_id="m", device_type=device, data=data), parse_call(name, options), "all")

    def ids(device: str) -> list[str]:
        return [id_of("finetune-extra", device), id_of("balanced-subnet", device), id_of("balanced-subnet", device, precision="fp32")]

    on_gpu, on_cpu, elsewhere = ids("cuda"), ids("cpu"), id_of("finetune-extra", "cuda", data=None)
    precision = "tinymem.mitigation.methods.finetuning._common.precision_on_gpus"
    monkeypatch.setattr(precision, lambda: None)  # as before fine-tunings took training's precision
    monkeypatch.setattr("tinymem.mitigation.methods.weight._learned_mask.AUTO_ON_GPU", "tf32")
    assert [new != old for new, old in zip(ids("cuda"), on_gpu, strict=True)] == [True, True, False]
    assert ids("cpu") == on_cpu and id_of("finetune-extra", "cuda", data=None) == elsewhere  # others' models are trained in their own type


def test_a_gpu_without_bf16_does_not_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_call("finetune-extra", {}).config
    assert config.computed_in("cuda", ours=True) == "bf16", "planned without a GPU, for one that has bf16"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for there, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda there=there, **_: there)
        assert config.computed_in("cuda", ours=True) == expected and config.computed_in("cpu", ours=True) is None


def test_a_budget_judged_by_rows_of_ones_own_number_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are chosen otherwise since the default number changed; rows of the default, and those without a budget, keep their ids."""

    def ids() -> list[str]:
        given: list[dict[str, Any]] = [{"judged": 300, "budget": 0.5}, {"judged": 200, "budget": 0.5}, {"budget": 0.5}, {"judged": 300}, {}]
        return [row_id(Identity(model_id="m"), parse_call("kfac", options), "all") for options in given]

    now = ids()
    assert len({*now}) == len(now)
    monkeypatch.setattr("tinymem.mitigation.methods.curvature._common.JUDGED_EPOCH", 0)
    before = ids()
    assert [new != old for new, old in zip(now, before, strict=True)] == [True, True, False, False, False]


def test_rows_of_16_bits_have_an_epoch_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def ids() -> list[str]:
        call = parse_call("finetune-extra", {})
        return [row_id(Identity(model_id="m", dtype=dtype), call, "all") for dtype in (None, "float32", "bfloat16")]

    unset, full, half = ids()
    assert unset == full != half
    monkeypatch.setattr("tinymem.mitigation.run.EPOCH_OF_16_BITS", 0)
    assert ids()[:2] == [unset, full] and ids()[2] != half


def test_ids_of_a_run_are_distinct(tiny_run: Run) -> None:
    ids = [row["id"] for row in tiny_run.rows]
    assert len(ids) == 8 and len(set(ids)) == 4
    assert {path.stem for path in (tiny_run.path / "results").iterdir()} == set(ids)
