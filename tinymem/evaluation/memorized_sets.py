"""Which rows of a text a model knows by heart, by the filters of Chang et al. (DEL): a set of memorized rows for any model.

In order: more than nine tenths of the target are greedy given the true tokens; target and free greedy continuation have at least 16
distinct tokens each; their texts are at most 20 edits apart; of rows that share more than a twentieth of their token 5-grams the closest
to its text is kept.

Source: Chang et al. 2024, "Do localization methods actually localize memorized data in LLMs?", and its code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from tinymem.errors import UserError
from tinymem.evaluation.duplicates import groups_of
from tinymem.models.precise_head import PreciseHead
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar


@dataclass(frozen=True)
class Filters:
    """The filters' limits; the defaults are the published ones.

    Attributes:
        prompt: tokens given.
        match: tokens that must follow.
        accuracy: share of the target that has to be exceeded by what is greedy given the true tokens, in [0, 1).
        distinct: least number of distinct tokens in the target, and in what greedy decoding writes.
        distance: most characters to insert, delete or replace between the two texts, prompts included.
        overlap: share of common 5-grams (Jaccard) above which two rows are one; 1 keeps all.
    """

    prompt: int = 32
    match: int = 48
    accuracy: float = 0.9
    distinct: int = 16
    distance: int = 20
    overlap: float = 0.05

    @property
    def tokens(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.match


@dataclass(frozen=True)
class Found:
    """A row that a model has memorized.

    Attributes:
        ids: its tokens.
        text: its text.
        accuracy: share of the target that is greedy given the true tokens.
        distance: characters between its text and what greedy decoding writes; 0 also where the texts agree and the tokens do not.
        exact: whether greedy decoding writes the very target.
        document: number of the document or row that it is from, from 0.
        offset: its first token there.
    """

    ids: list[int]
    text: str
    accuracy: float
    distance: int
    exact: bool
    document: int
    offset: int

    def as_dict(self) -> JsonObject:
        """The row as a line of JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Window:
    """A row to be tested."""

    ids: list[int]
    document: int
    offset: int


def memorized_windows(
    head: PreciseHead,
    windows: Sequence[Window],
    filters: Filters,
    decode: Callable[[list[list[int]]], list[str]],
    device: torch.device | str,
    batch_size: int,
) -> list[Found]:
    """Those of some rows that pass the filters on the row itself; batches are of one shape, the last filled up with its first row."""
    found: list[Found] = []
    for start in range(0, len(windows), batch_size):
        part = windows[start : start + batch_size]
        filled = [*part, *[part[0]] * (batch_size - len(part))]
        ids_BT = torch.tensor([window.ids for window in filled], dtype=torch.int64).to(device)
        right_BP = head.choices(ids_BT, filters.prompt) == ids_BT[:, filters.prompt :]
        accuracy = right_BP.double().mean(1).tolist()
        passed = [
            i for i in range(len(part)) if accuracy[i] > filters.accuracy and len({*part[i].ids[filters.prompt :]}) >= filters.distinct
        ]
        if passed:
            written_BT = continued(head, ids_BT, right_BP, filters.prompt)
            found += _close(part, passed, written_BT.tolist(), accuracy, filters, decode)
    return found


def continued(head: PreciseHead, ids_BT: Tensor, right_BP: Tensor, prompt: int) -> Tensor:
    """Rows [B, T] with the target as free greedy decoding writes it; rows that teacher forcing finds right throughout are their own."""
    written_BT, left_B = ids_BT.clone(), ~right_BP.all(1)
    for place in range(prompt, ids_BT.shape[1]) if bool(left_B.any()) else ():
        next_B = head.choices(written_BT, prompt)[:, place - prompt]
        written_BT[left_B, place] = next_B[left_B]
    return written_BT


def _close(
    part: Sequence[Window],
    passed: Sequence[int],
    written: Sequence[list[int]],
    accuracy: Sequence[float],
    filters: Filters,
    decode: Callable[[list[list[int]]], list[str]],
) -> list[Found]:
    """The rows whose own continuation is rich and close enough to the text."""
    rich = [i for i in passed if len({*written[i][filters.prompt :]}) >= filters.distinct]
    texts = decode([part[i].ids for i in rich])
    found = []
    for i, text, own in zip(rich, texts, decode([written[i] for i in rich]), strict=True):
        if (distance := edits(text, own)) <= filters.distance:
            exact = written[i] == part[i].ids
            found.append(Found(part[i].ids, text, accuracy[i], distance, exact, part[i].document, part[i].offset))
    return found


def edits(one: str, other: str) -> int:
    """Characters to insert, delete or replace (Levenshtein)."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise UserError("finding memorized rows needs rapidfuzz, which is not installed; try: pip install 'tinymem[text]'") from None
    distance: int = Levenshtein.distance(one, other)
    return distance


def without_duplicates(rows: Sequence[Found], overlap: float, bar: Bar | None = None) -> list[Found]:
    """Of each group of rows that are linked by common 5-grams the one with the least distance, the earliest of several; by distance."""
    best: dict[int, Found] = {}
    for group, row in zip(groups_of([row.ids for row in rows], overlap, bar), rows, strict=True):
        if row.distance < best.setdefault(group, row).distance:
            best[group] = row
    return sorted(best.values(), key=lambda row: (row.distance, row.document, row.offset))
