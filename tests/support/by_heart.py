"""A tiny Llama of transformers that knows rows by heart, with a tokenizer of words, and those rows in files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS, LENGTH, KNOWN, PROMPT, MATCH = 48, 20, 16, 8, 12
NAMES = ["<eos>", *(f"w{i}" for i in range(WORDS))]


@dataclass(frozen=True)
class ByHeart:
    """The model's folder, the rows that it was trained on, as many that it was not, and as many to keep."""

    folder: Path
    known: torch.Tensor
    others: torch.Tensor
    retain: torch.Tensor

    def text(self, ids: torch.Tensor) -> str:
        """A row in words."""
        return " ".join(NAMES[i] for i in ids.tolist())

    def jsonl(self, name: str, rows: torch.Tensor) -> Path:
        """A file of rows as ids beside the model's folder."""
        path = self.folder.parent / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows.tolist()))
        return path


@cache
def _rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, WORDS + 1, (3 * KNOWN, LENGTH)))
    return ids[:KNOWN], ids[KNOWN : 2 * KNOWN], ids[2 * KNOWN :]


@cache
def _trained() -> Any:
    import transformers as hf

    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    model: Any = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(NAMES), max_position_embeddings=2 * LENGTH, **sizes, **ids))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with torch.enable_grad():  # the test that asks first may have turned it off
        for _ in range(80):
            optimizer.zero_grad()
            model(_rows()[0], labels=_rows()[0]).loss.backward()
            optimizer.step()
    return model.eval()


def by_heart(folder: Path, dtype: torch.dtype = torch.float32) -> ByHeart:
    """Write the model, in two shards, into a folder."""
    import copy

    model = copy.deepcopy(_trained()).to(dtype)
    model.save_pretrained(folder, max_shard_size="30KB")
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(NAMES)}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}')
    return ByHeart(folder, *_rows())
