"""Tokenization of text over all cores; every finished block is stored.

The text is cut into blocks of lines; each block's ids are a file in the cache, named by the hash of the tokenizer and of the block's
text. So a killed run continues where it was, a corpus with other artifacts or another seed tokenizes nothing again, and changed
text is never mistaken for old text. Only a few blocks are in memory at a time, however large the corpus.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinymem.data.text.source import Block
from tinymem.data.text.tokenize_worker import read_shard
from tinymem.errors import UserError
from tinymem.runtime.device import python_path

Ids = npt.NDArray[np.unsignedinteger]
LEFTOVER_SECONDS = 3600


def cache_directory() -> Path:
    """Folder of tokenized text: $TINYMEM_CACHE, or ~/.cache/tinymem; one among the temporary files where that cannot be written."""
    if named := os.environ.get("TINYMEM_CACHE"):
        return Path(named)
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinymem"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that is not ours, as in a container that runs as a user of its own
        return _temporary_cache()
    return folder if os.access(folder, os.W_OK) else _temporary_cache()


def _temporary_cache() -> Path:
    """A folder of this user's own among the temporary files.

    Raises:
        UserError: another user's lies in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"tinymem-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"expected {folder} to be this user's own, found another's; set TINYMEM_CACHE to a folder that can be written")
    return folder


@dataclass(frozen=True)
class TokenStream:
    """The ids of a split, as files of ids that follow each other."""

    shards: tuple[Path, ...]
    dtype: str
    tokens: int
    lines: int
    text_sha256: str

    def __iter__(self) -> Iterator[Ids]:
        """Ids [n] of one block after the other."""
        for path in self.shards:
            ids = read_shard(path, self.dtype)
            if ids is None:
                raise UserError(f"expected tokenized text at {path}, found it missing or damaged; run again to make it anew")
            yield ids


@dataclass
class TokenizerPool:
    """Processes that tokenize; started when needed, one per core at most. Use as a context manager."""

    tokenizer_file: Path
    workers: int
    _local: threading.local = field(default_factory=threading.local)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="tokenize")

    def __enter__(self) -> TokenizerPool:
        return self

    def __exit__(self, *_error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()  # idle, or its work is not wanted any more; shards are written atomically
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # the part that was not sent before the kill
                    if pipe:
                        pipe.close()
        self._threads.shutdown(wait=True)

    def submit(self, block: Block, path: Path, dtype: str) -> Future[int]:
        """Tokenize a block into a shard; the future gives its tokens."""
        return self._threads.submit(self._work, block, path, dtype)

    def _work(self, block: Block, path: Path, dtype: str) -> int:
        process = self._process()
        assert process.stdin and process.stdout
        try:
            pickle.dump((block, str(path), dtype), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            tokens, error = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise UserError("a tokenizing process ended early (out of memory?); run again: finished blocks are kept") from None
        if error is not None:
            raise UserError(error)
        return int(tokens)

    def _process(self) -> subprocess.Popen[bytes]:
        if not hasattr(self._local, "process"):
            self._local.process = subprocess.Popen(
                # -P: no file of the working directory replaces a library
                [sys.executable, "-P", "-m", "tinymem.data.text.tokenize_worker", str(self.tokenizer_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": python_path()},
                start_new_session=True,  # Ctrl-C is the parent's to answer
            )
            self._processes.append(self._local.process)
        process: subprocess.Popen[bytes] = self._local.process
        return process


def tokenize(blocks: Iterable[Block], pool: TokenizerPool, directory: Path, dtype: str, *, limit: int | None = None) -> TokenStream:
    """Tokenize blocks of lines into shards in `directory`; existing shards are reused.

    Args:
        blocks: lines, as `TextSource.blocks` gives them.
        pool: processes that do the work.
        directory: of the tokenizer's shards (made if missing).
        dtype: `<u2` or `<u4`.
        limit: stop after so many tokens; the stream may hold more, to the end of a block.

    Raises:
        UserError: the text cannot be read, or the disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_old_leftovers(directory)
    digest, shards, lines, tokens = hashlib.sha256(), [], 0, 0
    waiting: deque[tuple[Path, Future[int] | int, int, bytes]] = deque()

    def finish() -> None:
        nonlocal lines, tokens
        path, made, count, key = waiting.popleft()
        tokens += made if isinstance(made, int) else made.result()
        lines += count
        shards.append(path)
        digest.update(key)

    for block in blocks:
        key = _key(block)
        path = directory / f"{key.hex()}.ids"
        known = read_shard(path, dtype)
        waiting.append((path, len(known) if known is not None else pool.submit(block, path, dtype), len(block), key))
        while len(waiting) > pool.workers + 2:
            finish()
        if limit is not None and tokens >= limit:
            break
    while waiting and (limit is None or tokens < limit):
        finish()
    return TokenStream(tuple(shards), dtype, tokens, lines, digest.hexdigest())


def _remove_old_leftovers(directory: Path) -> None:
    """Delete half-written shards of killed processes; young ones may be another run's, and stay."""
    for path in directory.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def _key(block: Block) -> bytes:
    try:
        text = "\0".join(block).encode()
    except UnicodeEncodeError as error:
        line = next(line for line in block if not line.isascii() and error.object[error.start] in line)
        raise UserError(f"expected text that UTF-8 can hold, got a lone surrogate in the line {line[:40]!a}; repair it") from None
    return hashlib.blake2b(text, digest_size=16).digest()
