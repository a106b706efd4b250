# ruff: noqa: F401, F811 (fixtures are imported by name)
"""Text corpora: resuming, caches, bad input, the library datasets, and known figures of real text if it is there."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_text import ALL, ROOT, SHARED, T, cache, folder, plain_ids, recipe, tokenizer, words, write_parquet

from tinymem.data.build import make_corpus
from tinymem.data.text import source as text_source
from tinymem.data.text.corpus import text_changed
from tinymem.errors import UserError

# ---- resuming and caches ------------------------------------------------------------------------------------------------------------


def shard_times(cache: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in cache.rglob("*.ids") if p.name != "train.ids"}


@pytest.mark.processes
def test_other_artifacts_tokenize_nothing_again(folder: Path, tokenizer: Path, cache: Path) -> None:
    make_corpus(recipe(folder, tokenizer), workers=1)
    before = shard_times(cache)
    assert len(before) > 3
    make_corpus(recipe(folder, tokenizer, ALL[0], seed=3), workers=1)
    assert shard_times(cache) == before


@pytest.mark.processes
def test_changed_text_is_seen_though_its_file_has_the_old_name(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    first = make_corpus(recipe(folder, tokenizer), tmp_path / "out", workers=1)
    path = folder / "train-00000-of-00001.parquet"
    times = path.stat()
    assert not text_changed(recipe(folder, tokenizer), tmp_path / "out")
    write_parquet(path, [" changed . \n", *words(300, 1)])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert text_changed(recipe(folder, tokenizer), tmp_path / "out")
    second = make_corpus(recipe(folder, tokenizer), workers=1)
    assert second.sha256() != first.sha256()
    assert (second.clean[0] == plain_ids(tokenizer, [" changed . \n", *words(300, 1)])[:T]).all()


@pytest.mark.processes
def test_a_damaged_block_is_made_again(folder: Path, tokenizer: Path, cache: Path) -> None:
    before = make_corpus(recipe(folder, tokenizer), workers=1).sha256()
    shard = next(p for p in cache.rglob("*.ids") if p.name != "train.ids")
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    make_corpus(recipe(folder, tokenizer, ALL[0]), workers=1)
    data[5] ^= 1
    assert shard.read_bytes() == bytes(data)
    assert make_corpus(recipe(folder, tokenizer), workers=1).sha256() == before


KILLED = """
import sys, time
from pathlib import Path
from tinymem.data.text import source as text_source
from tinymem.data.text import tokens as text_tokens
from tinymem.data.build import make_corpus
from tinymem.recipe.recipe import load_recipe
text_source.BLOCK_CHARACTERS = 5000
blocks = text_source.TextSource.blocks
def slow(self, split):
    for n, block in enumerate(blocks(self, split)):
        if n == 6:
            print("waiting", flush=True)
            time.sleep(60)
        yield block
text_source.TextSource.blocks = slow
make_corpus(load_recipe(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""


@pytest.mark.processes
def test_a_killed_run_goes_on(folder: Path, tokenizer: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinymem.recipe.recipe import dump_recipe

    (tmp_path / "r.yaml").write_text(dump_recipe(recipe(folder, tokenizer, *ALL)))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "r.yaml"), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout and process.stdout.readline() == b"waiting\n"
    while not (before := shard_times(cache)):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out").exists()
    killed = make_corpus(recipe(folder, tokenizer, *ALL), tmp_path / "out", workers=2)
    after = shard_times(cache)
    assert before.items() <= after.items() and len(after) > len(before)
    monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / "fresh"))
    assert make_corpus(recipe(folder, tokenizer, *ALL), workers=2).sha256() == killed.sha256()


# ---- bad input ----------------------------------------------------------------------------------------------------------------------


def _bad_text(kind: str, folder: Path) -> Path:
    place = folder.parent / "bad"
    place.mkdir()
    if kind == "empty file":
        (place / "train.txt").touch()
    elif kind == "no rows":
        write_parquet(place / "train.parquet", [""])
    elif kind == "too short":
        (place / "train.txt").write_text("ban bar")
    elif kind == "utf-8":
        (place / "train.txt").write_bytes(b"good\nbad \xff\xfe\n")
    elif kind == "json":
        (place / "train.jsonl").write_text('{"text": "a"}\n{"text"\n')
    elif kind == "json without text":
        (place / "train.jsonl").write_text('{"txt": "a"}\n')
    elif kind == "surrogate":
        (place / "train.jsonl").write_text('{"text": "a \\ud800 b"}\n')
    elif kind == "not parquet":
        (place / "train.parquet").write_bytes(b"PAR1 no")
    elif kind == "column":
        write_parquet(place / "train.parquet", words(9), column="body")
    elif kind == "number column":
        pq.write_table(pa.table({"text": [1, 2]}), place / "train.parquet")
    elif kind == "no train":
        write_parquet(place / "test.parquet", words(9))
    elif kind == "a picture":
        (place / "train.png").write_bytes(b"png")
    elif kind == "missing":
        return place / "nowhere"
    return place


@pytest.mark.processes
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("empty file", "empty file"),
        ("no rows", "at least data.row_tokens"),
        ("too short", "use more text: some 20,000 characters are enough"),
        ("utf-8", "the byte 0xff in line 2"),
        ("json", "JSON in line 2"),
        ("json without text", "data.text_column"),
        ("surrogate", "surrogate"),
        ("not parquet", "whole Parquet"),
        ("column", "got body"),
        ("number column", "got int64"),
        ("no train", "found only test"),
        ("a picture", "found none"),
        ("nothing in it", "found none"),
        ("missing", "found nothing there"),
    ],
)
def test_bad_text_says_so_and_leaves_nothing(kind: str, expected: str, folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_corpus(recipe(_bad_text(kind, folder), tokenizer), tmp_path / "out", workers=1)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*.tmp"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("artifacts", "data", "expected"),
    [
        ([], {"vocab_size": 50257}, "got 400"),
        ([], {"tokenizer": "nowhere/tokenizer.json"}, "found none"),
        ([{"kind": "backdoor", "trigger": "QQQQ"}], {}, "expected at least 2"),
        ([{"kind": "backdoor", "trigger": " ban", "payload": " QQ"}], {}, "one token"),
        ([{"kind": "noise", "rows": 100_000}], {}, "different clean rows"),
        ([{"kind": "duplication", "rows": 100_000}], {}, "different clean rows"),
        ([{"kind": "canary", "length": 30}], {}, "shorten the template"),
        ([{"kind": "noise", "probability": 1.5}], {}, "probability"),
        ([], {"row_tokens": 8}, "evaluation.prompt"),
    ],
)
def test_bad_recipes_say_so(artifacts: list[dict], data: dict, expected: str, folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        place = {"tokenizer": tokenizer, **data}
        make_corpus(recipe(folder, place.pop("tokenizer"), *artifacts, **place), tmp_path / "out", workers=1)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_broken_tokenizer_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"expected a tokenizer\.json"):
        make_corpus(recipe(folder, tmp_path / "tokenizer.json"), workers=1)


FULL = """
import resource, signal, sys
from pathlib import Path
from tinymem.data.build import make_corpus
from tinymem.errors import UserError
from tinymem.recipe.recipe import load_recipe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)  # writing more fails as on a full disk
try:
    make_corpus(load_recipe(sys.argv[1]), Path(sys.argv[2]), workers=1)
except UserError as error:
    print(error)
"""


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
@pytest.mark.parametrize("limit", [1000, 12_000])  # in a tokenizing process; while rows are written
def test_a_full_disk_says_so_and_leaves_nothing(limit: int, folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    from tinymem.recipe.recipe import dump_recipe

    (tmp_path / "r.yaml").write_text(dump_recipe(recipe(folder, tokenizer, *ALL)))
    command = [sys.executable, "-c", FULL, str(tmp_path / "r.yaml"), str(tmp_path / "out"), str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)
    assert "could not write" in done.stdout and len(done.stdout.splitlines()) == 1, done
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.tmp"))


# ---- libraries and real text --------------------------------------------------------------------------------------------------------


def test_the_way_through_datasets(folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that Hub data sets take, on a local folder that the library loads."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    tables = text_source.hub_tables(str(folder), None)
    through = text_source.TextSource(text_source.Column("text"), tables=tables)
    direct = text_source.open_source(recipe(folder, tokenizer).data)
    assert through.splits == direct.splits == ["train", "validation", "test"]
    for split in through.splits:
        assert list(through.blocks(split)) == list(direct.blocks(split))
    rows = datasets.Dataset.from_dict({"text": ["a", None, "", "b"], "label": [None, 1, 2, 3]})
    assert list(text_source.TextSource(text_source.Column("text"), tables={"train": rows}).blocks("train")) == [["a", "b"]]
    with pytest.raises(UserError, match=r"expected text in column 'label' of the data set, got 1; set data\.text_column"):
        list(text_source.TextSource(text_source.Column("label"), tables={"train": rows}).blocks("train"))


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True, raising=False)
    with pytest.raises(UserError, match="could not load 'no-one/nothing'") as error:
        text_source.hub_tables("no-one/nothing", None)
    assert "\n" not in str(error.value)


def _real(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{name}")
    return path


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.parametrize(("split", "lines", "tokens"), [("validation", 3760, 247_289), ("test", 4358, 283_287)])
def test_official_wikitext_splits(split: str, lines: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_source, "BLOCK_CHARACTERS", 1_000_000)
    folder, gpt2 = _real("wikipedia/wikitext-103-raw-v1"), _real("tokenizers/gpt2/tokenizer.json")
    path = next(folder.glob(f"{split}-*.parquet"))
    rows = pq.read_table(path)["text"].to_pylist()
    assert len(rows) == lines
    window = {"row_tokens": 150, "vocab_size": 50257}
    corpus = make_corpus(recipe(path, gpt2, **window))
    assert (corpus.spec.text["train"].tokens, corpus.spec.text["train"].lines) == (tokens, sum(bool(r) for r in rows))
    expected = np.array(plain_ids(gpt2, rows[:400]))
    assert (corpus.clean.ravel()[: len(expected)] == expected).all()


@pytest.mark.thorough
@pytest.mark.processes
def test_real_text_has_the_known_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_source, "BLOCK_CHARACTERS", 1_000_000)
    folder, gpt2 = _real("wikipedia/enwiki-2018/5mb"), _real("tokenizers/gpt2/tokenizer.json")
    corpus = make_corpus(recipe(folder, gpt2, row_tokens=150, vocab_size=50257))
    assert corpus.spec.text["train"].tokens == 1_081_045
    assert corpus.vocab_size == 50257 and corpus.clean.dtype == np.uint16 and isinstance(corpus.clean, np.memmap)


READ = """
import sys
from pathlib import Path
import pyarrow.parquet
from tinymem.data.text.source import Column, TextSource
def peak():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
blocks = TextSource(Column("text"), files={"train": [Path(sys.argv[1])]}).blocks("train")
before = peak()
print(sum(1 for _ in blocks), peak() - before)
"""


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("groups", [1, 30])
def test_reading_parquet_takes_little_memory(groups: int, tmp_path: Path) -> None:
    """Neither one large row group nor many small ones pile up (pyarrow reads ahead by default)."""
    text = random.Random(0).randbytes(2500 * 30_000).hex()
    lines = [text[n : n + 5000] for n in range(0, len(text), 5000)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": lines}), path, row_group_size=len(lines) // groups, compression="none", use_dictionary=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-c", READ, str(path)]
    blocks, grown = map(int, subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split())
    assert path.stat().st_size > 150e6 and blocks > 50
    assert grown < 80, f"{grown} MB more than before the file was opened"
