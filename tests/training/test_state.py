"""Resume points on disk: pieces with a hash each, what is pruned, and what a run may go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights, files_of_at_most, half_written

from tinymem.data.build import make_corpus
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.runtime.progress import Progress
from tinymem.training import loop
from tinymem.training.loop import train
from tinymem.training.snapshot import Keeper
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
        {"forget": torch.tensor(3)},
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


CHANGES = [('"step": 25', '"step": 27'), ('"epoch": 2', '"epoch": 1'), ('"epoch"', '"epoci"'), ("{", "["), (None, "3")]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_counters(tmp_path: Path, change: tuple[str | None, str]) -> None:
    """Valid JSON or not: a run that went on from a wrong step would see other rows."""
    before = state(1)
    save_state(tmp_path, before)
    save_state(tmp_path, state(2, 5))
    path, (old, new) = tmp_path / "epoch-000002-step-000005" / "state.json", change
    text = path.read_text()
    assert old is None or old in text
    path.write_text(text.replace(old, new, 1) if old else new)
    with pytest.warns(UserWarning, match=r"passing over a damaged resume point: expected .*state\.json"):
        assert same(before, load_state(tmp_path))
    with pytest.warns(UserWarning):
        assert next_step(tmp_path) == before.step + 1


@pytest.mark.parametrize("in_epoch", [0, 5])
def test_a_point_before_damaged_ones_is_kept(tmp_path: Path, in_epoch: int) -> None:
    """The run went back past two damaged points; what it saves then must not give way to them."""
    for epoch in (1, 3, 4):
        save_state(tmp_path, state(epoch), keep={1, 4})
    for epoch in (3, 4):
        (tmp_path / f"epoch-{epoch:06d}" / "state.safetensors").write_bytes(b"")
    saved = state(2 - bool(in_epoch), in_epoch)
    save_state(tmp_path, saved, keep={1, 4})
    assert same(saved, load_state(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-000001", saved.name]


def test_an_unreadable_point_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        save_state(tmp_path, state(epoch))
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.parent.name == "epoch-000002":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.warns(UserWarning, match="Input/output error"):
        found = load_state(tmp_path)
    assert found is not None and found.epoch == 1


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


@pytest.mark.parametrize(("before", "after"), [((999_999, 0), (1_000_000, 0)), ((1, 999_999), (1, 1_000_000))])
def test_from_a_million_on(before: tuple[int, int], after: tuple[int, int], tmp_path: Path) -> None:
    for epoch, in_epoch in (before, after):
        save_state(tmp_path, state(epoch, in_epoch))
    assert len(list(tmp_path.iterdir())) == 2, "the newest two"
    newest = load_state(tmp_path)
    assert newest is not None and (newest.epoch, newest.in_epoch) == after


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


@pytest.mark.training
def test_a_run_in_pieces(tmp_path: Path) -> None:
    recipe = case("model.n_embd=96", "training.epochs=1", "training.shard_mib=1")
    trained = train(recipe, make_corpus(recipe), tmp_path)
    pieces = list((tmp_path / "state" / "epoch-000001").glob("state.safetensors.*"))
    assert len(pieces) == 3 and all(path.stat().st_size <= 2**20 for path in pieces)
    assert equal_weights(train(recipe, make_corpus(recipe), tmp_path).model, trained.model)
    assert recipe.run_id() == case("model.n_embd=96", "training.epochs=1").run_id()


@pytest.mark.training
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
    assert trained.facts.precision == "bf16"
    monkeypatch.setattr(loop, "resolve_precision", always("fp32"))
    with pytest.raises(UserError, match="expected to go on in bf16"):
        train(recipe, corpus, tmp_path / "bf16")


def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that are measured from here on."""
    models, real = [], Evaluator.measure
    monkeypatch.setattr(Evaluator, "measure", lambda self, model: models.append(model) or real(self, model))
    return models


@pytest.mark.training
@pytest.mark.parametrize("regularizers", ["[]", "[{kind: mem-sinks}]"])
def test_each_epoch_is_measured_once(regularizers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = case("training.epochs=2", "training.evaluate_every=1", f"training.regularizers={regularizers}")
    corpus, models = make_corpus(recipe), measurements(monkeypatch)
    train(recipe, corpus, tmp_path)
    assert len(models) == 3
    train(recipe, corpus, tmp_path)  # finds the end
    assert len(models) == 3


@pytest.mark.training
def test_epochs_that_cannot_be_kept_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = case("training.epochs=1", "training.keep_epochs=[1, 2, 40]")
    train(recipe, make_corpus(recipe), tmp_path, progress=Progress(show=True))
    assert "never reached, so not kept: epochs [2, 40]; the last one is 1\n" in capsys.readouterr().err


@pytest.mark.training
def test_a_kept_checkpoint_written_late_has_its_own_facts(tmp_path: Path) -> None:
    recipe = case("training.epochs=2", "training.keep_epochs=[1]")
    corpus, late = make_corpus(recipe), []
    train(recipe, corpus, tmp_path)
    kept = load_state(tmp_path / "state", 1)
    train(recipe, corpus, tmp_path, keeper=Keeper(lambda epoch: False, late.append))
    assert kept is not None and [snapshot.epoch for snapshot in late] == [1]
    assert late[0].facts.energy["hours"] == kept.busy_seconds / 3600


@pytest.mark.training
@pytest.mark.parametrize(("text", "message"), [("", "expected a line of epoch 1 in"), ("{\n", "expected JSON in line 1 of")])
def test_a_curve_that_is_gone(text: str, message: str, tmp_path: Path) -> None:
    recipe = case("training.epochs=1")
    corpus = make_corpus(recipe)
    train(recipe, corpus, tmp_path)
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        train(recipe, corpus, tmp_path)
    assert "\n" not in str(error.value)
