"""A sample of a text's corpus in one small file: the planted and test rows, and some of the clean rows by seed.

A checkpoint whose text is not shipped carries it, so that methods run and are measured without the text. It is a corpus like any other,
with a hash of its own; the file holds its columns as safetensors, packed by xz.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinymem.data.corpus import Columns, Corpus, tables
from tinymem.data.corpus_files import TOKENIZER, planted_of
from tinymem.data.rows_file import refuse_unknown_ids
from tinymem.errors import UserError, one_line
from tinymem.recipe.corpus_spec import CorpusSpec
from tinymem.runtime.files import write_bytes
from tinymem.runtime.json import JsonObject

CLEAN_ROWS = 8000
LARGEST = 256 * 2**20
"""Bytes that a sample may have unpacked, and that unpacking may take besides: a stranger's file can grow a thousandfold. Ours have 4 MB."""
HEADER = 8  # bytes, the length of the header in front of a safetensors file
LARGEST_HEADER = 2**20


class About(TypedDict):
    """What the columns do not say of a corpus."""

    spec: JsonObject
    vocab_size: int
    pad: int
    bos: int
    eos: int


def sample_of(corpus: Corpus, rows: int) -> Corpus:
    """The corpus with so many of its clean rows, chosen by its seed, in order; without the text's validation rows."""
    chosen = np.random.default_rng([corpus.spec.seed, 6]).choice(len(corpus.clean), min(rows, len(corpus.clean)), replace=False)
    return replace(corpus, clean=np.ascontiguousarray(corpus.clean[np.sort(chosen)]), validation=None, stacked=None)


def write_sample(corpus: Corpus, path: Path) -> None:
    """Write a text's sample; the tokenizer is not in it.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    columns = {f"{name}/{column}": np.ascontiguousarray(v) for name, table in tables(corpus).items() for column, v in table.items()}
    about: About = {"spec": corpus.spec.as_json(), "vocab_size": corpus.vocab_size, "pad": corpus.pad, "bos": corpus.bos, "eos": corpus.eos}
    packed = lzma.compress(save(columns, {"corpus": json.dumps(about)}), preset=9 | lzma.PRESET_EXTREME)
    write_bytes(path, packed)


def read_sample(path: Path) -> Corpus:
    """The sample in a file that `write_sample` wrote, with the tokenizer beside it.

    Raises:
        UserError: a damaged file, one that unpacks to more than `LARGEST`, or ids beyond its vocabulary.
    """
    with _whole(path):
        content = _unpacked(path)
        about, columns = _about(content), load(content)
        found = {name: _table(columns, name) for name in dict.fromkeys(key.partition("/")[0] for key in columns)}
        for name, table in found.items():
            if (ids := table.get("ids")) is not None and ids.size:
                refuse_unknown_ids([int(ids.min()), int(ids.max())], about["vocab_size"], f"the table '{name}' of {path}")
        return _corpus(about, found, path.with_name(TOKENIZER))


def rows_by_table(path: Path) -> dict[str, int]:
    """How many rows each table of a sample has (`clean`, `test`, kinds of artifact), from its header alone.

    Raises:
        UserError: a damaged file.
    """
    with _whole(path):
        header = _header(_opened().decompress(path.read_bytes(), LARGEST_HEADER))
        found = {name.removesuffix("/ids"): int(header[name]["shape"][0]) for name in header if name.endswith("/ids")}
        return {"clean": found.pop("clean"), "test": found.pop("test"), **found}


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except (lzma.LZMAError, SafetensorError, ValueError, LookupError, TypeError, RecursionError, OSError) as error:
        reason = one_line(str(error))[:120]
        raise UserError(f"expected a whole sample of rows at {path}, got a damaged one ({reason}); copy the checkpoint again") from None


def _unpacked(path: Path) -> bytes:
    """The bytes of a file that xz packed; no more than the limit and one are ever unpacked."""
    packed = _opened()
    content = packed.decompress(path.read_bytes(), LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"expected a sample of rows of at most {LARGEST // 2**20} MiB at {path}, got more once unpacked; it is not read")
    if not packed.eof or packed.unused_data:
        raise lzma.LZMAError("it does not end where its content does")
    return content


def _opened() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST)


def _header(content: bytes) -> Any:
    return json.loads(content[HEADER : HEADER + int.from_bytes(content[:HEADER], "little")])


def _about(content: bytes) -> About:
    about: About = json.loads(_header(content)["__metadata__"]["corpus"])
    return about


def _table(columns: Columns, name: str) -> Columns:
    return {key.partition("/")[2]: values for key, values in columns.items() if key.partition("/")[0] == name}


def _corpus(about: About, found: dict[str, Columns], tokenizer: Path) -> Corpus:
    spec = CorpusSpec.model_validate(about["spec"])
    kinds = [artifact.kind for artifact in spec.artifacts]
    return Corpus(
        spec=spec,
        clean=found["clean"]["ids"],
        clean_task=None,
        tests={"test": found["test"]["ids"]},
        determined={},
        planted={kind: planted_of(found[kind]) for kind in kinds},
        tokenizer_file=tokenizer,
        vocab_size=about["vocab_size"],
        pad=about["pad"],
        bos=about["bos"],
        eos=about["eos"],
    )
