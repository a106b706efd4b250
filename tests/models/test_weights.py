"""The identity of a model, and what an edited folder takes along."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import python, random_gpt
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.run import mitigate, subject_of_rows
from tinymem.models.adapters import neuron_layers
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.edited import edited_bytes, save_edited
from tinymem.models.families import FAMILIES
from tinymem.models.weights import weights_id
from tinymem.results.row import Identity
from tinymem.testing import tiny_case, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("gpt2").save_pretrained(tmp_path / "model", max_shard_size="10KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    return tmp_path / "model"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, file: int) -> None:
    path = sorted(folder.glob("*.safetensors"))[file]
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


OTHERS: dict[str, Callable[[Path], None]] = {
    "activation": lambda folder: change_config(folder, activation_function="relu"),
    "first file": lambda folder: change_weights(folder, 0),
    "last file": lambda folder: change_weights(folder, -1),
}


@pytest.mark.parametrize("change", OTHERS)
def test_another_model_has_another_id(folder: Path, change: str) -> None:
    before = weights_id(folder)
    OTHERS[change](folder)
    assert weights_id(folder) != before


def test_the_name_of_a_folder_is_no_part_of_an_id(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    change_config(tmp_path / "elsewhere", _name_or_path="elsewhere", transformers_version="5.99")
    assert weights_id(tmp_path / "elsewhere") == weights_id(folder)
    tiny_model("llama").save_pretrained(tmp_path / "other" / "model", max_shard_size="10KB")
    assert weights_id(tmp_path / "other" / "model") != weights_id(folder)


def slow_tokenizer(folder: Path) -> None:
    """GPT-2's tokenizer as vocab.json and merges.txt, without tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(["one two three four"] * 3)
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", "unk_token": "o"}))


def test_an_edited_folder_has_all_but_other_forms_of_the_weights(folder: Path, tmp_path: Path) -> None:
    slow_tokenizer(folder)
    for name in (
        "chat_template.jinja",
        "README.md",
        "pytorch_model.bin",
        "optimizer.pt",
        "tf_model.h5",
        "pytorch_model.bin.index.json",
        ".hidden",
    ):
        (folder / name).write_text("x")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("y")
    model = load_checkpoint(folder).model
    with torch.no_grad():
        neuron_layers(model)[0].values_FD()[0] = 0
    save_edited(model, folder, out := tmp_path / "edited", metadata={})
    gone = {path.name for path in folder.iterdir()} - {path.name for path in out.iterdir()}
    assert gone == {"pytorch_model.bin", "optimizer.pt", "tf_model.h5", "pytorch_model.bin.index.json", ".hidden"}
    assert (out / "additional_chat_templates" / "rag.jinja").read_text() == "y"
    ids = [AutoTokenizer.from_pretrained(path)("one two nine")["input_ids"] for path in (folder, out)]
    assert ids[0] == ids[1] and len(ids[0]) > 2
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file() and path.name != "tinymem.json")
    assert edited_bytes(folder) == size  # the estimate before the edit


def test_what_is_measured_of_a_bfloat16_folder_is_what_is_saved(tmp_path: Path) -> None:
    model, data = tiny_case("llama")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model")
    subject = subject_of_rows(loaded.model, data.forget, data.retain, identity=Identity(device_type="cpu"))
    outcome = mitigate(replace(subject, dtypes=loaded.dtypes), "npo", {"epochs": 1})
    assert outcome.model is not None and outcome.rows[0].edited_parameters
    save_edited(outcome.model, tmp_path / "model", tmp_path / "edited", metadata={})
    assert {t.dtype for t in load_file(tmp_path / "edited" / "model.safetensors").values()} == {torch.bfloat16}
    again = load_checkpoint(tmp_path / "edited").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in outcome.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.names())
def test_rows_longer_than_the_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of one token more could be measured, and would fail in the method; a rotary model computes on, which is said."""
    model, data = tiny_case(family)
    rows = Rows.of(torch.cat([data.retain.ids, data.retain.ids[:, :1]], dim=1), prompt=5)
    if getattr(model.config, "rope_parameters", None) is not None:
        with pytest.warns(UserWarning, match=r"at most 12 tokens .* got 13"):
            assert subject_of_rows(model, rows, rows).before.perplexity
        return
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a pass over rows that are too long"))
    with pytest.raises(UserError, match=r"at most 12 tokens .* got 13"):
        subject_of_rows(model, rows, rows)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_positions_that_follow_the_longest_row(kind: str, nested: bool) -> None:
    """A row beyond their length changes the logits of the row that is passed with it, so that no number would be of one row."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    options: dict[str, Any] = {"vocab_size": 17, "pad_token_id": 0, "initializer_range": 1.0, **sizes}
    longer = {"short_factor": [1.0] * 4, "long_factor": [2.0, 4.0, 8.0, 16.0], "original_max_position_embeddings": 12}
    rope = {"rope_type": kind, "rope_theta": 100.0, "factor": 4.0, **(longer if kind == "longrope" else {})}
    positions = 48 if kind == "longrope" else 12
    model: Any = LlamaForCausalLM(LlamaConfig(max_position_embeddings=positions, rope_parameters=rope, **options)).eval()
    ids = torch.randint(17, (4, 13), generator=torch.Generator().manual_seed(0))
    apart, together = (model(ids[:, :n], use_cache=False).logits[:, :12] for n in (12, 13))
    assert (apart - together).abs().max() > 1e-3
    within, beyond = (Rows.of(ids[:, :n], prompt=5) for n in (12, 13))
    assert subject_of_rows(model, within, within).before.perplexity
    if nested:
        model.config.rope_parameters = {"full_attention": {"rope_type": "default"}, "sliding_attention": model.config.rope_parameters}
    with pytest.raises(UserError, match=f"at most 12 tokens, beyond which a model with {kind} positions .* got 13; cut the rows"):
        subject_of_rows(model, beyond, within)


LOADS = """
import ctypes
import sys
from pathlib import Path
from tinymem.models import checkpoint

def anonymous():
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed already, but kept for later, belongs to no model
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

needed = []
refuse = checkpoint.refuse_beyond_memory
checkpoint.refuse_beyond_memory = lambda bytes, *rest: needed.append(bytes) or refuse(bytes, *rest)
checkpoint.load_checkpoint(Path(sys.argv[1]))  # what is imported once
before = anonymous()
model = checkpoint.load_checkpoint(Path(sys.argv[2])).model
print(needed[1], anonymous() - before)
"""


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="reads /proc, and asks glibc to give back freed memory")
def test_the_estimate_of_a_models_memory(tmp_path: Path) -> None:
    """Right within 10 %: 20 million parameters, counted before they are loaded and weighed after."""
    save_checkpoint(random_gpt(), tmp_path / "small", metadata={}, tokenizer_files={})
    save_checkpoint(random_gpt(n_embd=512, n_head=8, n_layer=6), tmp_path / "large", metadata={}, tokenizer_files={})
    estimate, rose = map(int, python("-c", LOADS, tmp_path / "small", tmp_path / "large").out.split())
    assert estimate > 70_000_000 and 0.9 < rose / estimate < 1.1, (estimate, rose)
