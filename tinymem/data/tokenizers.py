"""Tokenizers that plain `transformers` loads: the 14-character one of the math models, and that of a text corpus."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import CHARACTERS
from tinymem.data.text.tokenizer import text_tokenizer_files

SPECIAL = {"bos_token": "^", "eos_token": "$", "pad_token": "_"}


def math_tokenizer() -> Tokenizer:
    """One token per character of `0123456789^$ _`, ids 0 to 13 in that order (paper, A.1.1)."""
    tokenizer = Tokenizer(WordLevel({character: i for i, character in enumerate(CHARACTERS)}))
    tokenizer.pre_tokenizer = Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def tokenizer_files(n_positions: int) -> dict[str, str]:
    """Contents of `tokenizer.json` and `tokenizer_config.json`, as `AutoTokenizer` reads them."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": n_positions,
        "clean_up_tokenization_spaces": False,
        **SPECIAL,
    }
    return {
        "tokenizer.json": math_tokenizer().to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def corpus_tokenizer_files(corpus: Corpus) -> dict[str, str]:
    """Contents of the tokenizer's files of a corpus by name, to be saved with a model trained on it."""
    if corpus.tokenizer_file is not None:
        return text_tokenizer_files(corpus.tokenizer_file, corpus.row_tokens, corpus.eos)
    return tokenizer_files(corpus.row_tokens)
