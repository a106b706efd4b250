"""Sets of memorized rows: found in a corpus as plain `generate` finds them, in one go or after a stop, and never half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from by_heart import KNOWN, LENGTH, MATCH, PROMPT, WORDS, ByHeart, by_heart
from helpers import tinymem
from tokenizers import Tokenizer, processors

from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.data.windows import CorpusChoice
from tinymem.errors import UserError
from tinymem.evaluation.memorized_sets import Filters, Window, edits, memorized_windows
from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.precise_head import precise_head
from tinymem.runs import find_memorized as module
from tinymem.runs.find_memorized import Search, find_memorized

pytestmark = pytest.mark.training
FILTERS = Filters(PROMPT, MATCH, distinct=6)
WINDOW = ("--prompt", PROMPT, "--match", MATCH)


@pytest.fixture
def model(tmp_path: Path) -> ByHeart:
    return by_heart(tmp_path / "model")


def mixed(model: ByHeart) -> torch.Tensor:
    """Known rows, rows with a wrong last token, and strange ones, in some order."""
    near = model.known.clone()
    near[:, -1] = near[:, -1] % WORDS + 1
    rows = torch.cat([model.known, near, model.others])
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))]


def generated(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """transformers' greedy continuation of each row's prompt, one row at a time."""
    options = {"do_sample": False, "max_new_tokens": MATCH, "min_new_tokens": MATCH, "use_cache": True, "pad_token_id": 0}
    return torch.cat([model.generate(row[None, :PROMPT], **options) for row in rows])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("batch", [64, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 7))])
def test_what_is_found_is_what_generate_writes(model: ByHeart, batch: int) -> None:
    loaded: Any = load_checkpoint(model.folder).model
    rows, written = mixed(model), generated(loaded, mixed(model))
    windows = [Window(row, i, 0) for i, row in enumerate(rows.tolist())]
    with precise_head(loaded) as head:
        found = memorized_windows(head, windows, FILTERS, lambda ids: [" ".join(map(str, row)) for row in ids], "cpu", batch)
        right = (head.choices(rows, PROMPT) == rows[:, PROMPT:]).double().mean(1)
    texts = [" ".join(map(str, row)) for row in rows.tolist()]
    own = [" ".join(map(str, row)) for row in written.tolist()]
    expected = {
        i: (edits(texts[i], own[i]), texts[i] == own[i])
        for i in range(len(rows))
        if right[i] > 0.9
        and min(len({*rows[i, PROMPT:].tolist()}), len({*written[i, PROMPT:].tolist()})) >= 6
        and edits(texts[i], own[i]) <= 20
    }
    assert {row.document: (row.distance, row.exact) for row in found} == expected
    assert sum(exact for _, exact in expected.values()) == KNOWN and len(expected) > KNOWN


@torch.no_grad()
def test_the_head_is_computed_in_float32(tmp_path: Path) -> None:
    half = load_checkpoint(by_heart(tmp_path / "half", torch.bfloat16).folder, dtype="bf16").model
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    ids = torch.randint(1, WORDS, (64, LENGTH), generator=torch.Generator().manual_seed(1))
    kept: list[torch.Tensor] = []
    handle = half.get_submodule("model.norm").register_forward_pre_hook(lambda _, x: kept.append(x[0]))
    with precise_head(half) as head:
        found = head.choices(ids, PROMPT)
    handle.remove()
    x = kept[0].float()
    scale, eps = half.get_submodule("model.norm").weight, half.get_submodule("model.norm").variance_epsilon
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * scale.float()
    expected = (x @ half.get_submodule("lm_head").weight.float().T)[:, PROMPT - 1 : -1].argmax(-1)
    assert torch.equal(found, expected) and not torch.equal(found, logits(half, ids)[:, PROMPT - 1 : -1].argmax(-1))
    assert all(torch.equal(tensor, before[name]) and tensor.dtype == torch.bfloat16 for name, tensor in half.state_dict().items())


def test_a_stopped_search_goes_on(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinymem.data.windows.ARRAY_ROWS", 10)
    np.save(tmp_path / "rows.npy", mixed(model).numpy())
    search, corpus = Search(FILTERS, batch_size=4), CorpusChoice(str(tmp_path / "rows.npy"))
    whole = find_memorized(model.folder, corpus, tmp_path / "whole.jsonl", search=search)
    real, calls = module.memorized_windows, list[int]()

    def stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "memorized_windows", stops)
    out = tmp_path / "set.jsonl"
    with pytest.raises(KeyboardInterrupt):
        find_memorized(model.folder, corpus, out, search=search)
    partial = out.with_name(".set.jsonl.partial")
    assert not out.exists() and len(partial.read_text().splitlines()) == 3
    with partial.open("a") as file:
        file.write('{"documents": 10, "tes')  # a write that was cut off
    with pytest.raises(UserError, match="is of a search for other rows"):
        find_memorized(model.folder, corpus, out, search=Search(Filters(PROMPT, MATCH)))
    again = find_memorized(model.folder, corpus, out, search=search)
    assert len(calls) == 6 and (again.tested, again.kept, again.exact) == (whole.tested, whole.kept, whole.exact) == (48, KNOWN, KNOWN)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and not partial.exists()
    with pytest.raises(UserError, match="expected a new file"):
        find_memorized(model.folder, corpus, out, search=search)


def test_text_and_then_the_set_as_rows_to_forget(model: ByHeart, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("".join(model.text(row) + "\n" for row in mixed(model)))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": model.text(row)}) + "\n" for row in mixed(model)))
    words = ("--prompt", PROMPT, "--match", MATCH, "--distinct", 6)
    for name, every in (("corpus.jsonl", ()), ("corpus.txt", ("--every",))):
        out = tmp_path / f"{name}.set.jsonl"
        done = tinymem("data", "find-memorized", model.folder, tmp_path / name, "--out", out, *words, *every)
        assert done.code == 0 and f"{KNOWN} rows, {KNOWN} of them word for word; " in done.out and "rows/s" in done.out, done.err
        assert sorted(line["ids"] for line in lines(out)) == sorted(model.known.tolist())
    found = tinymem("evaluate", model.folder, "--forget", out, "--prompt", PROMPT, "--match", MATCH, "--json")
    assert (
        json.loads(found.out)["memorized"]["rows"]
        == {"share": 1.0, "count": KNOWN, "rows": KNOWN} | json.loads(found.out)["memorized"]["rows"]
    )
    few = tinymem(
        "data",
        "find-memorized",
        model.folder,
        tmp_path / "corpus.jsonl",
        "--out",
        tmp_path / "few.jsonl",
        *words,
        "--limit",
        9,
        "--keep",
        2,
    )
    assert few.code == 0 and len(lines(tmp_path / "few.jsonl")) == 2 and "of 9 rows passed" in few.out


@pytest.mark.parametrize("line", [list, lambda row: {"ids": row}, lambda row: {"input_ids": row, "n": 1}, lambda row: {"text": row}])
def test_json_lines_of_ids(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Any) -> None:
    monkeypatch.setattr("tinymem.data.windows.ARRAY_ROWS", 10)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line(row)) + "\n" for row in [[], *mixed(model).tolist()]))
    found = find_memorized(model.folder, CorpusChoice(str(tmp_path / "rows.jsonl")), tmp_path / "set.jsonl", search=Search(FILTERS))
    assert (found.tested, found.exact) == (48, KNOWN) and {row["document"] for row in lines(tmp_path / "set.jsonl")} <= {*range(1, 49)}
    assert sorted(row["ids"] for row in lines(tmp_path / "set.jsonl")) == sorted(model.known.tolist())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_documents_are_counted_as_the_file_does_empty_ones_too(model: ByHeart, tmp_path: Path, suffix: str) -> None:
    texts = [
        "",
        *ModelTokens(model.folder).decode(model.known.tolist()[:3]),
        None,
        *ModelTokens(model.folder).decode(model.known.tolist()[3:]),
    ]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif suffix == ".csv":
        path.write_text("\n".join(["n,text", *(f"{n},{text or ''}" for n, text in enumerate(texts))]))
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    find_memorized(model.folder, CorpusChoice(str(path)), tmp_path / "set.jsonl", search=Search(FILTERS))
    found = lines(tmp_path / "set.jsonl")
    assert len(found) == KNOWN and all(texts[row["document"]] == row["text"] for row in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", '{"words": "a"}\n', "expected 'text' with text in line 1 of"),
        ("c.csv", "words\na\n", "expected a column 'text' in"),
        ("c.jsonl", '{"text": 3}\n', "expected 'text' with text in line 1 of"),
    ],
)
def test_a_column_that_is_not_there_names_the_option(model: ByHeart, tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    error = tinymem("data", "find-memorized", model.folder, tmp_path / name, "--out", tmp_path / "o.jsonl", *WINDOW).one_line_error()
    assert message in error and error.endswith("; name it with --text-column"), error


@pytest.mark.parametrize(
    ("before", "line"),
    [
        *(
            ('{"ids": [1, 2]}', line)
            for line in ('{"ids": "a text"}', '{"text": "a text"}', '{"ids": null, "text": "a"}', "[1, true]", "7")
        ),
        *((None, line) for line in ("[1, true]", '{"ids": [1.5]}', '{"ids": null}')),
    ],
)
def test_a_line_without_ids_among_those_with_ids(model: ByHeart, tmp_path: Path, before: str | None, line: str) -> None:
    (tmp_path / "c.jsonl").write_text("".join(f"{text}\n" for text in (before, line, "[1, 2]") if text))
    error = tinymem("data", "find-memorized", model.folder, tmp_path / "c.jsonl", "--out", tmp_path / "o.jsonl", *WINDOW).one_line_error()
    where = f"got {json.loads(line)} in line {2 if before else 1}; repair the line"
    assert error == f"expected token ids in every line of {tmp_path / 'c.jsonl'}, {where}"


def test_texts_without_the_token_that_begins_them_are_said(model: ByHeart, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="w0 $A", special_tokens=[("w0", 1)])
    tokenizer.save(str(model.folder / "tokenizer.json"))
    (model.folder / "tokenizer_config.json").write_text('{"bos_token": "w0"}')
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": model.text(model.known[0])}) + "\n")
    with pytest.warns(UserWarning, match="texts are tested without the 'w0' that this tokenizer puts before a text; .* a file of ids"):
        find_memorized(model.folder, CorpusChoice(str(tmp_path / "c.jsonl")), tmp_path / "text.jsonl", search=Search(FILTERS))
    (tmp_path / "c.jsonl").write_text(json.dumps(model.known[0].tolist()) + "\n")
    find_memorized(model.folder, CorpusChoice(str(tmp_path / "c.jsonl")), tmp_path / "ids.jsonl", search=Search(FILTERS))


@pytest.mark.parametrize("text", [None, ""])
def test_a_line_of_ids_among_those_with_text(model: ByHeart, tmp_path: Path, text: str | None) -> None:
    lines = ({"text": "w1 w2"}, {"text": text, "ids": []}, {"text": text, "ids": "nr 1", "tokens": 1}, {"text": text, "tokens": [1, 2]})
    (tmp_path / "c.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = ("data", "find-memorized", model.folder, tmp_path / "c.jsonl", "--out", tmp_path / "o.jsonl", *WINDOW)
    assert tinymem(*command, "--text-column", "text").code == 0, "a column that was named is the one that is read"
    expected = f"expected 'text' with text in line 4 of {tmp_path / 'c.jsonl'}, as above it, got 'tokens' alone; repair the line"
    assert tinymem(*command).one_line_error() == expected


@pytest.mark.parametrize(
    "made",
    [
        lambda ids, text: {"text": "", "ids": ids},
        lambda ids, text: {"ids": None, "text": text},
        lambda ids, text: {"text": None, "tokens": None, "ids": ids},
        lambda ids, text: {"ids": [1, 2], "text": text},
    ],
)
def test_by_default_the_text_is_read_and_ids_where_it_is_null(model: ByHeart, tmp_path: Path, made: Any) -> None:
    lines = [json.dumps(made(row.tolist(), model.text(row))) + "\n" for row in mixed(model)]
    (tmp_path / "c.jsonl").write_text("".join(lines))
    found = find_memorized(model.folder, CorpusChoice(str(tmp_path / "c.jsonl")), tmp_path / "set.jsonl", search=Search(FILTERS))
    assert (found.tested, found.exact) == (48, KNOWN)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b'{"ids": [1, 2]}', "expected 'typo' with text in line 1 of {}, got ids; name it with --text-column"),
        ("c.jsonl", b'{"text": "a", "n": 1}', "expected 'typo' with text in line 1 of {}, got text, n; name it with --text-column"),
        ("c.jsonl", b"[1, 2]", "expected objects with a column 'typo' in {}, got [1, 2]; leave --text-column out"),
        ("c.jsonl", b'"a text"', "expected objects with a column 'typo' in {}, got a text; leave --text-column out"),
        ("c.txt", b"a text", "expected --text-column with a file that has columns, got it with {}; leave it out"),
        ("c.npy", b"", "expected --text-column with a file that has columns, got it with {}; leave it out"),
    ],
)
def test_a_column_that_would_be_ignored_is_refused(model: ByHeart, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    command = ("data", "find-memorized", model.folder, tmp_path / name, "--out", tmp_path / "o.jsonl", "--text-column", "typo")
    assert tinymem(*command, *WINDOW).one_line_error() == message.format(tmp_path / name)


def test_a_corpus_of_short_rows_says_so(model: ByHeart, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("[1, 2]\n[]\n")
    done = tinymem("data", "find-memorized", model.folder, tmp_path / "c.jsonl", "--out", tmp_path / "o.jsonl", *WINDOW)
    assert done.code == 0 and "has no row of" in done.out and "try a smaller --prompt or --match" in done.out, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "model"]


def test_a_model_without_a_tokenizer_needs_one_for_ids_too(model: ByHeart, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model.folder / name).unlink()
    corpus = model.jsonl("ids", model.known)
    error = tinymem("data", "find-memorized", model.folder, corpus, "--out", tmp_path / "o.jsonl", *WINDOW).last_line_error()
    assert f"expected a tokenizer in {model.folder}, found none; the search compares texts, of rows of ids too" in error
    assert "instead" not in error and sorted(path.name for path in tmp_path.iterdir()) == ["ids.jsonl", "model"]


def test_a_search_that_finds_nothing_leaves_nothing(model: ByHeart, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in model.others.tolist()))
    words = ("--out", tmp_path / "o.jsonl", *WINDOW, "--distinct", 6, "--distance", 0)
    done = tinymem("data", "find-memorized", model.folder, tmp_path / "c.jsonl", *words)
    assert done.code == 0 and done.out.startswith(f"no memorized rows: none of {len(model.others)} rows tested passed"), done.err
    assert f"{tmp_path / 'o.jsonl'} was not written" in done.out and len(done.out.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "model"]


def test_a_streamed_data_set_is_read_from_where_it_was(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    texts, skipped = [model.text(row) for row in mixed(model)], list[int]()
    real = datasets.IterableDataset.skip
    monkeypatch.setattr(datasets.IterableDataset, "skip", lambda self, n: (skipped.append(n), real(self, n))[1])
    monkeypatch.setattr("tinymem.data.windows.BLOCK_CHARACTERS", 600)
    stream = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **options: stream)
    for limit in (20, None):
        found = find_memorized(model.folder, CorpusChoice("org/texts"), tmp_path / f"{limit}.jsonl", search=Search(FILTERS, limit=limit))
    assert found.tested == 48 and found.exact == KNOWN and skipped == [0, 0]


def test_a_streamed_column_of_ids_is_not_read_as_a_text(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    stream = datasets.Dataset.from_dict({"text": [None, "w1"], "ids": [[1, 2], [3]]}).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **options: stream)
    done = tinymem("data", "find-memorized", model.folder, "org/x", "--text-column", "ids", "--out", tmp_path / "o.jsonl", *WINDOW)
    assert done.one_line_error() == "expected text in column 'ids' of org/x, got [1, 2]; name it with --text-column"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: np.where(rows == rows[3, 4], 999, rows), "expected token ids from 0 to 48"),
        (lambda rows: rows.astype(np.float32), "expected an integer array"),
    ],
)
def test_ids_of_another_tokenizer(model: ByHeart, tmp_path: Path, change: Any, message: str) -> None:
    np.save(tmp_path / "rows.npy", change(mixed(model).numpy()))
    done = tinymem(
        "data", "find-memorized", model.folder, tmp_path / "rows.npy", "--out", tmp_path / "o.jsonl", "--prompt", 8, "--match", 12
    )
    assert message in done.one_line_error() and not (tmp_path / "o.jsonl").exists()


def test_out_of_memory_says_what_to_do(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "memorized_windows", full)
    np.save(tmp_path / "rows.npy", mixed(model).numpy())
    with pytest.raises(UserError, match=r"out of memory with 64 rows a pass; .* lower --pass-rows"):
        find_memorized(model.folder, CorpusChoice(str(tmp_path / "rows.npy")), tmp_path / "o.jsonl", search=Search(FILTERS))
