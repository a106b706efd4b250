"""A process that tokenizes blocks of text: it reads jobs on standard input and writes results to standard output, both pickled.

Unlike a process of multiprocessing it imports nothing of the caller's script, and it ends when its input does, so that a killed parent
leaves nothing behind.
"""

from __future__ import annotations

import os
import pickle
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinymem.errors import UserError
from tinymem.runtime.files import write_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_CHARACTERS = 100_000  # encodings of one batch take some 10 MB


def encode(tokenizer: Tokenizer, lines: list[str], dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """Ids [n] of lines, each tokenized separately, one after the other, with no special tokens between."""
    parts = []
    for batch in by_size(lines, BATCH_CHARACTERS):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        parts.append(np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=dtype))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def by_size(lines: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Lines in order, in lists that end with the line at which they reach so many characters; the last may be shorter."""
    together, size = list[str](), 0
    for line in lines:
        together.append(line)
        size += len(line)
        if size >= characters:
            yield together
            together, size = [], 0
    if together:
        yield together


def write_shard(path: Path, ids: npt.NDArray[np.unsignedinteger]) -> None:
    """Write ids and the CRC-32 of their bytes; the file appears whole or not at all."""
    payload = ids.tobytes()
    write_bytes(path, payload + zlib.crc32(payload).to_bytes(4, "little"))


def read_shard(path: Path, dtype: str) -> npt.NDArray[np.unsignedinteger] | None:
    """Ids [n] of a shard, or None where it is missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    payload, check = data[:-4], data[-4:]
    if len(check) < 4 or len(payload) % np.dtype(dtype).itemsize or zlib.crc32(payload).to_bytes(4, "little") != check:
        return None
    return np.frombuffer(payload, dtype=dtype)


def main() -> None:
    """Serve jobs `(lines, path, dtype)` until the input ends; answer each with (tokens, None) or (0, error)."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process per core: threads inside each would only fight
    from tokenizers import Tokenizer

    source, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        tokenizer = Tokenizer.from_file(sys.argv[1])
    except Exception as error:  # the Rust library raises plain Exception
        pickle.load(source)
        pickle.dump((0, f"expected a tokenizer.json of the library tokenizers, got something else ({error})"), answers)
        return
    tokenizer.no_truncation()
    tokenizer.no_padding()
    while True:
        try:
            job = pickle.load(source)
        except EOFError:
            return
        pickle.dump(_serve(tokenizer, *job), answers)
        answers.flush()


def _serve(tokenizer: Any, lines: list[str], path: str, dtype: str) -> tuple[int, str | None]:
    try:
        ids = encode(tokenizer, lines, dtype)
        write_shard(Path(path), ids)
    except UserError as error:
        return 0, str(error)
    except Exception as error:  # the Rust library raises plain Exception
        return 0, f"the tokenizer failed on a block of text: {type(error).__name__}: {error}"
    return len(ids), None


if __name__ == "__main__":
    main()
