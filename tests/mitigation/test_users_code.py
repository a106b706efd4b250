"""What users' methods and metrics may do and return: other libraries' numbers, NaN, errors, and changes of the model they are given."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import QUICKSTART, SMALLER, random_gpt, tinymem
from torch import nn

from tinymem import MethodConfig, Properties, Scores, editor, metric, scorer
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.evaluation.metric import METRICS
from tinymem.mitigation.ablation import AblationConfig, ModelChanged
from tinymem.mitigation.method import UNLEARNERS, parse_call
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, mitigate, outcome_of, row_id, subject_of_rows
from tinymem.mitigation.sweep_scores import shared_edits
from tinymem.models.adapters import mlp_parameters, neuron_layers, vocabulary_of
from tinymem.recipe.recipe import load_recipe
from tinymem.results.row import Identity
from tinymem.runs import pipeline

EDITS = Properties(unit="model", order="zeroth")


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    with UNLEARNERS.temporary(), METRICS.temporary():
        yield


def subject(*metrics: str) -> Subject:
    rows = torch.randint(2, 12, (8, 12), generator=torch.Generator().manual_seed(0))
    model = random_gpt(scale=3.0)
    return subject_of_rows(model, Rows.of(rows[:4], 4), Rows.of(rows[4:], 4), request=MeasurementRequest(metrics))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (torch.tensor(0.25), 0.25),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        ({"all": np.int64(3), 7: torch.tensor([1, 2])}, {"all": 3, "7": [1, 2]}),
        ((np.array([[0.5]]), None), [[[0.5]], None]),
    ],
)
def test_numbers_of_other_libraries(value: object, stored: object) -> None:
    metric("mine")(lambda view, kind: value)
    row = mitigate(subject("mine"), "random-neurons", {"ratio": 0.1}).rows[0]
    assert row.metrics_before == row.metrics_after == {"mine": stored}
    json.dumps(row.as_dict(), allow_nan=False)


@pytest.mark.parametrize("gap", [float("nan"), np.float32("inf"), torch.tensor(float("nan"))])
@pytest.mark.parametrize("per", ["artifact", "model"])
def test_what_is_no_number_is_null_and_said(gap: object, per: Any) -> None:
    metric("mine", per=per)(lambda view, *kind: {"all": {"share": gap, "rows": 3}})
    with pytest.warns(UserWarning, match=r"the metric 'mine'.* is NaN or infinite at all\.share; stored as null"):
        measured = subject("mine")
    assert measured.metrics_before["rows"] == {"mine": {"all": {"share": None, "rows": 3}}}


def test_what_json_cannot_hold_is_said_before_any_method() -> None:
    metric("mine")(lambda view, kind: {"all": [object()]})
    with pytest.raises(UserError, match=r"the metric 'mine' failed on rows: TypeError: JSON has no object \(at \.all\[0\]\)"):
        subject("mine")


def test_a_metric_that_fails_after_the_edit_costs_nothing_else() -> None:
    def fragile(view: Any, kind: str) -> float:
        if not next(view.model.parameters()).any():
            raise ZeroDivisionError("nothing is left")
        return 1.0

    metric("mine")(fragile)
    metric("other")(lambda view, kind: 2.0)
    editor("eraser", config=MethodConfig, properties=EDITS)(lambda model, data, config: erased(model))
    with pytest.warns(UserWarning, match="the metric 'mine' failed on rows: ZeroDivisionError: nothing is left; stored as null"):
        outcome = mitigate(subject("mine", "other"), "eraser", {})
    (row,) = outcome.rows
    assert row.is_ok and row.metrics_before == {"mine": 1.0, "other": 2.0} and row.metrics_after == {"mine": None, "other": 2.0}


def leaves(*_: object) -> Any:
    sys.exit(3)


LEFT = r"to return or to raise an error, got SystemExit: 3 \(test_users_code\.py, line \d+\); take its sys\.exit\(\) out"


def test_a_method_that_exits_fails_and_does_not_end_the_process() -> None:
    editor("goer", config=MethodConfig, properties=EDITS)(leaves)
    scorer("go-scorer", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))(leaves)
    measured = subject()
    (row,) = mitigate(measured, "goer", {}).rows
    assert row.status == "failed" and re.fullmatch(f"expected goer {LEFT}", row.message or "")
    for name, options in (("goer", [{}]), ("go-scorer", [{"ratio": 0.1}, {"ratio": 0.2}])):
        configs = [parse_call(name, o).config for o in options]
        edits = list(shared_edits(measured.model, UNLEARNERS.get(name), measured.data, configs, lambda *_: None))
        assert len(edits) == len(options) and all(re.fullmatch(f"expected {name} {LEFT}", str(edit.result)) for edit in edits)


def test_scores_are_of_the_unit_that_the_properties_say() -> None:
    method = scorer("mine", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))
    method(lambda model, data, config: Scores("weight", {name: p.detach() for name, p in mlp_parameters(model).items()}))
    (row,) = mitigate(subject(), "mine", {"ratio": 0.1}).rows
    assert row.message == "expected scores of each neuron from mine, as its Properties say, got weight"


def test_a_metric_that_exits_is_an_error() -> None:
    metric("mine")(leaves)
    with pytest.raises(UserError, match=f"^expected the metric 'mine' {LEFT}$"):
        subject("mine")


def erased(model: nn.Module) -> nn.Module:
    other = random_gpt()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    return other


def test_a_measurement_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = subject()

    def failing(*arguments: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(type(measured.evaluator), "measure", failing)
    outcome = mitigate(measured, "random-neurons", {"ratio": 0.1})
    assert [(row.status, row.message) for row in outcome.rows] == [("failed", "torch.OutOfMemoryError: no memory")]


@dataclass(frozen=True, kw_only=True)
class Numbers(AblationConfig):
    """Options whose defaults are NumPy's."""

    ratio: float = np.float32(0.25)  # type: ignore[assignment]
    steps: int = np.int64(2)  # type: ignore[assignment]


def test_scores_and_options_of_numpy() -> None:
    def of_arrays(model: nn.Module, data: object, config: Numbers) -> Scores:
        return Scores("neuron", {layer.weight_name: np.arange(layer.neurons) for layer in neuron_layers(model)})  # type: ignore[misc]

    scorer("arrays", config=Numbers, properties=Properties(unit="neuron", order="zeroth"))(of_arrays)
    call = parse_call("arrays", {})
    assert row_id(Identity(), call, "all")
    (row,) = mitigate(subject(), "arrays", {}).rows
    assert row.is_ok and row.edited_parameters and row.config is not None and type(row.config["steps"]) is int
    json.dumps(row.as_dict(), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Places(AblationConfig):
    """Options that are no numbers or words of JSON."""

    ratio: float = 0.25
    rows: Path = Path("rows.npy")
    others: tuple[Path, ...] = ()


def test_an_id_follows_what_files_hold(tmp_path: Path) -> None:
    """A resumed run whose options name a file would else show the numbers of what the file held before."""
    method = scorer("held", config=Places, properties=Properties(unit="neuron", order="zeroth"))
    method(lambda model, data, config: Scores("neuron", {}))
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "folder"
    folder.mkdir()

    def ids() -> tuple[str, ...]:
        named: list[tuple[str, dict[str, Any]]] = [
            ("held", {"rows": str(rows)}), ("held", {"others": ["none", str(rows)]}), ("held", {"others": [str(folder)]}),
            ("kfac", {"rows": str(rows)}), ("svd", {"rows": str(rows)}), ("act", {}),
        ]  # fmt: skip
        return tuple(row_id(Identity(), parse_call(name, options), "all") for name, options in named)

    absent = ids()
    rows.write_text('{"ids": [1, 2]}\n')
    (folder / "a").write_text("1")
    there = ids()
    rows.write_text('{"ids": [2, 1]}\n')
    (folder / "a").rename(folder / "b")
    assert [len({*of}) for of in zip(absent, there, ids(), strict=True)] == [3, 3, 3, 3, 3, 1]


def test_paths_as_options(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[object] = []

    def of_files(model: nn.Module, data: object, config: Places) -> Scores:
        seen.extend([config.rows, *config.others])
        return Scores("neuron", {layer.weight_name: torch.arange(layer.neurons) for layer in neuron_layers(model)})

    scorer("files", config=Places, properties=Properties(unit="neuron", order="zeroth"))(of_files)
    call, default = parse_call("files", {"rows": "a/b.npy", "others": ["c"]}), parse_call("files", {})
    assert row_id(Identity(), call, "all") != row_id(Identity(), default, "all")
    assert parse_call("files", call.config.as_json()) == call, "as a worker of a sweep gets it"
    (row,) = mitigate(subject(), "files", {"rows": "a/b.npy", "others": ["c"]}).rows
    assert row.is_ok and seen == [Path("a/b.npy"), Path("c")]
    assert row.config is not None and row.config["rows"] == "a/b.npy" and row.options == {"ratio": 0.25, "rows": "a/b.npy", "others": ["c"]}
    assert len(list(shared_edits(random_gpt(), call.method, subject().data, [call.config, default.config]))) == 2
    done = tinymem("mitigate", checkpoint, "--method", "files", "--rows", "d.npy", "--out", tmp_path / "edited", "--format", "json")
    assert json.loads(done.out)[0]["config"]["rows"] == "d.npy", done.err
    assert tinymem("evaluate", tmp_path / "edited").code == 0


def test_options_that_no_row_can_hold_are_refused_before_the_work() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(MethodConfig):
        chosen: frozenset[int] = frozenset()

    editor("odd", config=Odd, properties=EDITS)(lambda model, data, config: model)
    with pytest.raises(UserError, match="expected options that JSON can hold, or paths, got a frozenset"):
        parse_call("odd", {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_options_are_finite(value: float) -> None:
    with pytest.raises(UserError, match=r"expected .*ratio"):
        parse_call("random-neurons", {"ratio": value})
    with pytest.raises(UserError, match=f"expected a finite number as option 'learning_rate', got {value}"):
        parse_call("finetune-clean", {"learning_rate": value})


def scale(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    return model


def scale_unseen(model: nn.Module) -> nn.Module:
    next(model.parameters()).data.mul_(0.5)
    return random_gpt()


def swap(model: nn.Module) -> nn.Module:
    weight = next(model.parameters())
    weight.data = weight.data.flip(0)
    return random_gpt()


def put_another(model: Any) -> nn.Module:
    model.transformer.wte.weight = nn.Parameter(model.transformer.wte.weight.detach() * 2)
    return random_gpt()


def cast(model: nn.Module) -> nn.Module:
    model.half().float()
    return random_gpt()


def hook(model: nn.Module) -> nn.Module:
    model.register_forward_hook(lambda module, inputs, output: output * 0)
    return random_gpt()


def fail_halfway(model: nn.Module) -> nn.Module:
    scale(model)
    raise ArithmeticError("half done")


CHANGES = [scale, scale_unseen, swap, put_another, cast, hook, fail_halfway]


@pytest.mark.parametrize("change", CHANGES)
def test_a_method_that_changes_its_model_is_refused(change: Callable[[nn.Module], nn.Module]) -> None:
    editor("careless", config=MethodConfig, properties=EDITS)(lambda model, data, config: change(model))
    measured = subject()
    outcome = mitigate(measured, "careless", {})
    assert outcome.model is None and isinstance(outcome.error, ModelChanged)
    assert [row.status for row in outcome.rows] == ["refused"] and outcome.rows[0].memorized_after is None
    expected = "expected careless to leave the model it is given as it is, got "
    assert (outcome.rows[0].message or "").startswith(expected) and "deepcopy" in str(outcome.error)
    with pytest.raises(UserError, match="changed since; load it again"):
        mitigate(measured, "random-neurons", {"ratio": 0.1})


def test_so_is_a_scorer_in_a_shared_pass() -> None:
    def careless(model: nn.Module, data: object, config: AblationConfig) -> Scores:
        scale(model)
        return Scores("neuron", {layer.weight_name: torch.arange(layer.neurons) for layer in neuron_layers(model)})

    scorer("careless", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))(careless)
    measured = subject()
    calls = [parse_call("careless", {"ratio": ratio}) for ratio in (0.1, 0.2)]
    edits = list(shared_edits(measured.model, calls[0].method, measured.data, [call.config for call in calls]))
    outcomes = [outcome_of(measured, call, edit.result) for call, edit in zip(calls, edits, strict=True)]
    assert [outcome.rows[0].status for outcome in outcomes] == ["refused", "refused"]


def test_a_metric_that_changes_the_model_is_refused() -> None:
    metric("careless")(lambda view, kind: float(next(scale(view.model).parameters()).sum()))
    with pytest.raises(UserError, match=r"expected metrics that leave the model as it is, got 'transformer\.wte\.weight' changed by"):
        subject("careless")


@pytest.mark.thorough
@pytest.mark.training
def test_the_next_method_of_a_run_gets_a_sound_model(tmp_path: Path) -> None:
    plugin = tmp_path / "careless.py"
    plugin.write_text(
        "import torch\nfrom tinymem import MethodConfig, Properties, editor\n"
        "@editor('careless', config=MethodConfig, properties=Properties(unit='model', order='zeroth'))\n"
        "def careless(model, data, config):\n"
        "    with torch.no_grad(): next(model.parameters()).zero_()\n    return model\n"
    )
    methods = "mitigation.methods=[{random-neurons: {ratio: 0.1}}, careless, {random-neurons: {ratio: 0.2}}]"
    overrides = [*SMALLER, "artifacts.backdoor.copies=30", "model.n_embd=48", "training.epochs=6", methods, f"plugins=[{plugin}]"]
    run = pipeline.run(load_recipe(QUICKSTART, overrides), runs=tmp_path / "runs", device="cpu", report=False)
    first, careless, last = (next(row for row in run.rows if row.source.startswith(name)) for name in dict.fromkeys(r.id for r in run.rows))
    assert (first.status, careless.status, last.status) == ("ok", "refused", "ok")
    assert first.performance_before == last.performance_before
    done = tinymem("mitigate", run.checkpoint, "--plugin", plugin, "--method", "careless", "--out", tmp_path / "edited")
    assert "expected careless to leave the model" in done.last_line_error() and not (tmp_path / "edited").exists()


@pytest.mark.parametrize(
    ("prompt", "end", "ids", "message"),
    [
        (0, 12, slice(0, 4), "expected 1 <= prompt < end <= 12 (the tokens of row 0), got prompt 0 and end 12"),
        (12, 12, slice(0, 4), "got prompt 12 and end 12"),
        (4, 13, slice(0, 4), "got prompt 4 and end 13"),
        (4, 12, slice(0, 0), "expected some rows to forget, got none"),
    ],
)
def test_rows_that_cannot_be_tested(prompt: int, end: int, ids: slice, message: str) -> None:
    rows = torch.randint(2, 12, (8, 12), generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=re.escape(message)):
        subject_of_rows(random_gpt(), Rows.of(rows[ids], prompt, end), Rows.of(rows[4:], 4))


@pytest.mark.parametrize("wrong", [99, -1])
def test_ids_that_the_model_does_not_have(wrong: int) -> None:
    rows = torch.randint(2, 12, (8, 12), generator=torch.Generator().manual_seed(0))
    strange = rows.clone()
    strange[0, 7] = wrong
    said = f"expected token ids from 0 to {vocabulary_of(random_gpt()) - 1} .*, got {wrong}; is it this model's tokenizer"
    for forget, retain in ((strange, rows), (rows, strange)):
        with pytest.raises(UserError, match=said):
            subject_of_rows(random_gpt(), Rows.of(forget[:4], 4), Rows.of(retain, 4))


def test_rows_are_whole_numbers_in_two_dimensions() -> None:
    for ids in (torch.zeros(3), np.zeros(3, int), np.zeros((2, 3, 4), np.uint8)):
        with pytest.raises(UserError, match=r"expected token ids of shape \[rows, tokens\], got the shape \[\d"):
            Rows.of(ids)
    for fractions in (torch.full((2, 3), 1.5), np.full((2, 3), 0.5), np.full((2, 3), np.nan)):
        with pytest.raises(UserError, match="expected whole numbers as token ids, got fractions in"):
            Rows.of(fractions)
    assert Rows.of(np.array([[1, 2]], np.uint8)).ids.tolist() == Rows.of(torch.tensor([[1, 2]])).ids.tolist()


def test_an_edit_without_memory_is_refused() -> None:
    whole = subject()
    found = outcome_of(whole, parse_call("random-weights", {}), copy.deepcopy(whole.model).to("meta"))
    assert "without memory (device meta)" in str(found.error) and found.model is None
