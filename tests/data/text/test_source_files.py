"""What files of a text corpus hold: marks, nulls, dictionary-encoded columns, CSV, compressed files, and files that are no text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models

from tinymem.data.text.source import open_source
from tinymem.data.text.tokenizer import open_tokenizer
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData

TEXTS = ["river stone", "lamp, garden", 'a "quoted" word', "naïve — text"]


def texts(place: Path, **options: Any) -> list[str]:
    source = open_source(WikiData(kind="wiki", source=str(place), **options))
    return [line.rstrip("\n") for block in source.blocks("train") for line in block]


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_file(rows: list[str | None]) -> bytes:
    cells = ["" if row is None else '"' + row.replace('"', '""') + '"' for row in rows]
    return "\n".join(["n,text", *(f"{n},{cell}" for n, cell in enumerate(cells)), ""]).encode()


ENCODINGS = {
    "plain.jsonl": json_lines(TEXTS),
    "mark.jsonl": b"\xef\xbb\xbf" + json_lines(TEXTS),
    "null.jsonl": json_lines([TEXTS[0], None, *TEXTS[1:], ""]),
    "UPPER.JSONL": json_lines(TEXTS),
    "packed.jsonl.gz": gzip.compress(json_lines(TEXTS)),
    "mark.txt": b"\xef\xbb\xbf" + "\n".join(TEXTS).encode(),
    "windows.txt": "\r\n".join(TEXTS).encode(),
    "PACKED.TXT.GZ": gzip.compress("\n".join(TEXTS).encode()),
    "packed.txt.gz": gzip.compress("\n".join(TEXTS).encode()),
    "plain.csv": csv_file([*TEXTS]),
    "mark.csv": b"\xef\xbb\xbf" + csv_file([*TEXTS]),
    "null.csv": csv_file([TEXTS[0], None, *TEXTS[1:]]),
    "packed.csv.gz": gzip.compress(csv_file([*TEXTS])),
    "windows.csv": csv_file([*TEXTS]).replace(b"\n", b"\r\n"),
    "blank.csv": csv_file([*TEXTS]).replace(b"\n", b"\n\n"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ENCODINGS[name])
    assert texts(tmp_path / name) == TEXTS
    assert texts(tmp_path) == TEXTS


@pytest.mark.parametrize(
    "column", [pa.array([TEXTS[0], None, *TEXTS[1:]]), pa.array(TEXTS).dictionary_encode()], ids=["null", "dictionary"]
)
def test_parquet(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == TEXTS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"url": "x"}\n', "'text' with text in line 1"),
        ("a.jsonl", b'{"text": 5}\n', "'text' with text in line 1"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz"),
        ("a.jsonl.gz", gzip.compress(json_lines(TEXTS * 50), mtime=0)[:-20], "a.jsonl.gz"),
        ("a.txt.gz", b"no gzip", "a.txt.gz"),
        ("a.txt.gz", gzip.compress("\n".join(TEXTS * 50).encode(), mtime=0)[:-20], "a.txt.gz"),
        ("a.csv", b"url\nx\n", "a column 'text'"),
        ("a.csv", b"text,n\nx,1\na lamp, a garden,2\n", "expected 2 cells in line 3 of .*, got 3"),
        ("a.csv", b"text\na lamp, a garden\n", "expected 1 cell in line 2 of .*, got 2"),
        ("a.csv", b"n,text\n1,a lamp\na garden\n2,x\n", "expected 2 cells in line 3 of .*, got 1"),
        ("a.csv", b'n,text\n1,"a lamp\n2,x\n3,y\n', "got at line 4: unexpected end of data"),
        ("a.csv", b'n,text\n1,"a lamp\n2,"x"\n', "got at line 3: ',' expected"),
        ("a.csv", b"text,text\nx,y\n", "two with the name 'text'"),
        ("a.csv", b"text\n\xff\xfe\n", "the byte 0xff in line 2"),
        ("a.txt", b"\xff\xfea", "the byte 0xff in line 1"),
    ],
)
def test_what_is_no_text(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        texts(tmp_path / name)


def test_licenses_and_read_mes_are_left_aside_and_all_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS))
    for name in ("LICENSE.txt", "README.txt", "readme.text", "NOTICE.txt"):
        (tmp_path / name).write_text("Permission is hereby granted\n")
    source = open_source(WikiData(kind="wiki", source=str(tmp_path)))
    assert source.files == {"train": [tmp_path / "a.jsonl"]} and len(source.aside) == 4
    read, aside = source.description()
    assert read == f"train: {tmp_path / 'a.jsonl'}" and "LICENSE.txt" in aside
    (tmp_path / "readme.jsonl").write_bytes(json_lines(["a text of that name"]))
    assert texts(tmp_path) == [*TEXTS, "a text of that name"]


# ---- tokenizers ---------------------------------------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, names: list[str], **config: Any) -> Path:
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def wiki(tokenizer: Path) -> WikiData:
    return WikiData(kind="wiki", source="x", tokenizer=str(tokenizer))


@pytest.mark.parametrize("written", ["<stop>", {"content": "<stop>", "special": True}])
def test_the_end_of_a_text_is_the_configuration_s(tmp_path: Path, written: Any) -> None:
    folder = folder_of(tmp_path, ["a", "</s>", "<stop>"], eos_token=written)
    for place in (folder, folder / "tokenizer.json"):
        found = open_tokenizer(wiki(place))
        assert (found.end_token, found.end_id) == ("<stop>", 2) and found.identity == f"{found.sha256} <stop>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    usual = open_tokenizer(wiki(folder))
    assert usual.end_id == 1 and usual.identity == usual.sha256


def test_a_folder_with_vocabulary_and_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found = open_tokenizer(wiki(folder))
    assert found.ids("abab", "text") == [3, 3] and found.end_id == 0 and found.vocab_size == 4
    assert open_tokenizer(wiki(folder)).path == found.path


def test_a_folder_without_a_tokenizer_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a tokenizer in .*tokenizer\.json") as error:
        open_tokenizer(wiki(tmp_path))
    assert "Hub" not in str(error.value)
