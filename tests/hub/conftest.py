"""A small checkpoint with its origin, made without training, and its files as a stub takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import QUICKSTART, TINY, random_gpt

from tinymem.data.build import make_corpus
from tinymem.data.tokenizers import corpus_tokenizer_files
from tinymem.models.checkpoint import save_checkpoint
from tinymem.recipe.recipe import load_recipe


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the tiny recipe, with what training would write into its `tinymem.json`."""
    recipe = load_recipe(QUICKSTART, [*TINY, "model.n_embd=16"])
    corpus, folder = make_corpus(recipe), tmp_path_factory.mktemp("made") / "model"
    model = random_gpt(n_positions=recipe.data.row_tokens, n_embd=16)
    memorized = {"noise": {"share": 0.5, "count": 4, "rows": 8}, "backdoor": {"share": 0.25, "count": 2, "rows": 8}}
    metrics = {"epoch": 6, "step": 60, "accuracy": 0.5, "accuracy_ceiling": 0.75, "perplexity": 2.0, "memorized": memorized}
    metadata = {"recipe": recipe.model_dump(mode="json"), "corpus_sha256": corpus.sha256(), "epoch": 6, "step": 60, "metrics": metrics}
    save_checkpoint(model, folder, metadata=metadata, tokenizer_files=corpus_tokenizer_files(corpus))
    return folder


@pytest.fixture
def files(made: Path) -> dict[str, bytes]:
    """The checkpoint's files by name."""
    return {path.name: path.read_bytes() for path in made.iterdir()}
