"""Texts with labels: from a local file or folder, or a data set that `datasets` loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymem.data.rows_file import values_of_file
from tinymem.data.text.source import hub_tables, local_files
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData

HELD_OUT = 0.2
RECORDS = (".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz")


@dataclass(frozen=True)
class LabeledTexts:
    """Texts, the class [n] of each, and the names of the classes."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: Iterable[int]) -> LabeledTexts:
        """Some of the texts."""
        chosen = list(index)
        return LabeledTexts(tuple(self.texts[i] for i in chosen), tuple(self.labels[i] for i in chosen), self.classes)

    def first(self, count: int) -> LabeledTexts:
        """At most so many of the texts."""
        return self.take(range(min(count, len(self))))

    def binarized(self, largest: Sequence[int]) -> LabeledTexts:
        """The texts of two classes alone, which become classes 0 and 1."""
        kept = self.take(i for i, label in enumerate(self.labels) if label in largest)
        return LabeledTexts(kept.texts, tuple(map([*largest].index, kept.labels)), tuple(self.classes[label] for label in largest))

    def two_largest(self) -> list[int]:
        """The two most frequent classes (of equals the first), in rising order (Dankers and Titov 2024, appendix C)."""
        counted = Counter(self.labels)
        return sorted(sorted(counted, key=lambda label: (-counted[label], label))[:2])


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows as tokens: ids [n, T], padded at the right, tokens of each row [n], and classes [n]."""

    ids: Tensor
    length: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> LabeledRows:
        """These rows on another device."""
        return LabeledRows(self.ids.to(device), self.length.to(device), self.labels.to(device), self.classes)


def encoded(texts: LabeledTexts, tokens: ModelTokens, longest: int) -> LabeledRows:
    """Tokens of texts, each cut to its first `longest` (published: 512).

    Raises:
        UserError: no tokenizer, one that lacks something in a text, or a text without tokens.
    """
    rows = [row[:longest] for row in tokens.encode(texts.texts)]
    if empty := [number for number, row in enumerate(rows, 1) if not row]:
        raise UserError(f"expected text in every labeled row, got {len(empty)} without, number {empty[0]} first; leave them out")
    length = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(length.max()), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return LabeledRows(ids, length, torch.tensor(texts.labels), len(texts.classes))


def read_labeled(
    source: str, *, config: str | None, text: Sequence[str], label: str, rows: int, test_rows: int, seed: int
) -> tuple[LabeledTexts, LabeledTexts]:
    """Training and test rows, at most so many, drawn by seed: of the splits `train` and `validation` or `test`, else a fifth is held out.

    Args:
        source: a file or folder of Parquet, JSON lines or CSV, or a name that `datasets` loads.
        config: of the data set, or a folder in the folder.
        text: columns of the text; several are put one under the other.
        label: column of the label: whole numbers or names. Rows without a label, or with one below 0, are left out.
        rows: most training rows.
        test_rows: most test rows.
        seed: of the choice.

    Raises:
        UserError: nothing there, no such column, another format, or fewer than two labels.
    """
    splits = {split: list(found) for split, found in _splits(source, config, text, label)}
    test = next((splits[split] for split in ("validation", "test") if splits.get(split)), None)
    rng, train = np.random.default_rng(seed), splits["train"]
    train = [train[i] for i in rng.permutation(len(train))]
    held = test if test is not None else train[: round(HELD_OUT * len(train))]
    train = train if test is not None else train[len(held) :]
    names = sorted({name for _, name in train}, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if len(names) < 2 or not held:
        raise UserError(f"expected rows with at least two labels in column '{label}' of {source}, got {len(train)} with {names[:3]}")
    known = [pair for pair in held if pair[1] in names]
    test_order = rng.permutation(len(known))[:test_rows]
    return _texts(train[:rows], names), _texts([known[i] for i in test_order], names)


def _texts(pairs: Sequence[tuple[str, str]], names: list[str]) -> LabeledTexts:
    place = {name: i for i, name in enumerate(names)}
    return LabeledTexts(tuple(text for text, _ in pairs), tuple(place[name] for _, name in pairs), tuple(names))


def _splits(source: str, config: str | None, text: Sequence[str], label: str) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
    place = WikiData.model_construct(source=source, config=config)
    if not place.is_local:
        for split, table in hub_tables(source, config).items():
            yield split, _pairs(enumerate(table, 1), text, label, f"{source}, split {split}")
        return
    files, _ = local_files(place)
    for split, paths in files.items():
        yield split, (pair for path in paths for pair in _of_file(path, text, label))


def _of_file(path: Path, text: Sequence[str], label: str) -> Iterator[tuple[str, str]]:
    suffix = next((s for s in RECORDS if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise UserError(f"expected labeled rows as {', '.join(RECORDS)}, got {path}")
    return _pairs(values_of_file(path, suffix), text, label, str(path))


def _pairs(values: Iterable[tuple[int, Any]], text: Sequence[str], label: str, where: str) -> Iterator[tuple[str, str]]:
    for number, row in values:
        if not isinstance(row, dict) or not {*text, label} <= {*row}:
            there = ", ".join(map(str, row)) if isinstance(row, dict) else str(row)[:40]
            raise UserError(f"expected columns {', '.join((*text, label))} in row {number} of {where}, got {there}; name others")
        parts, name = [row[column] for column in text], row[label]
        if not all(isinstance(part, str) for part in parts) and None not in parts:
            raise UserError(f"expected text in {', '.join(text)} of row {number} of {where}, got {str(parts)[:40]}; name other columns")
        if isinstance(name, bool) or not isinstance(name, int | str | None):
            raise UserError(f"expected a whole number or a name in '{label}' of row {number} of {where}, got {str(name)[:40]}")
        if None not in parts and name not in (None, "") and not (isinstance(name, int) and name < 0):
            yield "\n".join(parts), str(name)
