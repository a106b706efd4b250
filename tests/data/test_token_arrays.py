"""Published memorized sets in the formats that they come in, and files that are not what they seem."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_heart import ByHeart, by_heart

from tinymem.data.rows_file import read_rows
from tinymem.data.token_arrays import RawLayout, read_token_array
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the published sets are not on this machine")


@pytest.fixture
def model(tmp_path: Path) -> ByHeart:
    return by_heart(tmp_path / "model")


def read(path: Path, model: ByHeart, layout: RawLayout | None = None) -> list[tuple[list[int], int | None]]:
    return [(row.ids, row.prompt) for row in read_rows(path, ModelTokens(model.folder), layout=layout).rows]


@pytest.mark.training
def test_one_set_in_every_format(model: ByHeart, tmp_path: Path) -> None:
    rows = model.known
    torch.save(rows, tmp_path / "set.pt")
    np.save(tmp_path / "set.npy", rows.numpy().astype(np.uint16))
    rows.numpy().astype("<u2").tofile(tmp_path / "set.bin")
    np.save(tmp_path / "x_prefix.npy", rows[:, :8].numpy())
    np.save(tmp_path / "x_suffix.npy", rows[:, 8:].numpy())
    with (tmp_path / "set.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["paragraph", "id", "count", "em", "nll"], *[[model.text(row), i, 2, "50.0", 0.1] for i, row in enumerate(rows)]])
    strings = [{"prompt": model.text(r[:8]), "all": model.text(r), "prompt_len": 8, "category": ["Bible"]} for r in rows]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in strings))
    whole, prompted = [(row, None) for row in rows.tolist()], [(row, 8) for row in rows.tolist()]
    assert read(tmp_path / "set.pt", model) == read(tmp_path / "set.npy", model) == read(tmp_path / "set.csv", model) == whole
    assert read(tmp_path / "set.bin", model, RawLayout.parse("uint16x20")) == whole
    assert read(tmp_path / "x_prefix.npy", model) == read(tmp_path / "set.jsonl", model) == prompted


@pytest.mark.parametrize("text", ["1 2 3.5 4", "[1, 2, -3]", "[ 1  2 ... 8 9]", "document-17"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_of_ids_is_never_read_as_a_text(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(f'ids,text\n"{text}",w1 w2\n' if suffix == ".csv" else json.dumps({"ids": text, "text": "w1 w2"}) + "\n")
    with pytest.raises(UserError, match=rf"expected token ids such as \[1, 2\] in the column 'ids' of line \d of .*{suffix}, got '"):
        read_rows(path, ModelTokens(tmp_path))


@pytest.mark.training
def test_a_prompt_that_another_tokenizer_cut(model: ByHeart, tmp_path: Path) -> None:
    line = {"prompt": "w1 w2 w3", "all": "w1 w2 w3 w4", "prompt_len": 4, "category": []}
    (tmp_path / "set.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"its first 4 tokens, as prompt_len says, got 3 .*; the set is of another model's tokenizer"):
        read(tmp_path / "set.jsonl", model)
    (tmp_path / "set.jsonl").write_text(json.dumps({**line, "prompt_len": "many"}) + "\n")
    with pytest.raises(UserError, match="expected a text `all` and a number `prompt_len` in line 1"):
        read(tmp_path / "set.jsonl", model)


class Runs:
    """Code in a pickle."""

    def __reduce__(self) -> Any:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Runs(), "or a pickle that would run code"),
        ({"ids": torch.zeros(2, 2)}, "expected a tensor of token ids .*, got dict"),
        (torch.zeros(2, 2), "got a tensor of torch.float32"),
        (torch.zeros(4, dtype=torch.int64), r"expected an integer array \[rows, tokens\] .*, got int64 \[4\]"),
    ],
)
def test_torch_files_that_are_no_rows(content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(UserError, match=message):
        read_token_array(tmp_path / "set.pt")
    assert "run" not in capsys.readouterr().out
    (tmp_path / "set.pt").write_bytes((tmp_path / "set.pt").read_bytes()[:40])
    with pytest.raises(UserError, match=r"expected a tensor that torch\.save wrote"):
        read_token_array(tmp_path / "set.pt")


def test_raw_files_and_their_layout(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    np.arange(12, dtype="<u2").tofile(path)
    assert read_token_array(path, RawLayout("uint16", 4)).ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(UserError, match="give it with --raw"):
        read_token_array(path)
    with pytest.raises(UserError, match=r"expected rows of 10 bytes \(uint16x5\) in .*, got 24 bytes; check --raw"):
        read_token_array(path, RawLayout("uint16", 5))
    for text in ("uint16", "float32x4", "uint16x0", "x4"):
        with pytest.raises(UserError, match="such as uint16x2049"):
            RawLayout.parse(text)
    np.save(tmp_path / "a_prefix.npy", np.zeros((3, 4), dtype=np.int64))
    with pytest.raises(UserError, match=r"expected a_suffix.npy beside"):
        read_token_array(tmp_path / "a_prefix.npy")
    np.save(tmp_path / "a_suffix.npy", np.zeros((2, 4), dtype=np.int64))
    with pytest.raises(UserError, match="got 2 and 3"):
        read_token_array(tmp_path / "a_prefix.npy")


@pytest.mark.slow
@needs_shared
def test_the_published_sets(tmp_path: Path) -> None:
    sets = SHARED / "memorised"
    for name, tokenizer in (("gpt2", "gpt2"), ("pythia", "pythia")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_bytes((SHARED / "tokenizers" / tokenizer / "tokenizer.json").read_bytes())
    gpt2, pythia = ModelTokens(tmp_path / "gpt2"), ModelTokens(tmp_path / "pythia")
    pile = read_rows(sets / "pythia-6.9b-deduped" / "pile_bs0-100-dedup.pt", pythia).rows
    assert len(pile) == 505 and {len(row.ids) for row in pile} == {80}
    strings = read_rows(sets / "gpt2-xl" / "memorized_data-gpt2-xl.jsonl", gpt2).rows
    assert len(strings) == 98 and sorted(row.prompt or 0 for row in strings)[49] == 14
    with pytest.raises(UserError, match="the set is of another model's tokenizer"):
        read_rows(sets / "gpt2-xl" / "memorized_data-gpt2-xl.jsonl", pythia)
    paragraphs = read_rows(sets / "gpt-neo-125m" / "mem_strings.csv", gpt2).rows
    assert len(paragraphs) == 442 and sum(len(row.ids) == 100 for row in paragraphs) == 431
