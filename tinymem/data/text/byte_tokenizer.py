"""The tokenizer that needs no file and no training: a token is a byte, and one more ends a text.

Token ids 0 to 255 are the bytes of UTF-8, 256 is `<|endoftext|>`, which no text spells: also a text that holds these characters is its
bytes. So every text comes back from its ids as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.data.text.tokens import cache_directory
from tinymem.recipe.sizes import BYTES_VOCABULARY
from tinymem.runtime.files import content_id, write_if_changed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_TOKEN = "<|endoftext|>"
LETTERS = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
"""Bytes that byte-level tokenizers write as the character of that number; the others follow from 256 on."""


def byte_letters() -> list[str]:
    """The character of each byte in a byte-level vocabulary, as GPT-2's has it."""
    others = iter(range(256, 512))
    return [chr(byte if byte in LETTERS else next(others)) for byte in range(256)]


def byte_tokenizer() -> Tokenizer:
    """The tokenizer: a byte-level one that never merges two bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate([*byte_letters(), END_TOKEN])}
    assert len(vocabulary) == BYTES_VOCABULARY
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_tokenizer_file() -> Path:
    """Its `tokenizer.json`, in the cache."""
    text = byte_tokenizer().to_str(pretty=True)
    path = cache_directory() / "tokenizers" / content_id(text, 16) / "tokenizer.json"
    write_if_changed(path, text)
    return path
