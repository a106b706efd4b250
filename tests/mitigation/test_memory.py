"""The estimate of what measuring and editing a model take, and that what cannot fit is refused before the model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import ROOT, python, random_gpt

from tinymem.data.own_rows import RowFiles
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.memory import WORKING, Workload, _scoring, workload_of
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply, parse_call
from tinymem.mitigation.methods.weight.greedy import GreedyConfig, _Removal
from tinymem.mitigation.subject import MAXIMUM_RETAIN
from tinymem.models.adapters import mlp_parameters
from tinymem.models.checkpoint import bytes_of, load_checkpoint
from tinymem.models.families import FAMILIES
from tinymem.recipe.sizes import clean_rows
from tinymem.runs.checkpoint import mitigate_checkpoint
from tinymem.runs.evaluate import evaluate_checkpoint
from tinymem.runs.pipeline import Run
from tinymem.testing import tiny_case

# Each edit in a process of its own, forked from one that has done a tiny one: bytes by which the peak exceeds what was there.
PEAKS = """
import os, tinymem, torch
from tinymem.data.rows import Rows
from tinymem.mitigation.memory import Workload
from tinymem.mitigation.method import parse_call
from tinymem.mitigation.run import run_call, subject_of_rows
from tinymem.models.gpt2 import GPT, GPTConfig

def status(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

def edited(calls, layers, width, tokens):
    model = GPT(GPTConfig(vocab_size=14, n_positions=tokens, n_layer=layers, n_embd=width, n_head=4), seed=0)
    ids = torch.randint(14, (128, tokens))
    subject = subject_of_rows(model, Rows.of(ids[:64], prompt=8), Rows.of(ids[64:], prompt=8))
    assert all(run_call(subject, call).model is not None for call in calls)
    return model

torch.set_num_threads(1)
options = {"act": {}, "balanced-subnet": {"epochs": 1}, "npo": {"epochs": 1}}
calls = [parse_call(name, values) for name, values in options.items()]
edited(calls, 1, 16, 20)
for chosen in ([], *([call] for call in calls)):
    if not (child := os.fork()):
        open("/proc/self/clear_refs", "w").write("5")
        before = status("VmRSS")
        model = edited(chosen, 2, 512, 30)
        print(Workload(30).editing(model, chosen), status("VmHWM") - before, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="needs Linux's /proc")
def test_the_estimates_are_right_within_a_third() -> None:
    """Of measuring alone, and of a scorer of neurons, a learned mask and a baseline."""
    lines = [tuple(map(int, line.split())) for line in python("-W", "ignore", "-c", PEAKS).out.splitlines()]
    assert len(lines) == 4
    for estimate, peak in lines:
        assert 0.7 < estimate / peak < 1.3, f"{estimate / 2**20:.0f} MiB, in truth {peak / 2**20:.0f}"


def test_a_method_that_does_not_fit_is_refused_and_another_runs(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = parse_call("act", {"ratio": 0.05}), parse_call("balanced-subnet", {"batch_size": 10_000})
    workload, model = workload_of(tiny_run.checkpoint, RowFiles(), "cpu"), tiny_run.model()
    assert workload.tokens == tiny_run.recipe.data.row_tokens and workload.rows < tiny_run.recipe.evaluation.batch_size
    assert bytes_of(model) < workload.measuring(model) <= workload.editing(model, [small]) < workload.editing(model, [small, large])
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: workload.editing(model, [small]))
    mitigate_checkpoint(tiny_run.checkpoint, small, device="cpu", progress=False)
    with pytest.raises(UserError, match=r"expected room for the model in .* and what is done with it in the memory of this machine"):
        mitigate_checkpoint(tiny_run.checkpoint, [small, large], device="cpu", progress=False)
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: bytes_of(model))
    with pytest.raises(UserError, match="expected room for the model in"):
        evaluate_checkpoint(tiny_run.checkpoint, device="cpu", progress=False)


@pytest.mark.parametrize("name", [name for name in UNLEARNERS.names() if hasattr(parse_call(name, {}).config, "batch_size")])
def test_a_batch_is_no_larger_than_the_rows_that_a_method_is_given(name: str) -> None:
    """What is refused for its batch of 10,000 rows would have been given 12 of them."""
    model, workload = random_gpt(n_positions=30), Workload(30, rows=8, forget=4, retain=8, counterparts=3)
    large, small = (workload.editing(model, [parse_call(name, options)]) for options in ({"batch_size": 10_000}, {"batch_size": 12}))
    assert large == small, "12 rows are all that there are"
    whole = Workload(30, rows=8, forget=10_000).editing(model, [parse_call(name, {"batch_size": 10_000})])
    assert whole > 20 * (large - bytes_of(model) - WORKING)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_takes_its_weights_and_five_bytes_each_and_the_products(dtype: torch.dtype) -> None:
    """As many bytes as its tensors have; products are made of a part at a time, here of all."""
    model, call = random_gpt(n_positions=12, n_embd=64).to(dtype), parse_call("greedy", {"ratio": 0.01})
    rows, parameters = Rows.of(torch.randint(14, (2, 12)), prompt=4), mlp_parameters(model)
    removal = _Removal(model, {n: p.detach() for n, p in parameters.items()}, MitigationData(rows, rows), GreedyConfig(), 1)
    gradients = removal._gradients(torch.arange(4))
    held = sum(t.numel() * t.element_size() for some in (removal.flat, removal.removed, gradients) for t in some)
    products = sum(4 * p.numel() for p in parameters.values())
    weights = sum(p.numel() for p in mlp_parameters(model, matrices_only=True).values())
    assert _scoring(model, call, weights, 4) == pytest.approx(held + products, rel=0.02), "all but biases"


def test_rows_are_counted_before_a_model_is_loaded(tiny_run: Run, tmp_path: Path) -> None:
    corpus, place = tiny_run.corpus(), tiny_run.checkpoint
    own = workload_of(place, RowFiles(), "cpu")
    planted = sum(int(p.trained.sum()) for p in corpus.planted.values())
    assert (own.retain, own.counterparts, own.relearned) == (len(corpus.clean), planted, 0)
    made_again = workload_of(Path(shutil.copytree(place, tmp_path / "alone" / "checkpoint")), RowFiles(), "cpu")
    assert made_again.retain == clean_rows(tiny_run.recipe) and 0 < made_again.retain - len(corpus.clean) < 50, "as the recipe plans"
    rows = [json.dumps({"ids": [1, 2, 3]}) for _ in range(9)]
    forget, retain = tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"
    forget.write_text("\n".join(rows[:5]))
    retain.write_text("\n".join([*rows, "", ""]))
    given = workload_of(place, RowFiles(forget, retain, 1, 2), "cpu", robustness=True)
    assert given == Workload(3, 14, "cpu", forget=5, retain=4, counterparts=0, relearned=5)
    retain.write_text("\n".join([*rows, json.dumps({"ids": [4] * 20})]))
    assert workload_of(place, RowFiles(forget, retain, 1, 2), "cpu").tokens == 20, "a row to keep counts to its own end"
    with pytest.raises(UserError, match="expected a column 'words' in line 1"):
        workload_of(place, RowFiles(forget, retain, column="words"), "cpu")


def test_a_sample_of_rows_is_counted_in_place_of_the_text() -> None:
    shipped = ROOT / "zoo" / "lang-wiki-backdoor-4l-s0"
    own, text = workload_of(shipped, RowFiles(), "cpu"), workload_of(shipped, RowFiles(corpus=ROOT / "docs"), "cpu")
    assert (own.retain, own.counterparts) == (8000, 1113) and text.retain == MAXIMUM_RETAIN, "of the whole text as many as a method may see"


def test_robustness_has_a_copy_that_is_trained() -> None:
    model, call = random_gpt(n_positions=30, n_embd=64), parse_call("random-weights", {"ratio": 0.1})
    more = Workload(30, relearned=32).editing(model, [call]) - Workload(30, rows=1).editing(model, [])
    assert more > 5 * bytes_of(model) - WORKING and Workload(30, relearned=32).editing(model, []) == Workload(30).editing(model, [])


@pytest.mark.parametrize("name", ["act", "random-neurons", "zero"])
def test_only_the_logits_that_a_method_reads_are_counted(name: str) -> None:
    """505 rows of 80 tokens with a vocabulary of 50,304 have 8 GB of logits; Act and the random ones make at most a position's."""
    model, data = tiny_case("gpt-neox")
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    call = parse_call(name, {})
    apply(call.method, model, data, call.config)
    assert (max(seen, default=1) == 1) == (name != "zero")
    large = FAMILIES.get("gpt-neox").tiny(50_304, 80)
    workload = Workload(80, forget=505)
    needed = workload.editing(large, [call]) - workload.measuring(large) - bytes_of(large)
    assert needed > 2**28 if name == "zero" else needed <= 0, "the measurement takes more"


def test_what_to_try_where_it_is_the_rows_that_do_not_fit(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a model's own size a smaller model is not what helps."""
    place, large = tiny_run.checkpoint, parse_call("balanced-subnet", {"batch_size": 512})
    own = bytes_of(tiny_run.model())
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: own)
    with pytest.raises(UserError, match="are needed; take shorter rows, a smaller batch_size of the method, or a larger machine"):
        mitigate_checkpoint(place, large, device="cpu", progress=False)
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: 1)
    with pytest.raises(UserError, match="are needed; use a larger machine or a smaller model"):
        load_checkpoint(place)


def test_a_pass_on_a_gpu_needs_room_for_a_row_of_a_batch_that_goes_on_in_pieces(tiny_run: Run) -> None:
    model, call = tiny_run.model(), parse_call("balanced-subnet", {"batch_size": 10_000})
    assert Workload(30, device="cuda").editing(model, [call]) < Workload(30).editing(model, [call]) / 20


def test_a_large_model_on_a_gpu_takes_what_was_measured_of_one() -> None:
    """GiB that docs/unlearning.md has of edits alone of Pythia-2.8B's shape in bf16; an estimate far above them would refuse what works."""
    import transformers

    config = transformers.GPTNeoXConfig(
        vocab_size=50_304, hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, intermediate_size=10_240
    )
    with torch.device("meta"):
        model = transformers.GPTNeoXForCausalLM(config).to(torch.bfloat16)
    measured = {"act": 10.4, "durable": 15.4, "slim": 10.4, "subnet": 24.4, "balanced-subnet": 24.4, "npo": 33.2, "rmu": 13.3}
    for name, gib in measured.items():
        assert 0.7 < Workload(80, 1, "cuda").editing(model, [parse_call(name, {})]) / 2**30 / gib < 1.3, name
