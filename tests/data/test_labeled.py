"""Texts with labels from files and from `datasets`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from tinymem.data import labeled
from tinymem.data.labeled import LabeledTexts, encoded, read_labeled
from tinymem.errors import UserError

RECORDS = [{"sentence": f"row {i}", "other": f"more {i}", "mood": ["sad", "glad", "mad"][i % 3]} for i in range(30)]


def read(source: object, **options: Any) -> tuple[LabeledTexts, LabeledTexts]:
    given = {"config": None, "text": ("sentence",), "label": "mood", "rows": 100, "test_rows": 100, "seed": 0, **options}
    return read_labeled(str(source), **given)


def written(folder: Path, suffix: str, records: list[dict[str, Any]] = RECORDS, name: str = "rows") -> Path:
    path = folder / f"{name}{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        datasets.Dataset.from_list(records).to_parquet(str(path))
    return path


def test_formats_agree_and_a_fifth_is_held_out(tmp_path: Path) -> None:
    found = [read(written(tmp_path, suffix)) for suffix in (".jsonl", ".csv", ".parquet")]
    train, test = found[0]
    assert found[1] == found[2] == found[0] and len(train) == 24 and len(test) == 6
    assert train.classes == test.classes == ("glad", "mad", "sad")
    for part in (train, test):
        for text, label in zip(part.texts, part.labels, strict=True):
            assert part.classes[label] == RECORDS[int(text.split()[1])]["mood"]
    assert not {*train.texts} & {*test.texts}
    assert read(tmp_path / "rows.csv", seed=1) != found[0] and len(read(tmp_path / "rows.csv", rows=7, test_rows=2)[0]) == 7


def test_a_folder_with_splits_and_two_columns_of_text(tmp_path: Path) -> None:
    written(tmp_path, ".jsonl", RECORDS[:20], "train")
    written(tmp_path, ".jsonl", RECORDS[20:], "validation")
    train, test = read(tmp_path, text=("sentence", "other"))
    assert len(train) == 20 and len(test) == 10 and "row 3\nmore 3" in train.texts


def test_a_data_set_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list([{"sentence": f"row {i}", "mood": [0, 1, -1, 10][i % 4]} for i in range(16)])
    monkeypatch.setattr(labeled, "hub_tables", lambda name, config: {"train": rows, "test": rows.select(range(8))})
    train, test = read("org/moods")
    assert train.classes == ("0", "1", "10") and len(train) == 12 and len(test) == 6, "labels below 0 are none"


@pytest.mark.parametrize(
    ("records", "options", "words"),
    [
        (RECORDS, {"label": "moods"}, "expected columns sentence, moods in row 1"),
        (RECORDS, {"text": ("text",)}, "got sentence, other, mood"),
        ([{"sentence": 3, "mood": "sad"}], {}, "expected text in sentence of row 1"),
        ([{"sentence": "a", "mood": 0.5}], {}, "expected a whole number or a name in 'mood'"),
        ([{"sentence": "a", "mood": "sad"}] * 9, {}, "at least two labels"),
    ],
)
def test_what_is_no_labeled_text_is_refused(tmp_path: Path, records: list[dict[str, Any]], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match="expected") as caught:
        read(written(tmp_path, ".jsonl", records), **options)
    assert words in str(caught.value)


def test_two_classes_of_several() -> None:
    rows = LabeledTexts(tuple("abcdef"), (2, 0, 2, 1, 0, 2), ("x", "y", "z"))
    assert rows.two_largest() == [0, 2]
    assert rows.binarized([0, 2]) == LabeledTexts(tuple("abcef"), (1, 0, 1, 0, 1), ("x", "z"))


def test_rows_are_cut_and_padded() -> None:
    class Tokens:
        def encode(self, texts: tuple[str, ...]) -> list[list[int]]:
            return [[ord(letter) - 96 for letter in text] for text in texts]

    tokens: Any = Tokens()
    rows = encoded(LabeledTexts(("ab", "abcde"), (1, 0), ("x", "y")), tokens, 3)
    assert torch.equal(rows.ids, torch.tensor([[1, 2, 0], [1, 2, 3]])) and rows.length.tolist() == [2, 3] and rows.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="number 2 first"):
        encoded(LabeledTexts(("ab", ""), (1, 0), ("x", "y")), tokens, 3)
