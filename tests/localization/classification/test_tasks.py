"""Generated tasks of classification: each row's label follows from its words by the task's rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.localization.classification.tasks import BAD, GOOD, MARKS, TASKS, TOPICS, WORDS, generated, vocabulary_for

Words = list[str]


def good(words: Words) -> int:
    return sum(word in GOOD.split() for word in words)


RULES: dict[str, Callable[[Words], int]] = {
    "keyword": lambda words: next(i for i, mark in enumerate(MARKS.split()) if mark in words),
    "topic": lambda words: max(range(6), key=lambda i: sum(word in TOPICS[i].split() for word in words)),
    "sentiment": lambda words: int(good(words) > sum(word in BAD.split() for word in words)),
    "rating": lambda words: good(words) // 2,
    "order": lambda words: [word for word in words if word in MARKS.split()].index(MARKS.split()[0]),
    "parity": lambda words: good(words) % 2,
}


@pytest.mark.parametrize("name", TASKS)
def test_a_label_follows_from_the_words(name: str) -> None:
    rows = generated(name, 300, words=10, seed=3)
    assert [RULES[name](text.split()) for text in rows.texts] == list(rows.labels)
    assert {len(text.split()) for text in rows.texts} == {10} and len(rows.classes) == TASKS[name].classes
    assert min(Counter(rows.labels).values()) > 0.7 * 300 / TASKS[name].classes, "labels are drawn uniformly"
    assert rows == generated(name, 300, words=10, seed=3) != generated(name, 300, words=10, seed=4)


def test_six_tasks_of_which_two_have_more_than_two_classes() -> None:
    assert len(RULES) == len(TASKS) == 6 and sorted(task.classes for task in TASKS.values()) == [2, 2, 2, 2, 5, 6]
    assert len(set(WORDS)) == len(WORDS)


def test_a_model_of_arithmetic_gets_numbers(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({character: i for i, character in enumerate("0123456789 ")}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    numbers = vocabulary_for(ModelTokens(tmp_path))
    assert len(set(numbers)) == len(WORDS) and all(number.isdecimal() and len(number) == 2 for number in numbers)
    row = generated("rating", 1, vocabulary=numbers).texts[0]
    assert generated("rating", 1).texts[0].split() == [WORDS[numbers.index(word)] for word in row.split()]
