"""Checkpoints: transformers loads ours, we load those of transformers, and nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from helpers import ROOT, equal_weights, random_gpt

import tinymem
from tinymem.data.math.sequences import CHARACTERS, to_text
from tinymem.data.own_rows import RowFiles
from tinymem.data.rows import Rows
from tinymem.data.tokenizers import tokenizer_files
from tinymem.mitigation.run import mitigate, subject_of_rows
from tinymem.models.adapters import logits, mlp_parameters
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.results.row import Identity
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import file_sha256
from tinymem.testing import tiny_case, tiny_model

IDS = torch.randint(14, (4, 24), generator=torch.Generator().manual_seed(0))


def saved(folder: Path, **sizes: object) -> tuple[torch.nn.Module, Path]:
    model = random_gpt(scale=3, **sizes)
    save_checkpoint(model, folder / "ours", metadata={"made": "here"}, tokenizer_files=tokenizer_files(24))
    return model, folder / "ours"


def save_foreign(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def assert_same_logits(one: torch.nn.Module, other: torch.nn.Module, ids: torch.Tensor = IDS) -> None:
    expected = logits(one, ids)
    assert expected.std() > 0.1  # or equality would say little
    assert torch.allclose(expected, logits(other, ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new"])
@pytest.mark.parametrize("n_inner", [None, 40])
def test_transformers_loads_ours(tmp_path: Path, activation: str, n_inner: int | None) -> None:
    model, folder = saved(tmp_path, activation_function=activation, n_inner=n_inner)
    theirs = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert isinstance(theirs, hf.GPT2LMHeadModel)
    assert theirs.dtype == torch.float32
    assert sum(p.numel() for p in theirs.parameters()) == model.parameter_count()
    assert_same_logits(model, theirs)


def test_the_trained_model_in_transformers(tiny_run: Run) -> None:
    theirs = hf.AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint).eval()
    ids = Rows.of(tiny_run.corpus().clean[:8]).ids
    assert_same_logits(tiny_run.model(), theirs, ids)


def test_generate_equals_greedy_decoding(tiny_run: Run) -> None:
    theirs = hf.AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint).eval()
    ours, ids = tiny_run.model(), Rows.of(tiny_run.corpus().clean[:4, :12]).ids
    with torch.no_grad():
        written = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None)
        for _ in range(8):
            ids = torch.cat([ids, ours(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(written, ids)


def test_special_tokens_and_metadata(tiny_run: Run) -> None:
    config = hf.AutoConfig.from_pretrained(tiny_run.checkpoint)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (10, 11, 13)
    metadata = load_checkpoint(tiny_run.checkpoint).metadata
    assert metadata.corpus_sha256 == tiny_run.corpus().sha256()
    assert metadata.recipe == tiny_run.recipe.model_dump(mode="json")
    assert metadata.metrics and metadata.metrics.epoch == tiny_run.recipe.training.epochs


def test_tokenizer_round_trip(tiny_run: Run) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_run.checkpoint)
    corpus = tiny_run.corpus()
    rows = [*corpus.clean[:50], *corpus.tests["7"][:5], *corpus.planted["noise"].ids, *corpus.planted["backdoor"].ids]
    for row in rows:
        text = to_text(row)
        ids = tokenizer(text)["input_ids"]
        assert ids == row.tolist()
        assert tokenizer.decode(ids) == text
    assert [tokenizer.convert_tokens_to_ids(character) for character in CHARACTERS] == list(range(14)) and len(tokenizer) == 14
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("^", "$", "_")
    assert tokenizer.model_max_length == corpus.row_tokens


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
@pytest.mark.parametrize("n_inner", [None, 40])
def test_ours_loads_gpt2_of_transformers(tmp_path: Path, activation: str, n_inner: int | None) -> None:
    config = hf.GPT2Config(
        vocab_size=14, n_positions=24, n_embd=16, n_layer=2, n_head=2, n_inner=n_inner,
        activation_function=activation, bos_token_id=10, eos_token_id=11, initializer_range=0.3, layer_norm_epsilon=1e-3,
    )  # fmt: skip
    theirs = hf.GPT2LMHeadModel(config).eval()
    ours = load_checkpoint(save_foreign(theirs, tmp_path / "theirs")).model
    assert type(ours).__name__ == "GPT" and not ours.training
    assert_same_logits(theirs, ours)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_foreign_families_load_and_are_mitigated(tmp_path: Path, family: str) -> None:
    theirs, data = tiny_model(family), tiny_case(family)[1]
    ours = load_checkpoint(save_foreign(theirs, tmp_path / family)).model
    with torch.no_grad():
        assert torch.allclose(logits(theirs, data.forget.ids), logits(ours, data.forget.ids), atol=1e-5, rtol=0)
    identity = Identity(model_id=family, device_type="cpu")
    subject = subject_of_rows(ours, data.forget, data.retain, seed=0, identity=identity)
    outcome = mitigate(subject, "durable", {"ratio": 0.1})
    assert outcome.rows[0]["status"] == "ok" and outcome.model is not None
    eligible = [p.numel() for p in mlp_parameters(ours).values()]
    assert 0 < outcome.rows[0]["edited_parameters"] <= sum(eligible) * 0.1
    save_checkpoint(outcome.model, tmp_path / "edited", metadata={}, tokenizer_files={})
    assert equal_weights(load_checkpoint(tmp_path / "edited").model, outcome.model)


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    model, folder = saved(tmp_path)
    loaded = load_checkpoint(folder)
    assert equal_weights(model, loaded.model) and loaded.model.config == model.config.__class__(
        **{**vars(model.config), "initializer_range": model.config.init_std}
    )
    assert loaded.metadata.as_json() == {"format": 1, "made": "here", "weights_sha256": loaded.metadata.weights_sha256}
    assert loaded.metadata.weights_sha256 == {"model.safetensors": file_sha256(folder / "model.safetensors")}
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "tinymem.json"}
    assert {path.name for path in folder.iterdir()} == names


def test_no_pickle_in_a_run(tiny_run: Run) -> None:
    names = [path.name for path in tiny_run.path.rglob("*")]
    assert "model.safetensors" in names and "state.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz"))]


def test_no_pickle_in_the_sources() -> None:
    words = ("pickle.", "import pickle", "torch.load", "torch.save", "allow_pickle=True", "weights_only=False", "joblib", "import dill")
    for path in (ROOT / "tinymem").rglob("*.py"):
        if path.name in ("tokenize_worker.py", "tokens.py"):  # a pipe to a process of its own: none is stored, none comes from outside
            continue
        text = path.read_text(encoding="utf-8")
        if path.name == "token_arrays.py":  # published sets of token ids: of a pickle only tensors are read
            assert text.count("torch.load(") == text.count("weights_only=True)") == 1 and text.count("pickle.") == 1
            text = (
                text.replace("torch.load(", "").replace("pickle.UnpicklingError", "").replace("import pickle", "").replace("torch.save", "")
            )
        assert not [word for word in words if word in text], path
        assert text.count("np.load(") == text.count("allow_pickle=False"), path


def test_config_is_json_that_says_gpt2(tmp_path: Path) -> None:
    config = json.loads((saved(tmp_path)[1] / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["architectures"] == ["GPT2LMHeadModel"]


def test_load_edit_save_and_measure_as_a_library(tiny_run: Run, tmp_path: Path) -> None:
    original, edited = str(tiny_run.checkpoint), str(tmp_path / "edited")
    loaded = tinymem.load_checkpoint(original)
    with torch.no_grad():
        for weights in mlp_parameters(loaded.model).values():
            weights.zero_()
    tinymem.save_edited(loaded.model, original, edited, metadata=loaded.metadata.as_json())
    assert equal_weights(tinymem.load_checkpoint(edited).model, loaded.model)
    corpus = tinymem.load_corpus(str(tiny_run.path / "corpus"))
    subject = tinymem.subject_of_corpus(loaded.model, corpus, tiny_run.recipe)
    measured = tinymem.evaluate_checkpoint(edited, files=RowFiles(corpus=tiny_run.path / "corpus"), progress=False)
    assert measured.accuracy == subject.before.accuracy.share < tinymem.evaluate_checkpoint(original, progress=False).accuracy
    (row, *_) = tinymem.mitigate_checkpoint(original, tinymem.parse_call("random-weights", {"ratio": 0.1}), out=str(tmp_path / "other"))
    assert row.is_ok and (tmp_path / "other" / "config.json").is_file()
