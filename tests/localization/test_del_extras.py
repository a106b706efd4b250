"""DEL's intervals of text, confusion matrix and choice of options, each against a plain loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tinymem.data.rows import Rows
from tinymem.data.rows_file import read_rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.localization import text_cost
from tinymem.localization.calls import parsed_calls
from tinymem.localization.confusion import confusion_of, is_of
from tinymem.localization.deletion import Deletion, State
from tinymem.localization.text_cost import text_intervals
from tinymem.recipe.localization import parse_localization


def test_intervals_of_text_are_paired_and_over_targets_and_rows():
    """All resamples of two targets and three rows of text, by their weights."""
    before, after = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[1.5, 2.0, 4.0], [1.0, 2.5, 5.0]])
    found = {name: [] for name in ("text_nll", "text_perplexity", "text_perplexity_base2")}
    grid = [(t, r) for t in np.ndindex(2, 2) for r in np.ndindex(3, 3, 3)]
    for targets, rows in grid:
        base = float(before[list(rows)].mean())
        means = [float(after[t, list(rows)].mean()) for t in targets]
        found["text_nll"].append(np.mean([m - base for m in means]))
        found["text_perplexity"].append(np.mean([math.exp(m) - math.exp(base) for m in means]))
        found["text_perplexity_base2"].append(np.mean([2**m - 2**base for m in means]))
    for name, (low, high) in text_intervals(before, after).items():
        # 108 equally likely values against 2,000 draws of them: the ends lie within the quantiles of neighboring shares
        a, b, c, d = np.quantile(found[name], [0.01, 0.04, 0.96, 0.99])
        assert a - 1e-6 <= low <= b + 1e-6 and c - 1e-6 <= high <= d + 1e-6, name
    unmoved = text_intervals(before, before.expand(4, -1))
    assert unmoved["text_nll"] == (0, 0), "paired: what varies between rows of text, but not by the edit, does not count"
    assert text_intervals(before[:0], after[:, :0]) == {}


def test_rows_are_drawn_within_the_batches_of_the_published_perplexity(monkeypatch):
    monkeypatch.setattr(text_cost, "RESAMPLES", 4000)
    before, after = torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([[2.0, 2.0, 3.0, 3.0]])
    found = text_intervals(before, after, batch=2)
    assert found["text_perplexity_base2"] == pytest.approx((1.0, 1.0)), "((2^2 - 2^1) + 0) / 2, in every resample"
    assert found["text_nll"] == pytest.approx((0.5, 0.5))


def deletion(rows=4, targets=(1, 2, 3)):
    before = State(torch.linspace(0.9, 1, rows), torch.zeros(rows), torch.zeros(0))
    accuracy = torch.rand(len(targets), rows, generator=torch.Generator().manual_seed(0))
    return Deletion(before, torch.tensor(targets), accuracy, torch.zeros_like(accuracy), torch.zeros(len(targets), 0), 1)


def test_the_confusion_matrix_has_categories_side_by_side():
    found, names = deletion(), ["b", "a", "b", "a"]
    matrix = confusion_of(found, names)
    assert matrix["targets"] == ["a", "a", "b"] and matrix["rows"] == ["a", "a", "b", "b"]
    changes = found.confusion_NS
    for i, n in enumerate((0, 2, 1)):  # targets 1, 3 and 2
        for j, s in enumerate((1, 3, 0, 2)):
            assert matrix["changes"][i][j] == pytest.approx(float(changes[n, s]), abs=5e-5)
    own = [matrix["changes"][0][0], matrix["changes"][1][1], matrix["changes"][2][3]]
    assert sum(own) / 3 == pytest.approx(float(found.changes()["self_accuracy"].mean()), abs=1e-4), "the diagonal is the targets' own"


def test_categories_stand_in_the_order_of_their_numbers():
    names = ["duplication, 100 copies", "duplication, 20 copies", "canary, 3 copies", "duplication, 100 copies"]
    assert confusion_of(deletion(), names)["rows"] == [names[n] for n in (2, 1, 0, 3)]


def test_the_matrix_of_many_rows_is_one_of_categories():
    found, names = deletion(130, (0, 1, 2)), ["x", "y", "x", *["x", "y"] * 63, "z"]
    matrix = confusion_of(found, names)
    assert matrix["targets"] == matrix["rows"] == ["x", "y", "z"]
    for i, one in enumerate("xyz"):
        for j, other in enumerate("xyz"):
            pairs = [(n, s) for n, t in enumerate((0, 1, 2)) for s in range(130) if names[t] == one and names[s] == other and s != t]
            mean = float(torch.stack([found.confusion_NS[n, s] for n, s in pairs]).mean()) if pairs else None
            assert matrix["changes"][i][j] == (None if mean is None else pytest.approx(mean, abs=1e-4))


@pytest.mark.parametrize("rows", [4, 130])
def test_a_matrix_knows_the_categories_that_it_was_made_with(rows):
    """Equal numbers of each are not enough: rows may have changed places."""
    names = ["x", "y", *["x"] * (rows - 2)]
    matrix = confusion_of(deletion(rows), names)
    assert is_of(matrix, names) and not is_of(matrix, ["y", "x", *names[2:]]) and not is_of(matrix, ["x"] * rows)


def test_a_file_names_the_category_of_its_rows(tmp_path):
    lines = [
        {"ids": [1, 2], "category": ["quotes", "poems"]},
        {"ids": [1, 2], "copies": 8},
        {"ids": [3, 4]},
        {"ids": [3], "article": "Oak"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row.category for row in read_rows(tmp_path / "rows.jsonl", ModelTokens(tmp_path)).rows] == ["quotes", "copies 8", "", "Oak"]


def test_options_that_are_lists_are_axes():
    recipe = parse_localization({"benchmark": "inj", "methods": [{"slim": {"penalty": [1, 2], "epochs": [5, 6], "stop": 0.1}}, "act"]})
    calls = [call for call, _ in parsed_calls(recipe)]
    options = [(c.config.penalty, c.config.epochs, c.config.stop) for c in calls[:4]]
    assert options == [(1, 5, 0.1), (1, 6, 0.1), (2, 5, 0.1), (2, 6, 0.1)] and calls[4].name == "act"
    assert recipe.tuned == {"slim"}
    with pytest.raises(UserError, match="expected development: 2 or more"):
        parse_localization({"benchmark": "del", "methods": [{"slim": {"penalty": [1, 2]}}]})
    assert Rows.of(torch.ones(1, 3)).filled(5).lengths().tolist() == [3] and Rows.of(torch.ones(1, 3)).filled(2).ids.shape == (1, 3)
