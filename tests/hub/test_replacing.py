"""A push overwrites no other model or corpus: it is refused before anything is sent, unless the user says to replace it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import random_gpt, tinymem
from hub_stub import Hub

from tinymem.errors import UserError
from tinymem.hub.upload import Branch, LocalFile, Plan, Repository, push
from tinymem.models.checkpoint import save_checkpoint
from tinymem.models.metadata import read_metadata


def plan(weights: Sequence[str], *, names: Sequence[str] = ("seed0-step1", "seed0-step2"), main: bool = True, rows: str = "rows") -> Plan:
    """A model of so many steps, the last of which is `main`, and its corpus."""
    branches = [Branch(name, {"model.safetensors": LocalFile(w.encode())}) for name, w in zip(names, weights, strict=True)]
    copies = [Branch("main", branches[-1].files, is_copy=True)] if main else []
    data = Repository("org/m-corpus", "dataset", [Branch("seed0", {"clean.parquet": LocalFile(rows.encode())})], "mit")
    return Plan([data, Repository("org/m", "model", [*branches, *copies], "mit")])


def weights(hub: Hub) -> dict[str, str]:
    """What each branch holds."""
    repo = hub.repo("org/m")
    return {branch: repo.files(branch)["model.safetensors"].content.decode() for branch in repo.branches}


@pytest.mark.slow
def test_another_model_is_refused_before_any_branch_of_the_push_is_changed(hub: Hub) -> None:
    push(plan(["a", "b"]))
    before, hub.calls[:] = hub.state(), []
    with pytest.raises(UserError, match=r"expected org/m@seed0-step2 on the Hub to be new or to hold these weights, it holds others"):
        push(plan(["a", "other"], rows="rows"))
    with pytest.raises(UserError, match=r"org/m-corpus@seed0 on the Hub to be new or to hold these rows.*--replace"):
        push(plan(["c", "d"], names=["seed1-step1", "seed1-step2"], rows="other"))
    assert hub.state() == before and {call.method for call in hub.calls} == {"GET"}
    push(plan(["a", "other"]), replace=True)
    assert weights(hub) == {"main": "other", "seed0-step1": "a", "seed0-step2": "other"}


@pytest.mark.slow
def test_main_moves_on_with_its_model_and_is_left_to_another(hub: Hub) -> None:
    push(plan(["a"], names=["seed0-step1"]))
    push(plan(["a", "b"]))
    assert weights(hub)["main"] == "b"
    said: list[str] = []
    assert "main" not in push(plan(["c"], names=["seed1-step1"]), say=said.append)["org/m"]
    assert weights(hub) == {"main": "b", "seed0-step1": "a", "seed0-step2": "b", "seed1-step1": "c"}
    assert any(line.startswith("org/m@main: left as it is") and "--replace" in line for line in said)
    push(plan(["c"], names=["seed1-step1"]), replace=True)
    assert weights(hub)["main"] == "c"


@pytest.mark.slow
def test_a_push_that_was_cut_after_it_made_a_branch_is_no_other_model(hub: Hub) -> None:
    """The Hub makes a branch at the commit of `main`, whose weights are in it until its own are committed."""
    push(plan(["a", "b"]))
    hub.fail_when("/commit/", status=403)
    edit = plan(["e"], names=["seed0-step2-act"], main=False)
    with pytest.raises(UserError, match="403"):
        push(edit)
    assert weights(hub)["seed0-step2-act"] == "b"
    push(edit)
    assert weights(hub)["seed0-step2-act"] == "e"


def test_the_command_refuses_another_edit_and_replaces_it_where_told(hub: Hub, made: Path, tmp_path: Path) -> None:
    values = read_metadata(made).as_json()
    tokenizer = {name: (made / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}
    for seed in (1, 2):
        save_checkpoint(random_gpt(seed, n_positions=30, n_embd=16), tmp_path / str(seed), metadata=values, tokenizer_files=tokenizer)
    assert tinymem("push", tmp_path / "1", "--repo", "org/m").code == 0
    before = hub.state()
    assert tinymem("push", tmp_path / "1", "--repo", "org/m").code == 0 and hub.state() == before
    refused = tinymem("push", tmp_path / "2", "--repo", "org/m")
    assert "expected org/m@seed0-step60 on the Hub to be new" in refused.one_line_error() and hub.state() == before
    assert tinymem("push", tmp_path / "2", "--repo", "org/m", "--replace").code == 0 and hub.state() != before
