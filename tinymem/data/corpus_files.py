"""A corpus on disk: Parquet that `datasets.load_dataset` reads, a card, a manifest, and a list of hashes.

clean.parquet test.parquet noise.parquet ...   the row sets
train.ids       text only: the training rows as raw little-endian ids [n, T], to be memory-mapped
tokenizer.json  text only
corpus.json     the manifest; README.md: the card
SHA256SUMS      of all other files; `sha256sum -c` reads it
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymem.data.card import card
from tinymem.data.corpus import BLOCK_ROWS, Columns, Corpus, row_blocks, tables
from tinymem.data.manifest import MANIFEST, CorpusManifest, read_manifest
from tinymem.data.planted import Planted
from tinymem.errors import UserError
from tinymem.recipe.data import STATED, Data
from tinymem.runtime.files import file_sha256, new_directory, write_json, write_text
from tinymem.runtime.json import JsonObject

SUMS, STACKED, TOKENIZER = "SHA256SUMS", "train.ids", "tokenizer.json"


def save_corpus(corpus: Corpus, directory: Path | str) -> None:
    """Write the corpus; `directory` appears whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with new_directory(Path(directory)) as temporary:
        write_corpus(corpus, temporary)


def write_corpus(corpus: Corpus, directory: Path, notes: JsonObject | None = None) -> None:
    """Write the corpus into a folder that exists. `notes` of artifacts join the manifest."""
    for name, columns in tables(corpus).items():
        _write_parquet(directory / f"{name}.parquet", columns)
    if corpus.stacked is not None and not (directory / STACKED).exists():
        write_rows(directory / STACKED, row_blocks(corpus.stacked))
    if corpus.tokenizer_file is not None and corpus.tokenizer_file != directory / TOKENIZER:
        shutil.copyfile(corpus.tokenizer_file, directory / TOKENIZER)
    manifest = _manifest(corpus, notes or {})
    write_text(directory / "README.md", card(manifest, {name: list(columns) for name, columns in tables(corpus).items()}))
    manifest = manifest.model_copy(update={"files": {path.name: file_sha256(path) for path in _files(directory)}})
    write_json(directory / MANIFEST, manifest.as_json())
    write_text(directory / SUMS, _sums(directory))


def _manifest(corpus: Corpus, notes: JsonObject) -> CorpusManifest:
    text = {"clean_dtype": corpus.clean.dtype.str, "row_tokens": corpus.row_tokens} if corpus.is_text else {}
    return CorpusManifest(
        spec=corpus.spec,
        vocab_size=corpus.vocab_size,
        pad=corpus.pad,
        bos=corpus.bos,
        eos=corpus.eos,
        artifacts=tuple(corpus.planted),
        counts=corpus.counts(),
        sha256=corpus.sha256(),
        **text,
        **notes,
    )


def is_stated(data: Data, directory: Path) -> bool:
    """Whether a corpus says of its text what the recipe says: license and credit."""
    manifest = read_manifest(directory)
    return all(getattr(manifest, name) == getattr(data, name, None) for name in STATED)


def state(data: Data, directory: Path) -> None:
    """Let card and manifest of a corpus say of its text what the recipe says; the rows stay as they are.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    if is_stated(data, directory):
        return
    manifest = read_manifest(directory).model_copy(update={name: getattr(data, name, None) for name in STATED})
    schema = {name: list(columns) for name, columns in tables(open_corpus(directory, manifest)).items()}
    write_text(directory / "README.md", card(manifest, schema))
    files = {**manifest.files, "README.md": file_sha256(directory / "README.md")}
    write_json(directory / MANIFEST, manifest.model_copy(update={"files": files}).as_json())
    write_text(directory / SUMS, _sums(directory))


def write_rows(path: Path, blocks: Iterator[npt.NDArray[Any]]) -> int:
    """Append blocks of rows to a raw file; returns the rows written."""
    count = 0
    with path.open("ab") as file:
        for rows in blocks:
            file.write(np.ascontiguousarray(rows).data)
            count += len(rows)
    return count


def load_corpus(directory: Path | str) -> Corpus:
    """Read a corpus that `save_corpus` wrote.

    Raises:
        UserError: no corpus there, or a file differs from its hash in the manifest.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    for name, digest in manifest.files.items():
        path = directory / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UserError(f"expected {path} as its manifest describes it, found it missing or changed; make the corpus again")
    return open_corpus(directory, manifest)


def open_corpus(directory: Path, manifest: CorpusManifest) -> Corpus:
    """The corpus of a manifest, without looking at hashes."""
    planted = {kind: planted_of(_read(directory / f"{kind}.parquet")) for kind in manifest.artifacts}
    test = _read(directory / "test.parquet")
    read = _text_sets if (directory / STACKED).is_file() else _math_sets
    sets = read(directory, manifest, test)
    return replace(sets, planted=planted, vocab_size=manifest.vocab_size, pad=manifest.pad, bos=manifest.bos, eos=manifest.eos)


def _text_sets(directory: Path, manifest: CorpusManifest, test: Columns) -> Corpus:
    assert manifest.clean_dtype and manifest.row_tokens
    stacked = open_rows(directory / STACKED, manifest.clean_dtype, manifest.row_tokens)
    validation = directory / "validation.parquet"
    return Corpus(
        spec=manifest.spec,
        clean=stacked[: manifest.counts["clean_rows"]],
        clean_task=None,
        tests={"test": test["ids"]},
        determined={},
        validation=_read(validation)["ids"] if validation.is_file() else None,
        stacked=stacked,
        tokenizer_file=directory / TOKENIZER,
    )


def _math_sets(directory: Path, manifest: CorpusManifest, test: Columns) -> Corpus:
    clean = _read(directory / "clean.parquet")
    tasks = list(dict.fromkeys(test["task"].tolist()))
    return Corpus(
        spec=manifest.spec,
        clean=clean["ids"],
        clean_task=clean["task"],
        tests={str(t): test["ids"][test["task"] == t] for t in tasks},
        determined={str(t): test["determined"][test["task"] == t] for t in tasks},
    )


def open_rows(path: Path, dtype: str, row_tokens: int) -> npt.NDArray[Any]:
    """Rows [n, T] of a raw file, memory-mapped and read-only."""
    return np.memmap(path, dtype=np.dtype(dtype), mode="r").reshape(-1, row_tokens)


def verify_corpus(directory: Path) -> list[str]:
    """Differences from the corpus as written, one line per file; an empty list means that every byte is unchanged.

    Raises:
        UserError: no corpus there.
    """
    if not (directory / SUMS).is_file():
        raise UserError(f"expected a corpus with {SUMS} at {directory}, found none; `tinymem data make` writes one")
    stored = (directory / SUMS).read_bytes()
    now = _sums(directory)
    if stored == now.encode():
        return []
    known, found = _digests(stored.decode(errors="replace")), _digests(now)
    problems = [f"{name}: missing" for name in known if name not in found]
    problems += [f"{name}: not part of the corpus" for name in found if name not in known]
    problems += [f"{name}: changed" for name in found if name in known and known[name] != found[name]]
    return problems or [f"{SUMS}: changed"]


def _digests(sums: str) -> dict[str, str]:
    """File name -> hash, of the lines of SHA256SUMS."""
    lines = [line.split("  ", 1) for line in sums.splitlines() if "  " in line]
    return {name: digest for digest, name in lines}


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name != SUMS)


def _sums(directory: Path) -> str:
    return "".join(f"{file_sha256(path)}  {path.relative_to(directory)}\n" for path in _files(directory))


def planted_of(columns: Columns) -> Planted:
    """The planted rows of an artifact from the columns of its file."""
    return Planted(columns["ids"], columns["clean_ids"], columns["start"], columns["copies"], columns.get("end"))


def _write_parquet(path: Path, columns: Columns) -> None:
    """One row group per block, so that writing takes little memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(next(iter(columns.values())))
    empty = {name: _arrow_column(pa, values[:0]) for name, values in columns.items()}
    with pq.ParquetWriter(path, pa.table(empty).schema) as writer:
        blocks = [row_blocks(values) for values in columns.values()]
        for _ in range(0, count, BLOCK_ROWS):
            writer.write_table(pa.table({name: _arrow_column(pa, next(b)) for name, b in zip(columns, blocks, strict=True)}))


def _arrow_column(pa: Any, values: npt.NDArray[Any]) -> Any:
    """A column of numbers or of rows of them; not by `pa.array`, which imports pandas where it is installed, most of a second."""
    if values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(_arrow_column(pa, values.reshape(-1)), values.shape[1])
    bits = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(bits)])


def _read(path: Path) -> Columns:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {name: _numpy_column(table.column(name).combine_chunks()) for name in table.column_names}


def _numpy_column(column: Any) -> npt.NDArray[Any]:
    if hasattr(column.type, "list_size"):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))
