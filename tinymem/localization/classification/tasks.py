"""Generated tasks of text classification, from one that a word decides to one that no small model generalizes.

Rows are lists of words with the label that a rule gives them, labels drawn uniformly. Words are English where the model's tokenizer knows
them, and else numbers of two digits (models of arithmetic), a number in place of each word.

Shape suffixes: N rows, W words.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymem.data.labeled import LabeledTexts
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError

Integers = npt.NDArray[np.int64]

MARKS = "first last"
GOOD = "good great best happy love beautiful strong success"
BAD = "bad poor worst lost death weak failed problem"
TOPICS = (
    "game team season player league",
    "music song album band record",
    "war army battle military force",
    "river water island sea lake",
    "school university student education research",
    "church god religious bishop saint",
)
OTHERS = "the of and to in was that for it with as his on by at from this are which also"
GROUPS = tuple(tuple(group.split()) for group in (MARKS, GOOD, BAD, *TOPICS, OTHERS))
WORDS = tuple(word for group in GROUPS for word in group)
STARTS = tuple(sum(map(len, GROUPS[:i])) for i in range(len(GROUPS)))
MARK, POSITIVE, NEGATIVE, TOPIC, OTHER = 0, 1, 2, 3, len(GROUPS) - 1
LEAST_WORDS, POLAR = 9, 5
FIRST_NUMBER = 10


@dataclass(frozen=True)
class Task:
    """A generated task.

    Attributes:
        classes: number of classes.
        summary: its rule.
        write: puts the words of a label into rows [N, W] of neutral words, in place.
    """

    classes: int
    summary: str
    write: Callable[[np.random.Generator, Integers, Integers], None]


def keyword(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write the label's mark at a random place."""
    rank_NW = _ranks(rng, words_NW)
    words_NW[rank_NW == 0] = STARTS[MARK] + labels_N


def topic(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write words of the label's topic in half of the places."""
    size = len(GROUPS[TOPIC])
    drawn_NW = STARTS[TOPIC] + size * labels_N[:, None] + rng.integers(size, size=words_NW.shape)
    _write(words_NW, _ranks(rng, words_NW) < words_NW.shape[1] // 2, drawn_NW)


def sentiment(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write five words of judgment, three or four of them good (label 1) or bad (label 0)."""
    rank_NW = _ranks(rng, words_NW)
    own_N1 = (POLAR // 2 + 1 + rng.integers(2, size=len(labels_N)))[:, None]
    is_good_NW = (rank_NW < own_N1) == (labels_N[:, None] == 1)
    drawn_NW = np.where(is_good_NW, _words_of(rng, POSITIVE, words_NW), _words_of(rng, NEGATIVE, words_NW))
    _write(words_NW, rank_NW < POLAR, drawn_NW)


def rating(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write twice as many good words as the label says, or one more."""
    _write_good(rng, words_NW, 2 * labels_N + rng.integers(2, size=len(labels_N)))


def order(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write both marks, that of the label before the other."""
    places_N2 = np.sort(np.argsort(_ranks(rng, words_NW), axis=1)[:, :2], axis=1)
    rows = np.arange(len(labels_N))
    words_NW[rows, places_N2[:, 0]] = STARTS[MARK] + labels_N
    words_NW[rows, places_N2[:, 1]] = STARTS[MARK] + 1 - labels_N


def parity(rng: np.random.Generator, words_NW: Integers, labels_N: Integers) -> None:
    """Write an even (label 0) or odd (label 1) number of good words, up to seven."""
    _write_good(rng, words_NW, labels_N + 2 * rng.integers(4, size=len(labels_N)))


TASKS = {
    "keyword": Task(2, "which of two words is in the row", keyword),
    "topic": Task(6, "the topic of half of the words", topic),
    "sentiment": Task(2, "whether good or bad words are more", sentiment),
    "rating": Task(5, "how many good words there are, in steps of two", rating),
    "order": Task(2, "which of two words comes first", order),
    "parity": Task(2, "whether the number of good words is odd", parity),
}


def generated(name: str, count: int, *, words: int = 12, seed: int = 0, vocabulary: tuple[str, ...] = WORDS) -> LabeledTexts:
    """Rows of a task; the first ones of a larger count are others.

    Args:
        name: of the task.
        count: of rows.
        words: of a row, at least 9.
        seed: of the rows.
        vocabulary: what stands for each of `WORDS`.
    """
    task, rng = TASKS[name], np.random.default_rng([seed, zlib.crc32(name.encode())])
    labels_N = rng.integers(task.classes, size=count)
    words_NW = _words_of(rng, OTHER, np.zeros((count, words), dtype=np.int64))
    task.write(rng, words_NW, labels_N)
    texts = tuple(" ".join(vocabulary[word] for word in row) for row in words_NW.tolist())
    return LabeledTexts(texts, tuple(labels_N.tolist()), tuple(map(str, range(task.classes))))


def vocabulary_for(tokens: ModelTokens) -> tuple[str, ...]:
    """English words if the model's tokenizer knows them, else numbers.

    Raises:
        UserError: a tokenizer that knows neither, or none.
    """
    try:
        tokens.encode([" ".join(WORDS)])
        return WORDS
    except UserError:
        numbers = tuple(str(FIRST_NUMBER + i) for i in range(len(WORDS)))
        tokens.encode([" ".join(numbers)])
        return numbers


def _ranks(rng: np.random.Generator, words_NW: Integers) -> Integers:
    """A permutation of the places of each row."""
    return rng.permuted(np.tile(np.arange(words_NW.shape[1]), (len(words_NW), 1)), axis=1)


def _words_of(rng: np.random.Generator, group: int, like_NW: Integers) -> Integers:
    return STARTS[group] + rng.integers(len(GROUPS[group]), size=like_NW.shape)


def _write_good(rng: np.random.Generator, words_NW: Integers, count_N: Integers) -> None:
    _write(words_NW, _ranks(rng, words_NW) < count_N[:, None], _words_of(rng, POSITIVE, words_NW))


def _write(words_NW: Integers, where_NW: npt.NDArray[np.bool_], drawn_NW: Integers) -> None:
    words_NW[where_NW] = drawn_NW[where_NW]
