"""A real pretrained model, stories260K: it writes stories, its own greedy text is memorized, and edits of it are saved and loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import tinymem
from tokenizers import Tokenizer

from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint

STORIES = Path(__file__).parents[3] / "shared/data/models/stories260K"
PROMPT, LENGTH = 20, 40
NAMES = ["Lily", "Tim", "Tom", "Sue", "Ben", "Anna", "Max", "Mia", "Sam", "Amy", "Jack", "Lucy"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not STORIES.is_dir(), reason="needs stories260K in ../shared/data/models")]


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    """Greedy continuations [12, 40] of the starts of stories, by transformers."""
    import transformers as hf

    coder, model = Tokenizer.from_file(str(STORIES / "tokenizer.json")), hf.LlamaForCausalLM.from_pretrained(STORIES)
    starts = [coder.encode(f"Once upon a time, there was a little child named {name}. {name} liked to play").ids[:PROMPT] for name in NAMES]
    return model.generate(torch.tensor(starts), do_sample=False, max_length=LENGTH, min_length=LENGTH)


def test_it_reads_stories_and_not_noise(rows: torch.Tensor) -> None:
    model = load_checkpoint(STORIES).model
    noise = torch.randint(3, 512, rows.shape, generator=torch.Generator().manual_seed(0))
    losses = [torch.nn.functional.cross_entropy(logits(model, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) for ids in (rows, noise)]
    assert losses[0] < 1.5 and losses[1] > 6


def test_edited_saved_and_loaded_again(rows: torch.Tensor, tmp_path: Path) -> None:
    import transformers as hf

    for name, part in (("forget", rows[:6]), ("retain", rows[6:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"ids": row}) + "\n" for row in part.tolist()))
    files = ("--forget", tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl", "--prompt", PROMPT, "--match", LENGTH - PROMPT)
    methods = ("--method", "act", "--method", "balanced-subnet", "--ratio", 0.05, "--forget-rows", "all")
    done = tinymem("mitigate", STORIES, *files, *methods, "--format", "json", "--out", tmp_path / "edited")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    assert [row["method"] for row in found] == ["act", "balanced-subnet"]
    assert all(row["memorized_count_before"] == 6 > row["memorized_count_after"] for row in found)
    for row in found:
        folder = tmp_path / "edited" / row["method"]
        theirs, ours = hf.LlamaForCausalLM.from_pretrained(folder).eval(), load_checkpoint(folder).model
        with torch.no_grad():
            torch.testing.assert_close(logits(ours, rows), theirs(rows).logits)
        kept = (ours.generate(rows[:6, :PROMPT], do_sample=False, max_length=LENGTH, min_length=LENGTH) == rows[:6]).all(1)
        assert int(kept.sum()) == row["memorized_count_after"]
