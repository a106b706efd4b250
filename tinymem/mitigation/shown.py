"""Memorization that one can read: some rows of each artifact, what should follow their prompts, and what a model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import nn

from tinymem.data.rows import Rows
from tinymem.evaluation.decoding import greedy
from tinymem.evaluation.probes import Flags
from tinymem.mitigation.subject import RowSplit, Subject
from tinymem.results.shown import Said, ShownRow

TRAINED_MODEL = "trained model"
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Prompts:
    """Rows that are shown of every model: their tokens, and their texts.

    Attributes:
        rows: tokens [n, T], on the model's device.
        shown: the same rows as texts, without what any model says.
        decode: token ids to text.
        eos: ids that end a continuation.
        forbid: the token that decoding may not produce.
        has_target: whether it is known what should follow.
    """

    rows: Rows
    shown: tuple[ShownRow, ...]
    decode: Decode
    eos: frozenset[int] = frozenset()
    forbid: int | None = None
    has_target: bool = True

    def said_by(self, model: nn.Module, label: str = TRAINED_MODEL) -> list[ShownRow]:
        """The rows with what a model says; without a target all of it is new."""
        written = greedy(model, self.rows, forbid=self.forbid).tolist()
        prompts, ends = self.rows.prompt.tolist(), self.rows.end.tolist()
        answers = [self._until_eos(ids[prompt:end]) for ids, prompt, end in zip(written, prompts, ends, strict=True)]
        targets = self.targets if self.has_target else [[]] * len(answers)
        found = zip(self.shown, answers, targets, strict=True)
        return [replace(row, said=(compared(label, answer, target, self.decode),)) for row, answer, target in found]

    def said_against(self, first: nn.Module, model: nn.Module, label: str) -> list[ShownRow]:
        """The rows with what a model says, marked where another one says something else: of prompts without a target."""
        written = [greedy(m, self.rows, forbid=self.forbid).tolist() for m in (first, model)]
        found = []
        for row, prompt, end, before, after in zip(self.shown, self.rows.prompt.tolist(), self.rows.end.tolist(), *written, strict=True):
            target, answer = (self._until_eos(ids[prompt:end]) for ids in (before, after))
            found.append(replace(row, said=(compared(label, answer, target, self.decode),)))
        return found

    @property
    def targets(self) -> list[list[int]]:
        """Token ids of what should follow each prompt."""
        prompts, ends = self.rows.prompt.tolist(), self.rows.end.tolist()
        return [ids[prompt:end] for ids, prompt, end in zip(self.rows.ids.tolist(), prompts, ends, strict=True)]

    def _until_eos(self, ids: list[int]) -> list[int]:
        """What a reader of the continuation sees: it ends with the first token that ends a sequence."""
        first = next((i for i, token in enumerate(ids) if token in self.eos), len(ids) - 1)
        return ids[: first + 1]


def prompts_of_subject(subject: Subject, count: int, decode: Decode, eos: frozenset[int], *, parted: bool = True) -> Prompts:
    """At most `count` memorized rows of each artifact, of those to forget and of the holdout; or, not `parted`, the first of all."""
    evaluator, memorized = subject.evaluator, subject.before.memorized
    chosen = {kind: choose(memorized[kind], subject.splits[kind] if parted else None, count) for kind in evaluator.probes}
    parts = [part for kind, found in chosen.items() for part in _parts(evaluator.probes[kind].rows, kind, found)]
    index = {kind: evaluator.probes[kind].index for kind in chosen}
    return prompts_of([(rows, kind, int(index[kind][place]), part) for rows, kind, place, part in parts], decode, eos, evaluator.forbid)


def prompts_of_rows(rows: Rows, memorized: Flags, count: int, decode: Decode, eos: frozenset[int], forbid: int | None) -> Prompts:
    """At most `count` rows of a user's own, the memorized ones first."""
    return prompts_of(list(_parts(rows, "rows", choose(memorized, None, count))), decode, eos, forbid)


def choose(memorized: Flags, split: RowSplit | None, count: int) -> list[tuple[int, str]]:
    """Places of the rows to show, each with its part: the first to forget, and of the holdout; the first of all if none is memorized.

    >>> flags = np.array([False, True, True, True])
    >>> choose(flags, RowSplit(np.array([False, True, True, False]), np.array([False, False, False, True])), 2)
    [(1, 'forget'), (3, 'holdout')]
    """
    if not memorized.any():
        return [(n, "not memorized") for n in range(min(count, len(memorized)))]
    if split is None:
        return [(int(n), "memorized") for n in np.flatnonzero(memorized)[:count]]
    forget, holdout = ([int(n) for n in np.flatnonzero(flags & memorized)] for flags in (split.forget, split.holdout))
    held = min(len(holdout), max(count // 2, count - len(forget)))
    picked = [(n, "forget") for n in forget[: count - held]] + [(n, "holdout") for n in holdout[:held]]
    rest = [(int(n), "memorized") for n in np.flatnonzero(memorized & ~split.forget & ~split.holdout)]
    return [*picked, *rest[: count - len(picked)]]


def prompts_of(parts: Sequence[tuple[Rows, str, int, str]], decode: Decode, eos: frozenset[int], forbid: int | None = None) -> Prompts:
    """Rows of one each, with artifact, number and part, as prompts."""
    shown = []
    for row, kind, number, part in parts:
        ids, prompt, end = row.ids[0].tolist(), int(row.prompt[0]), int(row.end[0])
        shown.append(ShownRow(kind, number, part, decode(ids[:prompt]), decode(ids[prompt:end])))
    length = max((row.ids.shape[1] for row, *_ in parts), default=1)
    rows = [torch.nn.functional.pad(row.ids, (0, length - row.ids.shape[1])) for row, *_ in parts]
    device = parts[0][0].ids.device if parts else torch.device("cpu")
    empty = torch.zeros((0, length), dtype=torch.int64, device=device)
    prompts, ends = torch.cat([empty[:, 0], *(row.prompt for row, *_ in parts)]), torch.cat([empty[:, 0], *(row.end for row, *_ in parts)])
    joined = Rows(torch.cat([empty, *rows]), prompts, ends)
    return Prompts(joined, tuple(shown), decode, eos, forbid)


def _parts(rows: Rows, kind: str, chosen: Sequence[tuple[int, str]]) -> Iterator[tuple[Rows, str, int, str]]:
    for place, part in chosen:
        yield rows.take(torch.tensor([place], device=rows.ids.device)), kind, place, part


def compared(label: str, answer: Sequence[int], target: Sequence[int], decode: Decode) -> Said:
    """A continuation, with the tokens marked that are not the target's at their place; nothing is marked without a target."""
    wrong = [bool(target) and (i >= len(target) or token != target[i]) for i, token in enumerate(answer)]
    missing = max(0, len(target) - len(answer))
    return Said(label, decode(answer), tuple(spans(answer, wrong, decode)), sum(wrong) + missing, len(target))


def spans(ids: Sequence[int], marked: Sequence[bool], decode: Decode) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of each run of marked tokens; a token that is part of a character takes all of it."""
    text = decode(ids)
    known = {0: 0, len(ids): len(text)} | {k: len(piece) for k in range(1, len(ids)) if text.startswith(piece := decode(ids[:k]))}
    place = 0
    for mark, run in groupby(marked):
        first, place = place, place + len(list(run))
        if mark:
            yield known[max(k for k in known if k <= first)], known[min(k for k in known if k >= place)]
