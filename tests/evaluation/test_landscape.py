"""The loss landscape against plain evaluations of a moved model, its filter norms, and the verb."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from shutil import copytree

import pytest
import torch
import torch.nn.functional as F
from helpers import half_written, random_gpt, tinymem
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.evaluation.landscape import Set, filter_normalized, landscape
from tinymem.mitigation.run import Subject
from tinymem.report.figures.landscape import contour_levels

IDS = torch.randint(0, 14, (7, 12), generator=torch.Generator().manual_seed(3))
SCORED = torch.rand(7, 12, generator=torch.Generator().manual_seed(4)) < 0.6
SETS: list[Set] = [(IDS, SCORED)]


def plain_loss(model: nn.Module, ids: Tensor, scored: Tensor) -> float:
    """Mean loss of the scored tokens, one token at a time."""
    found = []
    with torch.no_grad():
        log_probabilities = F.log_softmax(model(ids).double(), dim=-1)
    for n in range(len(ids)):
        for t in range(1, ids.shape[1]):
            if scored[n, t]:
                found.append(-float(log_probabilities[n, t - 1, ids[n, t]]))
    return sum(found) / len(found)


def test_the_center_is_the_models_loss_and_the_model_is_left_alone() -> None:
    model = random_gpt(scale=2.0)
    before = deepcopy(model.state_dict())
    found = landscape(model, SETS, steps=3, batch_size=4)
    assert found.center == pytest.approx(plain_loss(model, IDS, SCORED), rel=1e-6)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_every_point_is_a_plain_evaluation_of_the_moved_model() -> None:
    model = random_gpt(scale=2.0)
    found = landscape(model, [(IDS[:3], SCORED[:3]), (IDS[3:], SCORED[3:])], steps=5, span=0.8, seed=6)
    assert found.coordinates == pytest.approx([-0.8, -0.4, 0.0, 0.4, 0.8])
    one, two = filter_normalized(model, 6, 1), filter_normalized(model, 6, 2)
    for i, b in enumerate(found.coordinates):
        for j, a in enumerate(found.coordinates):
            moved = deepcopy(model)
            with torch.no_grad():
                for p, d1, d2 in zip(moved.parameters(), one, two, strict=True):
                    p.add_(a * d1 + b * d2)
            assert found.losses[i][j] == pytest.approx(plain_loss(moved, IDS, SCORED), rel=1e-5)
    assert len({round(loss, 6) for row in found.losses for loss in row if loss}) == 25


def test_filters_are_as_long_as_the_models() -> None:
    model = random_gpt(scale=3.0)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    for (name, parameter), direction in zip(parameters.items(), filter_normalized(model, 0, 1), strict=True):
        if parameter.dim() == 1:
            assert not direction.any(), name
            continue
        for row, other in zip(parameter, direction, strict=True):  # a row of weights makes one output, or embeds one token
            assert float(other.norm()) == pytest.approx(float(row.norm()), rel=1e-5), name
            assert not torch.allclose(row, other)


def test_transposed_layers_have_their_filters_in_columns() -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=8, vocab_size=10))
    directions = dict(zip((name for name, _ in model.named_parameters()), filter_normalized(model, 0, 1), strict=True))
    weight, direction = model.transformer.h[0].mlp.c_fc.weight.detach(), directions["transformer.h.0.mlp.c_fc.weight"]
    assert weight.shape == (8, 32)
    assert torch.allclose(direction.norm(dim=0), weight.norm(dim=0))
    assert not torch.allclose(direction.norm(dim=1), weight.norm(dim=1))


def test_seeds_decide_the_directions_and_an_overflow_is_no_number() -> None:
    model = random_gpt()
    same = [filter_normalized(model, 1, 1) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*same, strict=True))
    assert not torch.equal(same[0][0], filter_normalized(model, 2, 1)[0])
    assert not torch.equal(same[0][0], filter_normalized(model, 1, 2)[0])
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = torch.inf
    assert landscape(model, SETS, steps=3).center is None


@pytest.mark.parametrize(
    ("options", "message"), [({"steps": 4}, "odd number"), ({"steps": 1}, "odd number"), ({"span": 0.0}, "positive span")]
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        landscape(random_gpt(), SETS, **options)  # type: ignore[arg-type]


def test_no_scored_tokens() -> None:
    with pytest.raises(UserError, match="expected rows with scored tokens"):
        landscape(random_gpt(), [(IDS, torch.zeros_like(SCORED))], steps=3)


def test_levels_lie_between_the_lowest_and_nearly_the_highest_loss() -> None:
    assert contour_levels([1.0, 2.0])[0] == 1.0
    assert contour_levels([3.0, 3.0]) == sorted(set(contour_levels([3.0, 3.0])))


def test_the_verb_measures_and_draws(checkpoint: Path, paper: Subject, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "out", "--points", 3, "--samples", 10_000, "--span", 0.5, "--device", "cpu")
    done = tinymem("landscape", checkpoint, *words)
    assert done.code == 0, done.err
    assert sorted(path.suffix for path in map(Path, done.out.split())) == [".csv", ".json", ".png", ".svg"]
    lines = json.loads((tmp_path / "out" / "figure-04.json").read_text())["lines"]
    assert [(line["a"], line["b"]) for line in lines] == [(a, b) for b in (-0.5, 0, 0.5) for a in (-0.5, 0, 0.5)]
    tokens = sum(share.rows for share in paper.before.accuracy_by_task.values())
    assert tokens > 0 and paper.before.perplexity is not None
    assert 2.718281828 ** lines[4]["loss"] == pytest.approx(paper.before.perplexity, rel=1e-4)
    assert len((tmp_path / "out" / "figure-04.csv").read_text().splitlines()) == 10


@pytest.mark.parametrize(("words", "message"), [(("--rows", "noisy"), "did you mean 'noise'"), (("--points", 4), "odd number of steps")])
def test_the_verb_refuses_on_one_line(checkpoint: Path, tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    assert message in tinymem("landscape", checkpoint, "--out", tmp_path / "out", *words).last_line_error()
    assert not (tmp_path / "out").exists() and not half_written(tmp_path)


@pytest.mark.parametrize("spelled", ["{}", "{}/../checkpoint", "{}/link"])
def test_a_checkpoint_given_twice_is_refused_before_it_is_loaded(
    spelled: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(checkpoint)
    again = tmp_path / "link" if spelled.endswith("link") else spelled.format(checkpoint)
    monkeypatch.setattr("tinymem.models.checkpoint.load_checkpoint", None)
    error = tinymem("landscape", checkpoint, again, "--out", tmp_path / "out", "--points", 3).last_line_error()
    assert f"expected different checkpoints, got one twice, as {checkpoint} and as {again}; name it once" in error
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_have_their_whole_paths_as_names(checkpoint: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name / "run" / "checkpoint" for name in ("a", "b")]
    for folder in folders:
        copytree(checkpoint.parent, folder.parent)
    done = tinymem("landscape", *folders, "--out", tmp_path / "out", "--points", 3, "--samples", 4, "--device", "cpu")
    assert done.code == 0, done.err
    lines = json.loads((tmp_path / "out" / "figure-04.json").read_text())["lines"]
    assert [line["model"] for line in lines] == [str(folder) for folder in folders for _ in range(9)]


def test_an_empty_file_of_rows_is_named_with_its_option(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    done = tinymem("landscape", checkpoint, "--out", tmp_path / "out", "--rows", tmp_path / "empty.jsonl")
    assert f"expected rows for --rows, found no rows in {tmp_path / 'empty.jsonl'}" in done.last_line_error()
