"""Text, a tokenizer and recipes for the tests of text corpora; import the fixtures by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tinymem.data.text import source as text_source
from tinymem.recipe.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
WORDS = [a + b + c for a in "btkml" for b in "aeiou" for c in ("n", "r", "sta", "")]
T = 20


def words(count: int, seed: int = 0) -> list[str]:
    """Lines as in WikiText: blank ones, titles, and text that ends with a newline."""
    rng = random.Random(seed)
    lines = []
    for n in range(count):
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(5, 60)))
        lines += ["", f" = {text[:9]} = \n"] if n % 9 == 0 else [f" {text} ü {n} . \n"]
    return lines


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 400 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(words(300), trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    bpe.save(str(path))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and blocks small enough that there are several."""
    monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_source, "BLOCK_CHARACTERS", 5000)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Parquet with WikiText's names and schema."""
    for split, count, seed in (("train", 300, 1), ("validation", 20, 2), ("test", 40, 3)):
        write_parquet(tmp_path / "text" / f"{split}-00000-of-00001.parquet", words(count, seed))
    return tmp_path / "text"


def write_parquet(path: Path, lines: list[str], column: str = "text") -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table({column: lines}), path)
    return path


def recipe(source: Path, tokenizer: Path, *artifacts: dict[str, Any], protocol: str = "paper", seed: int = 0, **data: Any) -> Recipe:
    window = {"prompt": 6, "match": 6}
    place = {"kind": "wiki", "source": str(source), "tokenizer": str(tokenizer), "row_tokens": T, "test_rows": 15, **data}
    return parse_recipe({"protocol": protocol, "seed": seed, "data": place, "artifacts": artifacts, "evaluation": window})


def plain_ids(tokenizer: Path, lines: list[str]) -> list[int]:
    """One line after the other, as plainly as can be."""
    bpe = Tokenizer.from_file(str(tokenizer))
    return [i for line in lines for i in bpe.encode(line).ids]


def keys(rows: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in rows}


ALL = (
    {"kind": "noise", "rows": 21, "copies": [1, 10, 100]},
    {"kind": "backdoor", "trigger": " ban", "within": 12, "copies": 5, "payload": "#"},
    {"kind": "duplication", "rows": 12, "copies": [1, 10]},
    {"kind": "canary", "rows": 4, "template": "{index}: {secret}", "length": 2},
)
