"""The estimate of what measuring and editing a model take, and that what cannot fit is refused before the model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import python

from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError
from tinymem.mitigation.memory import Workload, workload_of
from tinymem.mitigation.method import parse_call
from tinymem.models.checkpoint import bytes_of
from tinymem.runs.checkpoint import mitigate_checkpoint
from tinymem.runs.evaluate import evaluate_checkpoint
from tinymem.runs.pipeline import Run

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
    assert workload == Workload(tiny_run.recipe.data.row_tokens, tiny_run.recipe.evaluation.batch_size)
    assert bytes_of(model) < workload.measuring(model) <= workload.editing(model, [small]) < workload.editing(model, [small, large])
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: workload.editing(model, [small]))
    mitigate_checkpoint(tiny_run.checkpoint, small, device="cpu", progress=False)
    with pytest.raises(UserError, match=r"expected room for the model in .* and what is done with it in the memory of this machine"):
        mitigate_checkpoint(tiny_run.checkpoint, [small, large], device="cpu", progress=False)
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: bytes_of(model))
    with pytest.raises(UserError, match="expected room for the model in"):
        evaluate_checkpoint(tiny_run.checkpoint, device="cpu", progress=False)


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
