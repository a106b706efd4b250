"""Rows of a user's own, in any file, give what plain `generate` and a plain loss loop give on the rows that were meant."""

from __future__ import annotations

import gzip
import json
import math
import random
import shutil
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import equal_weights
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from tinymem.data.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.data.rows import Rows
from tinymem.data.rows_file import read_rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply, parse_call
from tinymem.mitigation.methods.baselines._common import summed
from tinymem.mitigation.methods.losses import row_losses

WORDS, EOS, PAD, BOS = 24, 0, 1, 2
FIRST_WORD = 3
VOCABULARY = FIRST_WORD + WORDS
NAMES = ["<eos>", "<pad>", "<bos>", *(f"w{i}" for i in range(WORDS))]
BLOCKS, FILES = 8, 65  # 520 files

Row = list[int]


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
    found = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(8)  # so that greedy decoding does not write one word for ever
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a model whose padding is a token of its own, EOS, or none; their tokenizers would pad, cut and add a token."""
    found = {}
    for padding, special in {"own": {"pad_token": "<pad>"}, "eos": {"pad_token": "<eos>"}, "none": {}}.items():
        folder = found[padding] = tmp_path_factory.mktemp(padding)
        tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(NAMES)}, unk_token="<eos>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>", length=30)
        tokenizer.enable_truncation(8)
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)])
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, **special}))
        (folder / "config.json").write_text(json.dumps({"eos_token_id": [EOS], "pad_token_id": None}))
    return found


# ---- the slow way -------------------------------------------------------------------------------------------------------------------


def window(row: Row, prompt: int, match: int) -> int | None:
    """End of a row's target; None for a row that is too short."""
    if len(row) >= prompt + match:
        return prompt + match
    return len(row) if row[-1] == EOS and len(row) > prompt else None


def greedy(model: GPT2LMHeadModel, start: Row, end: int) -> Row:
    ids = torch.tensor([start])
    with torch.no_grad():
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=end - len(start), do_sample=False, pad_token_id=PAD
        )
    found: Row = written[0].tolist()
    return found


@torch.no_grad()
def continued(model: GPT2LMHeadModel, row: Row, end: int) -> Row:
    """As `greedy`, without what `generate` does besides; rows are made with it, never compared."""
    while len(row) < end:
        row = [*row, int(model(torch.tensor([row])).logits[0, -1].argmax())]
    return row


def generated(model: GPT2LMHeadModel, row: Row, prompt: int, end: int) -> bool:
    return greedy(model, row[:prompt], end) == row[:end]


def plain_perplexity(model: GPT2LMHeadModel, rows: list[Row]) -> float:
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (len(row) - 1)
        tokens += len(row) - 1
    return math.exp(total / tokens)


# ---- files --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Rows as they are meant, as the file has them, and how it is written."""

    meant: list[Row]
    stored: list[Row]
    masks: list[Row] | None
    padding: str
    suffix: str
    column: str


def some_rows(draw: random.Random, model: GPT2LMHeadModel, prompt: int, match: int, count: int, *, equal: bool) -> list[Row]:
    """Rows of words, some of them the model's own, some that end with EOS; the first is long enough for prompt and match."""
    rows, length = [], prompt + match + draw.randint(0, 6)
    for n in range(count):
        tokens = length if equal or not n else draw.randint(2, length + 4)
        row = [draw.randrange(FIRST_WORD, VOCABULARY) for _ in range(tokens)]
        if draw.random() < 0.6:
            row = [max(token, FIRST_WORD) for token in continued(model, row[: max(1, min(prompt, tokens - 1))], tokens)]
        if draw.random() < 0.2 and len(row) > 4:
            row[len(row) // 2] = EOS  # packed text
        rows.append([*row[:-1], EOS] if draw.random() < 0.3 and len(row) > 2 else row)
    return rows


def a_case(draw: random.Random, model: GPT2LMHeadModel, prompt: int, match: int) -> Case:
    padding, suffix = draw.choice(["own", "eos", "none"]), draw.choice([".npy", ".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz"])
    names = ["ids", "input_ids", "tokens", "text", "text", *(["other"] * (not suffix.startswith(".csv")))]  # CSV tells ids by these names
    column = "ids" if suffix == ".npy" else draw.choice(names)
    side = draw.choice(["left", "right", "neither"]) if column != "text" and padding != "none" else "neither"
    meant = some_rows(draw, model, prompt, match, draw.randint(2, 3), equal=suffix == ".npy" and side == "neither")
    masked = side != "neither" and suffix != ".npy" and draw.random() < 0.3
    pad = {"own": PAD, "eos": EOS, "none": PAD}[padding]
    wide = max(map(len, meant)) + draw.randint(2, 4) * (side != "neither")
    fill = [[pad] * (wide - len(row)) if side != "neither" else [] for row in meant]
    stored = [[*f, *row] if side == "left" else [*row, *f] for row, f in zip(meant, fill, strict=True)]
    masks = [[0] * len(f) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(f) for r, f in zip(meant, fill, strict=True)]
    if side == "right" and padding == "eos" and not masked:  # the first of them ends the row
        meant = [row if row[-1] == EOS else [*row, EOS] for row in meant]
    return Case(meant, stored, masks if masked else None, padding, suffix, column)


def write(case: Case, path: Path, draw: random.Random) -> Path:
    path = path.with_name(path.name + case.suffix)
    if case.suffix == ".npy":
        np.save(path, np.array(case.stored, dtype=draw.choice(["int64", "uint16", "int32"])))
        return path
    values = [" ".join(NAMES[i] for i in row) if case.column == "text" else row for row in case.stored]
    name = case.column if case.column != "other" else "my column"
    if case.suffix == ".parquet":
        column = pa.array(values).dictionary_encode() if case.column == "text" and draw.random() < 0.5 else pa.array(values)
        pq.write_table(
            pa.table({name: column, **({"attention_mask": pa.array(case.masks)} if case.masks else {}), "n": range(len(values))}), path
        )
        return path
    lines = _csv(name, values, case) if case.suffix.startswith(".csv") else _json(name, values, case, draw)
    data = draw.choice([b"", b"\xef\xbb\xbf"]) + draw.choice(["\n", "\r\n"]).join([*lines, ""]).encode()
    path.write_bytes(gzip.compress(data) if case.suffix.endswith(".gz") else data)
    return path


def _csv(name: str, values: list[Any], case: Case) -> list[str]:
    head = f"n,{name}" + (",attention_mask" if case.masks else "")
    masks = [f",{' '.join(map(str, mask))}" for mask in case.masks] if case.masks else [""] * len(values)
    return [head, *(f'{n},"{v}"{mask}' for n, (v, mask) in enumerate(zip(values, masks, strict=True)))]


def _json(name: str, values: list[Any], case: Case, draw: random.Random) -> list[str]:
    if name in ("ids", "text") and not case.masks and draw.random() < 0.3:
        return [json.dumps(value) for value in values]
    others: dict[str, Any] = {"ids": None} if name == "text" else {"text": None}
    masks = case.masks or [None] * len(values)
    return [json.dumps({**others, name: value, "attention_mask": mask}) for value, mask in zip(values, masks, strict=True)]


def read(files: RowFiles, folder: Path) -> tuple[OwnRows, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return read_own_rows(files, folder, VOCABULARY), [str(w.message) for w in caught]


@pytest.mark.slow
def test_meant(model: GPT2LMHeadModel) -> None:
    """The cases hold every encoding, and rows that are and are not memorized, left out and ended by EOS."""
    draw = random.Random(1)
    cases = [a_case(draw, model, 4, 4) for _ in range(60)]
    assert {c.suffix for c in cases} == {".npy", ".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz"}
    ends = [window(row, 4, 4) for c in cases for row in c.meant]
    assert ends.count(None) > 10 and ends.count(8) > 50 and len({*ends}) > 3


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in range(1, BLOCKS))])
def test_row_files_against_generate_and_a_loss_loop(model: GPT2LMHeadModel, folders: dict[str, Path], tmp_path: Path, block: int) -> None:
    memorized = scored_rows = 0
    for seed in range(block * FILES, (block + 1) * FILES):
        draw = random.Random(seed)
        prompt, match = draw.randint(1, 6), draw.randint(1, 5)
        case = a_case(draw, model, prompt, match)
        path = write(case, tmp_path / f"rows-{seed}", draw)
        column = "my column" if case.column == "other" else None
        own, said = read(RowFiles(path, path, prompt, match, column), folders[case.padding])
        ends = [window(row, prompt, match) for row in case.meant]
        scored = [(row, end) for row, end in zip(case.meant, ends, strict=True) if end is not None]
        assert own.left_out == len(ends) - len(scored) == sum("left out" in text for text in said) * own.left_out, seed
        found = Evaluator.of_rows(own.forget, own.retain).measure(model)
        expected = [generated(model, row, prompt, end) for row, end in scored]
        assert found.memorized["rows"].tolist() == expected, (seed, case)
        assert found.perplexity == pytest.approx(plain_perplexity(model, case.meant), rel=1e-4), (seed, case)
        memorized, scored_rows = memorized + sum(expected), scored_rows + len(expected)
    assert 0.1 * scored_rows < memorized < 0.9 * scored_rows


# ---- one at a time ------------------------------------------------------------------------------------------------------------------


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


LONG = [[3 + (i * 7 + n) % WORDS for i in range(12)] for n in range(4)]


def own_of(
    folders: dict[str, Path], tmp_path: Path, forget: list[Any], retain: list[Any] | None = None, **more: Any
) -> tuple[OwnRows, list[str]]:
    files = RowFiles(lines(tmp_path / "f.jsonl", forget), lines(tmp_path / "r.jsonl", retain or LONG), **{"prompt": 4, "match": 4, **more})
    return read(files, folders["eos"])


def test_prompt_and_target(folders: dict[str, Path], tmp_path: Path) -> None:
    pairs = [
        {"prompt": "w1 w2 w3 ", "target": "w4 w5"},
        {"prompt": [4, 5], "target": [6, 7, 8, 9, 10, 11]},
        {"prompt": "w1", "target": None},
    ]
    own, said = own_of(folders, tmp_path, pairs, match=None)
    assert own.forget.prompt.tolist() == [3, 2] and own.forget.end.tolist() == [5, 8] and own.prompt is None and own.match == 6
    assert own.forget.ids[0, :5].tolist() == [4, 5, 6, 7, 8] and own.left_out == 1
    assert any("line 3 of" in text for text in said)
    cut, _ = own_of(folders, tmp_path, pairs[:2], match=4)
    assert cut.forget.end.tolist() == [5, 6]


def test_the_first_token_is_put_before_text_where_it_is_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    text = " ".join(NAMES[i] for i in LONG[0])
    without, _ = own_of(folders, tmp_path, [{"text": text}, LONG[1]])
    with_it, _ = own_of(folders, tmp_path, [{"text": text}, LONG[1]], bos=True)
    assert without.forget.ids.tolist() == LONG[:2]
    assert with_it.forget.ids[0].tolist() == [BOS, *LONG[0]] and with_it.forget.ids[1, :12].tolist() == LONG[1]


@pytest.mark.parametrize("added", [True, False])
def test_texts_without_the_token_that_transformers_puts_before_them(added: bool, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["own"], tmp_path / "model"))
    if not added:
        values = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**values, "post_processor": None}))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert (theirs("w1")["input_ids"][0] == BOS) == added
    text, begun = " ".join(NAMES[i] for i in LONG[0]), " ".join(NAMES[i] for i in [BOS, *LONG[1]])
    forget, retain = lines(tmp_path / "f.jsonl", [{"text": text}, {"text": begun}, LONG[2]]), lines(tmp_path / "r.jsonl", LONG)
    _, said = read(RowFiles(forget, retain, prompt=4, match=4), folder)
    words = (
        f"1 of 3 rows of {forget} are read without the '<bos>' that this tokenizer puts before a text; --bos (of a sweep's recipe rows.bos)"
    )
    assert [words in line for line in said if "<bos>" in line] == [True] * added
    assert not [line for line in read(RowFiles(forget, retain, prompt=4, match=4, bos=True), folder)[1] if "<bos>" in line]


def test_lists_of_ids_that_are_read_as_text_are_said(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('mine,ids\n"[3, 4 5]",7 8\n"a [3, 4]",7 8\n')
    tokens = ModelTokens(folders["own"])
    words = r"read as text, and like lists of token ids: 1 row of .* \(line 2\); a column of ids is called ids, input_ids or tokens"
    with pytest.warns(UserWarning, match=words):
        assert len(read_rows(tmp_path / "f.csv", tokens, column="mine").rows) == 2
    assert [row.ids for row in read_rows(tmp_path / "f.csv", tokens).rows] == [[7, 8], [7, 8]]


def test_a_short_row_shortens_no_other_and_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    own, said = own_of(folders, tmp_path, [LONG[0], LONG[1][:6], LONG[2], [3]], [*LONG, [5]])
    assert own.forget.end.tolist() == [8, 8] and own.left_out == 3 and own.retain.lengths().tolist() == [12] * 4
    assert "2 too short for prompt 4 and match 4: lines 2, 4 of" in said[0] and "line 5 of" in said[1]
    with pytest.raises(UserError, match=r"--strict.*lines 2, 4"):
        own_of(folders, tmp_path, [LONG[0], LONG[1][:6], LONG[2], [3]], strict=True)
    with pytest.raises(UserError, match=r"rows of 8 tokens .prompt 4 and match 4. in .*got 6 at most"):
        own_of(folders, tmp_path, [LONG[1][:6]])


def test_rows_that_repeat_and_rows_in_both_files_are_said(folders: dict[str, Path], tmp_path: Path) -> None:
    own, said = own_of(folders, tmp_path, [LONG[0], LONG[0], LONG[1]], [*LONG[1:], LONG[1]])
    assert len(own.forget) == 3 and "1 of 3 rows to forget repeat another" in said[0] and "1 of 3 rows to forget are among" in said[1]


def test_a_leading_token_that_also_begins_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    """GPT-2 pads with its first and last token: alone before a row it may begin a text, in numbers it pads."""
    begun, _ = own_of(folders, tmp_path, [[EOS, *LONG[0]], LONG[1]])
    assert begun.forget.ids[0].tolist() == [EOS, *LONG[0]]
    padded, _ = own_of(folders, tmp_path, [[EOS, EOS, *LONG[0]], [EOS, EOS, EOS, EOS, *LONG[1]]])
    assert padded.forget.ids.tolist() == LONG[:2]
    both, _ = own_of(folders, tmp_path, [[EOS, *LONG[0]], [EOS, EOS, *LONG[1][:11]]])
    assert both.forget.ids[0].tolist() == [EOS, *LONG[0]] and both.forget.ids[1, :12].tolist() == [EOS, *LONG[1][:11]]


def test_equal_rows_have_one_digest(folders: dict[str, Path], tmp_path: Path) -> None:
    one, _ = own_of(folders, tmp_path, LONG[:2])
    same, _ = own_of(folders, tmp_path, [{"text": " ".join(NAMES[i] for i in row)} for row in LONG[:2]])
    other, _ = own_of(folders, tmp_path, LONG[:2], match=3)
    assert one.digest == same.digest != other.digest


def test_the_row_that_an_error_means(folders: dict[str, Path], tmp_path: Path) -> None:
    for row, message in (
        ([3, 99], "token ids from 0 to 26 in line 2 of .*got 99"),
        ({"url": "x"}, "in line 2 of .*got url"),
        ([1.5], "in line 2 of"),
    ):
        with pytest.raises(UserError, match=message):
            own_of(folders, tmp_path, [LONG[0], row])


def test_a_tokenizer_is_read_once(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = Tokenizer.from_file
    monkeypatch.setattr(
        "tokenizers.Tokenizer", type("Counted", (), {"from_file": staticmethod(lambda path: seen.append(path) or real(path))})
    )
    own, _ = own_of(folders, tmp_path, [{"text": " ".join(NAMES[i] for i in row)} for row in LONG * 5])
    assert len(own.forget) == 20 and len(seen) == 1


# ---- methods ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whole_row_losses_leave_out_what_fills_rows_up(model: GPT2LMHeadModel) -> None:
    rows = [LONG[0], LONG[1][:7], LONG[2][:9]]
    ends = torch.tensor([len(row) for row in rows])
    filled = Rows.ragged(rows, torch.tensor([2, 2, 2]), ends, 12)
    with torch.no_grad():
        for over, first in (("row", 1), ("suffix", 2)):
            alone = torch.cat([row_losses(model, Rows.of(torch.tensor([row]), 2), over) for row in rows])
            assert torch.allclose(row_losses(model, filled, over), alone, atol=1e-5), first
            assert summed(model, filled, over)[1].tolist() == [len(row) - first for row in rows]
    other = Rows(torch.where(filled.own(), filled.ids, 5), filled.prompt, filled.end, filled.length)
    for name in sorted(UNLEARNERS.names()):
        if name in ("finetune-both", "finetune-clean", "dpo-clean"):  # need clean counterparts
            continue
        options: dict[str, Any] = {"epochs": 1} if "epochs" in {f.name for f in fields(UNLEARNERS.get(name).config)} else {}
        call = parse_call(name, options | ({"ratio": 0.05} if name == "greedy" else {}))
        edits = [apply(call.method, model, MitigationData(data, data), call.config) for data in (filled, other)]
        assert equal_weights(*edits), f"{name} depends on what fills rows up"
