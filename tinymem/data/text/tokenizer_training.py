"""Training of a byte-level BPE on texts of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinymem.data.text.byte_tokenizer import END_TOKEN, byte_letters
from tinymem.data.text.source import Column, TextSource, local_files
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData
from tinymem.recipe.sizes import BYTES_VOCABULARY
from tinymem.runtime.files import new_directory, write_json, write_text

LARGEST_SIZE = 1 << 18  # the largest vocabularies in use have as many
LEAST_COUNT = 2
"""Times that a pair must occur to become a token: what stands once in a text, such as a password, is in no vocabulary."""


def train_tokenizer(paths: Sequence[Path], size: int, out: Path, *, column: str = "text") -> int:
    """Train a byte-level BPE and write `tokenizer.json` and its configuration to a folder, which appears whole or not at all.

    The same text gives the same files, on any machine.

    Args:
        paths: files or folders of text, as `data.source` of a recipe; of a folder with splits the training text.
        size: largest number of tokens, with the 256 bytes and `<|endoftext|>`, which ends a text.
        out: the folder, for `data.tokenizer`.
        column: of Parquet, JSON lines and CSV.

    Returns:
        The number of tokens, fewer than `size` where the text repeats too little.

    Raises:
        UserError: a size that is too small or absurd, no text there, or a disk that is full.
    """
    if not BYTES_VOCABULARY <= size <= LARGEST_SIZE:
        raise UserError(f"expected --size from {BYTES_VOCABULARY} (the bytes, and one that ends a text) to {LARGEST_SIZE:,}, got {size:,}")
    sources = [_source(path, column) for path in paths]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=LEAST_COUNT, special_tokens=[END_TOKEN], initial_alphabet=byte_letters(), show_progress=False
    )
    tokenizer.train_from_iterator(_blocks(sources), trainer)
    _write(tokenizer.to_str(pretty=True), out)
    return int(tokenizer.get_vocab_size())


def _source(path: Path, column: str) -> TextSource:
    files, aside = local_files(WikiData(source=str(path), text_column=column))
    return TextSource(Column(column, "name it with --column"), files=files, aside=aside)


def _blocks(sources: Sequence[TextSource]) -> Iterator[list[str]]:
    """Lines of all training text, a block at a time.

    Raises:
        UserError: there is none.
    """
    there = False
    for source in sources:
        for block in source.blocks("train"):
            there = True
            yield block
    if not there:
        raise UserError("expected text in the files, found only empty lines; name others")


def _write(tokenizer: str, out: Path) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_TOKEN),
    }
    with new_directory(out) as temporary:
        write_text(temporary / "tokenizer.json", json.dumps(json.loads(tokenizer), indent=2, ensure_ascii=False) + "\n")
        write_json(temporary / "tokenizer_config.json", config)
