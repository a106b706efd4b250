"""Resume points on disk: pieces with a hash each, what is pruned, and what a run may go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights, half_written
from test_full_disk import files_of_at_most

from tinymem.data.build import make_corpus
from tinymem.errors import UserError
from tinymem.files import write_json
from tinymem.recipe import Recipe, load_recipe
from tinymem.training import loop
from tinymem.training.loop import train
from tinymem.training.state import TrainingState, load_state, next_step, save_state


def state(epoch: int = 1, in_epoch: int = 0, scale: float = 1.0) -> TrainingState:
    tensors = {"a": scale * torch.arange(5000.0), "b": torch.tensor(7)}
    return TrainingState(
        epoch,
        10 * epoch + in_epoch,
        1.5,
        in_epoch,
        2.5,
        "fp32",
        {"w": torch.randn(40, 50)},
        tensors,
        {"seen": torch.tensor(3)},
        torch.tensor(0.25),
    )


def same(one: TrainingState, other: TrainingState | None) -> bool:
    assert other is not None
    tensors, others = one.tensors(), other.tensors()
    counters = [(s.epoch, s.step, s.in_epoch, s.seconds, s.busy_seconds, s.precision) for s in (one, other)]
    return counters[0] == counters[1] and tensors.keys() == others.keys() and all(torch.equal(t, others[n]) for n, t in tensors.items())


@pytest.mark.parametrize(("size", "files"), [(None, 1), (10**6, 1), (10_000, 3), (1_000, 29)])
def test_pieces_go_round(tmp_path: Path, size: int | None, files: int) -> None:
    whole = state()
    save_state(tmp_path, whole, shard_bytes=size)
    pieces = sorted((tmp_path / "epoch-000001").glob("state.safetensors*"))
    assert len(pieces) == files and all(size is None or path.stat().st_size <= size for path in pieces)
    assert same(whole, load_state(tmp_path))
    if files == 3:
        assert pieces[0].name == "state.safetensors.00001-of-00003"


@pytest.mark.parametrize("piece", range(3))
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "swap"])
def test_a_damaged_piece(tmp_path: Path, piece: int, damage: str) -> None:
    before = state(1)
    save_state(tmp_path, before, shard_bytes=10_000)
    save_state(tmp_path, state(2, scale=3.0), shard_bytes=10_000)
    paths = sorted((tmp_path / "epoch-000002").glob("state.safetensors*"))
    data = bytearray(paths[piece].read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    elif damage == "truncate":
        del data[-1]
    elif damage == "swap":
        data = bytearray(paths[piece - 1].read_bytes())
    paths[piece].write_bytes(data)
    if damage == "remove":
        paths[piece].unlink()
    with pytest.warns(UserWarning, match=rf"passing over a damaged resume point: expected .*{paths[piece].name}"):
        assert same(before, load_state(tmp_path))
    with pytest.warns(UserWarning):
        assert load_state(tmp_path, 2) is None


def test_a_point_of_one_file_without_pieces_listed(tmp_path: Path) -> None:
    """As first written: one file and its hash."""
    save_state(tmp_path, state())
    path = tmp_path / "epoch-000001" / "state.json"
    import json

    counters = json.loads(path.read_text())
    (digest,) = counters.pop("shards").values()
    for name in ("in_epoch", "busy_seconds", "precision"):
        del counters[name]
    write_json(path, {**counters, "sha256": digest})
    found = load_state(tmp_path)
    assert found is not None and (found.epoch, found.precision, found.in_epoch) == (1, None, 0)


def test_the_newest_two_and_kept_epochs_stay(tmp_path: Path) -> None:
    for epoch, in_epoch in ((1, 0), (2, 0), (2, 5), (3, 0), (3, 5), (3, 7), (4, 0)):
        save_state(tmp_path, state(epoch, in_epoch), keep={2, 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-000002", "epoch-000003", "epoch-000003-step-000007", "epoch-000004"]
    save_state(tmp_path, state(4, 9), keep={2, 3})
    newest = load_state(tmp_path)
    assert newest is not None and (newest.epoch, newest.in_epoch) == (4, 9) and next_step(tmp_path) == 50
    kept = load_state(tmp_path, 3)
    assert kept is not None and (kept.epoch, kept.in_epoch) == (3, 0)
    assert load_state(tmp_path, 1) is None and load_state(tmp_path / "none") is None and next_step(tmp_path / "none") == 0


def test_only_who_writes_removes_what_is_half_written(tmp_path: Path) -> None:
    """A reader, such as `tinymem mitigate` on a kept checkpoint, may look in while the run is writing its next resume point."""
    save_state(tmp_path, state(1))
    (tmp_path / ".epoch-000002.1.ab.tmp").mkdir()
    assert load_state(tmp_path) and load_state(tmp_path, 1) and half_written(tmp_path)
    save_state(tmp_path, state(2))
    assert not half_written(tmp_path)


def test_a_full_disk_leaves_older_points_alone(tmp_path: Path) -> None:
    first = state(1)
    save_state(tmp_path, first)
    with files_of_at_most(8_000), pytest.raises(UserError, match=r"could not write .*; free or change the place"):
        save_state(tmp_path, state(2), shard_bytes=10_000)
    assert same(first, load_state(tmp_path)) and not half_written(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-000001"]


def case(*overrides: str) -> Recipe:
    return load_recipe(QUICKSTART, [*SMALLER, *overrides])


def test_a_run_in_pieces(tmp_path: Path) -> None:
    recipe = case("model.n_embd=96", "training.epochs=1", "training.shard_mib=1")
    trained = train(recipe, make_corpus(recipe), tmp_path)
    pieces = list((tmp_path / "state" / "epoch-000001").glob("state.safetensors.*"))
    assert len(pieces) == 3 and all(path.stat().st_size <= 2**20 for path in pieces)
    assert equal_weights(train(recipe, make_corpus(recipe), tmp_path).model, trained.model)
    assert recipe.run_id() == case("model.n_embd=96", "training.epochs=1").run_id()


def test_a_run_goes_on_in_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = case("training.epochs=1")
    corpus = make_corpus(recipe)
    train(recipe, corpus, tmp_path / "fp32")

    def always(precision: str) -> Any:
        return lambda *_: precision

    monkeypatch.setattr(loop, "resolve_precision", always("bf16"))
    with pytest.raises(UserError, match=r"expected to go on in fp32, in which .* was begun, got bf16") as error:
        train(recipe, corpus, tmp_path / "fp32")
    assert "\n" not in str(error.value)
    trained = train(recipe, corpus, tmp_path / "bf16")
    assert trained.facts["precision"] == "bf16"
    monkeypatch.setattr(loop, "resolve_precision", always("fp32"))
    with pytest.raises(UserError, match="expected to go on in bf16"):
        train(recipe, corpus, tmp_path / "bf16")
