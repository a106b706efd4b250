"""The corpus: named sets of token rows, saved as Parquet with a hash of their content.

A corpus keeps clean training rows, clean test rows per task, and for each artifact the planted rows beside their clean twins. Copies are
a count, not rows. Ids are stored in the smallest unsigned type that holds the vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymem.data.math import Ids
from tinymem.errors import UserError
from tinymem.files import canonical_json, file_sha256, new_directory, read_json, write_json

MANIFEST = "corpus.json"
ParquetColumns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Planted:
    """Rows of one artifact [n, T]: as the model sees them, their clean twins, and where the test of memorisation starts."""

    ids: Ids
    clean: Ids
    start: npt.NDArray[np.int64]
    """Tokens of the prompt [n]; 0 where the evaluation's own prompt length applies (noise)."""
    copies: npt.NDArray[np.int64]
    """Times that each row stands in an epoch [n]; 0 for rows kept from training."""

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Which rows are in the training set [n]."""
        return self.copies > 0


@dataclass(frozen=True)
class Corpus:
    """Rows to train on, to test on, and to be memorised."""

    spec: dict[str, Any]
    clean: Ids
    clean_task: npt.NDArray[np.int64]
    tests: dict[str, Ids]
    determined: dict[str, npt.NDArray[np.bool_]]
    """Per test set [n, T]: tokens that the prefix determines (the ceiling of accuracy)."""
    planted: dict[str, Planted] = field(default_factory=dict)
    vocab_size: int = 14
    pad: int = 13

    @property
    def row_tokens(self) -> int:
        """Tokens per row, padding included."""
        return int(self.clean.shape[1])

    def training_rows(self) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Distinct training rows [n, T], and one epoch as indices into them (copies repeated)."""
        parts, copies = [self.clean], [np.ones(len(self.clean), dtype=np.int64)]
        for planted in self.planted.values():
            parts.append(planted.ids[planted.trained])
            copies.append(planted.copies[planted.trained])
        counts = np.concatenate(copies)
        return np.concatenate(parts), np.repeat(np.arange(len(counts)), counts)

    def sha256(self) -> str:
        """Hash of the content: equal rows in equal order give equal hashes, whatever the file format."""
        digest = hashlib.sha256(canonical_json(self.spec).encode())
        for name, columns in _tables(self).items():
            for column, values in columns.items():
                digest.update(f"{name}/{column}/{values.dtype}/{values.shape}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Rows of each set, for people."""
        counts = {"train_rows": len(self.training_rows()[1]), "clean_rows": len(self.clean)}
        counts["test_rows"] = sum(len(rows) for rows in self.tests.values())
        for kind, planted in self.planted.items():
            counts[f"{kind}_rows"] = int(planted.trained.sum())
            counts[f"{kind}_test_rows"] = int((~planted.trained).sum())
        return counts


def _tables(corpus: Corpus) -> dict[str, ParquetColumns]:
    names = list(corpus.tests)
    tables: dict[str, ParquetColumns] = {
        "clean": {"ids": corpus.clean, "task": corpus.clean_task},
        "test": {
            "ids": np.concatenate([corpus.tests[n] for n in names]),
            "determined": np.concatenate([corpus.determined[n] for n in names]),
            "task": np.concatenate([np.full(len(corpus.tests[n]), int(n), dtype=np.int64) for n in names]),
        },
    }
    for kind, planted in corpus.planted.items():
        tables[kind] = {"ids": planted.ids, "clean_ids": planted.clean, "start": planted.start, "copies": planted.copies}
    return tables


def save_corpus(corpus: Corpus, directory: Path) -> None:
    """Write the corpus as Parquet files and a manifest; `directory` appears whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with new_directory(directory) as temporary:
        for name, columns in _tables(corpus).items():
            arrays = {c: _arrow_column(pa, values) for c, values in columns.items()}
            pq.write_table(pa.table(arrays), temporary / f"{name}.parquet")
        manifest = {
            "format": 1,
            "spec": corpus.spec,
            "vocab_size": corpus.vocab_size,
            "pad": corpus.pad,
            "artifacts": list(corpus.planted),
            "counts": corpus.counts(),
            "sha256": corpus.sha256(),
            "files": {path.name: file_sha256(path) for path in sorted(temporary.glob("*.parquet"))},
        }
        write_json(temporary / MANIFEST, manifest)


def load_corpus(directory: Path) -> Corpus:
    """Read a corpus that `save_corpus` wrote.

    Raises:
        UserError: no corpus there, or a file differs from its hash in the manifest.
    """
    manifest = read_json(directory / MANIFEST, "corpus manifest")
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UserError(f"expected {path} as its manifest describes it, found it missing or changed; make the corpus again")
    clean, test = _read(directory / "clean.parquet"), _read(directory / "test.parquet")
    tasks = list(dict.fromkeys(test["task"].tolist()))
    return Corpus(
        spec=manifest["spec"],
        clean=clean["ids"],
        clean_task=clean["task"],
        tests={str(t): test["ids"][test["task"] == t] for t in tasks},
        determined={str(t): test["determined"][test["task"] == t] for t in tasks},
        planted={kind: _planted(_read(directory / f"{kind}.parquet")) for kind in manifest["artifacts"]},
        vocab_size=manifest["vocab_size"],
        pad=manifest["pad"],
    )


def _planted(columns: ParquetColumns) -> Planted:
    return Planted(columns["ids"], columns["clean_ids"], columns["start"], columns["copies"])


def _arrow_column(pa: Any, values: npt.NDArray[Any]) -> Any:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _read(path: Path) -> ParquetColumns:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {name: _numpy_column(table.column(name).combine_chunks()) for name in table.column_names}


def _numpy_column(column: Any) -> npt.NDArray[Any]:
    if hasattr(column.type, "list_size"):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))
