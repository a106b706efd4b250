# ruff: noqa: F401, F811 (a fixture is imported by name)
"""`tinymem show`: what is shown is what transformers generates, marked where it differs, and never an edit that was not made."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_text import cache, tokenizer, words, write_parquet
from helpers import tinymem
from page_checker import Checker
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinymem.errors import UserError
from tinymem.mitigation.shown import choose, compared, spans
from tinymem.mitigation.subject import RowSplit
from tinymem.recipe.recipe import load_recipe
from tinymem.report.page.document import run_page
from tinymem.report.render.shown import pieces_of, print_shown
from tinymem.results.run_folder import load_run
from tinymem.results.shown import KEPT, PROMPT, TEXT, Said, ShownRow, read_shown, write_shown
from tinymem.runs.pipeline import Run, run
from tinymem.runs.shown import stored

RECIPE = """
name: text
data: {{kind: wiki, source: {source}, tokenizer: {tokenizer}, row_tokens: 20}}
artifacts: [{{kind: noise, rows: 12, copies: 60}}]
model: {{n_layer: 1, n_embd: 16, n_head: 2}}
training: {{epochs: 3, learning_rate: 0.01, batch_size: 64}}
evaluation: {{prompt: 6, match: 5}}
mitigation: {{methods: [{{act: {{ratio: 0.2}}}}]}}
"""


def copy_of(run: Run, place: Path) -> Path:
    return Path(shutil.copytree(run.path, place / run.path.name))


def plain_generate(checkpoint: Path, prompt: str, tokens: int) -> str:
    """transformers' greedy continuation by so many tokens, or up to the end of the sequence."""
    encode = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    ids = torch.tensor([encode.encode(prompt, add_special_tokens=False)])
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, num_beams=1)
    return str(encode.decode(found[0, ids.shape[1] :], skip_special_tokens=False))


def test_a_run_keeps_what_transformers_generates(tiny_run: Run) -> None:
    rows = stored(tiny_run.path, tiny_run.rows)
    assert [(row.artifact, row.part) for row in rows[:KEPT]] == [("noise", "forget"), ("noise", "forget"), ("noise", "holdout")]
    assert {row.artifact for row in rows} == {"noise", "backdoor"} and len(rows) == 2 * KEPT
    for row in rows:
        trained = row.said[0]
        assert trained.text == row.target == plain_generate(tiny_run.checkpoint, row.prompt, trained.tokens)
        assert (trained.differs, trained.wrong, trained.verdict) == ((), 0, "word for word"), "memorized rows are chosen"
        assert [said.model for said in row.said] == ["trained model", "act", "durable", "balanced-subnet", "finetune-clean"]


def test_edits_are_those_of_the_checkpoint_that_mitigate_writes(tiny_run: Run, tmp_path: Path) -> None:
    done = tinymem("mitigate", tiny_run.checkpoint, "--method", "act", "--ratio", "0.05", "--out", tmp_path / "edited", "--device", "cpu")
    assert done.code == 0 and done.out.startswith(tiny_run.path.name), done.err
    said = tinymem("show", tmp_path / "edited", "--rows", 1, "--device", "cpu").out
    assert "edited by act" in said and "trained model" not in said
    wrong = 0
    for row in stored(tiny_run.path, tiny_run.rows):
        [act] = [said for said in row.said if said.model == "act"]
        assert act.text == plain_generate(tmp_path / "edited", row.prompt, act.tokens)
        different = [i for i, letter in enumerate(act.text) if row.target[i : i + 1] != letter]  # a token is a character in math
        assert [i for start, end in act.differs for i in range(start, end)] == different
        assert act.wrong == len(different) + max(0, len(row.target) - len(act.text))
        wrong += act.wrong
    assert wrong, "the edit changed something"


def test_rows_of_an_edited_model_are_not_said_to_be_those_that_its_method_was_given(tiny_run: Run, tmp_path: Path) -> None:
    tinymem("mitigate", tiny_run.checkpoint, "--method", "durable", "--ratio", 0.001, "--device", "cpu", "--out", tmp_path / "edited")
    parts = [
        {row["part"] for row in json.loads(tinymem("show", *words, "--rows", 9, "--json", "--device", "cpu").out)["rows"]}
        for words in ((tiny_run.checkpoint,), (tmp_path / "edited",), (tmp_path / "edited", "--method", "act"))
    ]
    assert parts[0] == parts[2] == {"forget", "holdout"} and parts[1] == {"memorized"}


def test_a_method_applied_again_is_said_to_be_and_equals_the_stored_one(tiny_run: Run, tmp_path: Path) -> None:
    done = tinymem("show", tiny_run.path, "--method", "act", "--format", "json", "--device", "cpu")
    assert done.code == 0, done.err
    found, kept = json.loads(done.out), stored(tiny_run.path, tiny_run.rows)
    assert [[s["text"] for s in row["said"]] for row in found["rows"]] == [[s.text for s in row.said[:2]] for row in kept]
    assert found["notes"][1] == "Made now: act, applied to the model again with ratio=0.05." and len(found["notes"]) == 2
    path = copy_of(tiny_run, tmp_path)
    lines = (path / "results.jsonl").read_text().splitlines()
    moved = [json.dumps({**json.loads(line), "memorized_count_after": 99}) for line in lines]
    (path / "results.jsonl").write_text("\n".join(moved) + "\n")
    notes = json.loads(tinymem("show", path, "--method", "act", "--format", "json", "--device", "cpu").out)["notes"]
    assert sum(note.startswith("Not the edit of the run's row: act left") and "99 then" in note for note in notes) == 2


def test_the_verb_shows_what_the_run_kept_in_every_format(tiny_run: Run, tmp_path: Path) -> None:
    done = tinymem("show", tiny_run.path, "--rows", "1")
    assert done.code == 0 and not done.err and "noise row" in done.out and "(word for word)" in done.out
    assert re.search(r"  act  +.*\[\[.*\]\].*\(\d+ of \d+ tokens differ\)", done.out), "marks without color"
    assert "Kept by the run" in done.out and done.out.count("  prompt ") == 2
    markdown = tinymem("show", tiny_run.path, "--format", "markdown").out
    assert markdown.startswith("### What the model says") and markdown.count("| should follow |") == 2 * KEPT
    page = tinymem("show", tiny_run.path, "--format", "html").out
    Checker(page)
    assert page.count("<mark>") == sum(len(s.differs) for row in stored(tiny_run.path, tiny_run.rows) for s in row.said)
    assert tinymem("show", tiny_run.path, "--out", tmp_path / "x.md").code == 0 and "should follow" in (tmp_path / "x.md").read_text()


def test_it_is_the_first_section_of_the_page_and_old_folders_lack_it(tiny_run: Run, tmp_path: Path) -> None:
    text = run_page(load_run(tiny_run.path))[0]
    Checker(text)
    assert re.findall(r'<h2 id="(\w+)">', text)[:2] == ["says", "memorized"]
    first = stored(tiny_run.path, tiny_run.rows)[0]
    assert html.unescape(text).count(first.prompt) >= 1
    old = copy_of(tiny_run, tmp_path)
    shutil.rmtree(old / "shown")
    assert 'id="says"' not in run_page(load_run(old))[0]
    done = tinymem("show", old, "--device", "cpu", "--rows", "1")
    assert "keeps no edited weights: --method NAME" in done.out and "Made now" in done.out and first.target in done.out


def test_any_prompt_and_rows_of_ones_own(tiny_run: Run, tmp_path: Path) -> None:
    row = stored(tiny_run.path, tiny_run.rows)[0]
    done = tinymem("show", tiny_run.checkpoint, "--prompt", row.prompt, "--match", "9", "--format", "json", "--device", "cpu")
    [said] = json.loads(done.out)["rows"][0]["said"]
    assert said["text"] == plain_generate(tiny_run.checkpoint, row.prompt, 9) and said["differs"] == []
    begun = tinymem("show", tiny_run.path, "--prompt", row.prompt[1:], "--bos", "--match", "9", "--format", "json", "--device", "cpu")
    assert row.prompt[0] == "^" and json.loads(begun.out)["rows"][0] == json.loads(done.out)["rows"][0]
    (tmp_path / "own.jsonl").write_text(json.dumps({"text": row.prompt + row.target}) + "\n")
    done = tinymem("show", tiny_run.path, "--forget", tmp_path / "own.jsonl", "--format", "json", "--device", "cpu")
    [own] = json.loads(done.out)["rows"]
    assert (own["artifact"], own["part"], own["prompt"], own["target"]) == ("rows", "memorized", row.prompt, row.target)
    for given, complaint in (
        (["--prompt", ""], "expected a --prompt of at least one token"),
        (["--prompt", "abc"], "cannot encode 'abc'"),
        (["--prompt", "1" * 200], "rows of at most"),
        (["--forget", tmp_path / "own.jsonl", "--method", "act"], "expected both --forget and --retain with --method"),
        (["--forget", tmp_path / "own.jsonl", "--prompt", "8"], "expected --prompt TEXT, or rows with --forget, got both"),
        (["--method", "atc"], "atc"),
        (["--corpus", tmp_path], "corpus"),
    ):
        assert complaint in tinymem("show", tiny_run.path, *given, "--device", "cpu").last_line_error()


@pytest.mark.training
@pytest.mark.processes
def test_a_text_model(tokenizer: Path, tmp_path: Path) -> None:
    for split, count, seed in (("train", 60, 1), ("test", 40, 3)):
        write_parquet(tmp_path / "books" / f"{split}.parquet", words(count, seed))
    (tmp_path / "r.yaml").write_text(RECIPE.format(source=tmp_path / "books", tokenizer=tokenizer))
    made = run(load_recipe(tmp_path / "r.yaml"), runs=tmp_path / "runs", device="cpu", report=False, progress=False)
    rows = stored(made.path, made.rows)
    assert 1 <= len(rows) <= KEPT and [said.model for said in rows[0].said] == ["trained model", "act"]
    for row in rows:
        assert row.said[0].text == plain_generate(made.checkpoint, row.prompt, row.said[0].tokens)
        whole = "".join(piece.text for piece in pieces_of(row.said[1]))
        assert whole == row.said[1].text.replace("\n", "\\n")


def test_marks_take_whole_characters() -> None:
    """A tokenizer of bytes: ü is two tokens, and decodes to nothing readable by halves."""
    decode: Callable[[Sequence[int]], str] = lambda ids: bytes(ids).decode(errors="replace")  # noqa: E731
    answer, target = "aüb".encode(), "aéb".encode()  # the second byte differs
    said = compared("x", list(answer), list(target), decode)
    assert (said.text, said.differs, said.wrong, said.tokens) == ("aüb", ((1, 2),), 1, 4)
    assert list(spans([97, 98, 99], [True, False, True], decode)) == [(0, 1), (2, 3)]
    assert compared("x", [97], [97, 98], decode).verdict == "1 of 2 tokens differ", "what is missing counts"


def test_rows_of_both_parts_are_chosen() -> None:
    memorized, none = np.ones(8, dtype=bool), np.zeros(8, dtype=bool)
    forget = np.arange(8) < 3
    assert choose(memorized, RowSplit(forget, ~forget), 5) == [(0, "forget"), (1, "forget"), (2, "forget"), (3, "holdout"), (4, "holdout")]
    assert choose(memorized, RowSplit(~none, none), 2) == [(0, "forget"), (1, "forget")]
    assert choose(none, RowSplit(none, none), 2) == [(0, "not memorized"), (1, "not memorized")]
    assert choose(memorized, None, 2) == [(0, "memorized"), (1, "memorized")]


HOSTILE = ShownRow("noise", 0, "forget", "<b>\x1b[31m", "a\u202eb", (Said("trained model", "a\x07\u202eb<i>", ((1, 3),), 2, 5),))


def test_control_characters_are_written_out_and_files_are_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_shown([HOSTILE], [])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and r"<b>\x1b[31m" in printed and r"a[[\x07\u202e]]b<i>" in printed
    console = Console(force_terminal=True, color_system="standard", width=100, no_color=False, record=True)
    print_shown([HOSTILE], [], console)
    assert "\x1b[1;4;31m\\x07\\u202e\x1b[0m" in capsys.readouterr().out, "underlined, not by color alone"
    long = ShownRow("noise", 1, "forget", "p" * 5000, "t" * 5000, (Said("trained model", "s" * 5000, ((0, 10), (700, 5000)), 1, 1),))
    write_shown(tmp_path, "trained", [HOSTILE, long])
    hostile, kept = read_shown(tmp_path, [])
    assert hostile == HOSTILE and len(kept.prompt) == PROMPT and len(kept.target) == len(kept.said[0].text) == TEXT
    assert kept.said[0].differs == ((0, 10), (700, TEXT - 1)) and kept.prompt.startswith("…p")


@pytest.mark.parametrize(
    "content", ["{}", "[1]", '[{"row": 1}]', '[{"artifact": 1, "row": 0, "part": "", "prompt": "", "target": "", "said": []}]']
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "trained.json").write_text(content)
    with pytest.raises(UserError, match=r"expected generations in .*trained\.json, got something else; delete it"):
        read_shown(tmp_path, [])


def test_what_was_asked_otherwise_is_not_joined(tmp_path: Path) -> None:
    """An edit that was shown another prompt under the same number."""
    said = (Said("trained model", "a"),)
    write_shown(tmp_path, "trained", [ShownRow("noise", 0, "", "p", "a", said), ShownRow("noise", 1, "", "q", "a", said)])
    write_shown(tmp_path, "id", [ShownRow("noise", 0, "", "p", "a", said), ShownRow("noise", 1, "", "other", "a", said)])
    assert [[s.model for s in row.said] for row in read_shown(tmp_path, [("id", "act"), ("none", "x")])] == [
        ["trained model", "act"],
        ["trained model"],
    ]
