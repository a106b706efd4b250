"""Files that are either whole or absent: atomic writes, content ids, hashes."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn, cast

from tinymem.errors import CouldNotWrite, UserError
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.words import counted, size


def user_path(text: str) -> Path:
    """A path as a user writes it: `~` is the home folder, where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no HOME, as in a container that runs as a user of its own, or no such user
        return Path(text)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any, length: int = 8) -> str:
    """Hexadecimal id of a JSON-able value (BLAKE2b)."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str | None:
    """SHA-256 of a file's bytes, or of the names and bytes of all files of a folder, in hexadecimal; None where there is neither.

    Raises:
        UserError: what is there cannot be read.
    """
    try:
        if not path.is_dir():
            return file_sha256(path) if path.exists() else None
        inside = [[file.relative_to(path).as_posix(), file_sha256(file)] for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256(canonical_json(inside).encode()).hexdigest()
    except OSError as error:
        raise UserError(f"could not read {path}: {error.strerror or error}; check its rights") from error


@contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """Raise errors of the operating system inside the context as a CouldNotWrite that names the path, and what is free on a full disk."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}{_free_at(path) if error.errno == errno.ENOSPC else ''}"
        raise CouldNotWrite(f"could not write {path}: {reason}; free or change the place (--out, --runs or --dir) and run again") from error


def _free_at(path: Path) -> str:
    with suppress(OSError):
        return f", {size(shutil.disk_usage(next(place for place in path.absolute().parents if place.is_dir())).free)} are free"
    return ""


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: readers see the old file or the whole new one, also after a crash.

    Folders that are missing on the way are made, and where the write fails they are gone again.
    """
    with disk_errors_named(path):
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_sibling(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            with suppress(OSError):  # another process may have put something there
                for folder in missing:
                    folder.rmdir()
            raise
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_if_changed(path: Path, text: str) -> bool:
    """Write a UTF-8 text file, unless it holds the text already; True if it did not."""
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def require_writable(directory: Path) -> None:
    """Raise UserError unless files can be made in a directory, which is made if it is missing."""
    with disk_errors_named(directory):
        directory.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=directory).close()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str = "file") -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected a {what} at {path}, found none; check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"expected JSON in {path}, got something else ({error}); the file is damaged: make it again") from None
    except OSError as error:
        raise UserError(f"expected a {what} at {path}, got: {error.strerror or error}; check the path and its rights") from None


def strict_json(text: str | bytes) -> Any:
    """Parse JSON strictly, without Python's extras (NaN, Infinity).

    Raises:
        ValueError: no JSON, or NaN or infinity in it.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def users_json(text: str) -> Any:
    """Parse JSON of a user's file: NaN and Infinity may be in it, but no key twice, of which Python would take the last without a word.

    Raises:
        ValueError: no JSON, or an object with a key twice.
    """
    return json.loads(text, object_pairs_hook=_refuse_repeated_keys)


def json_lines(path: Path, hint: str, parse: Callable[[str], Any] = strict_json) -> Iterator[tuple[int, Any]]:
    """Values of a file of JSON lines, each with the number of its line; empty lines are left out. The file is read as it is asked for.

    Args:
        path: the file.
        hint: what to do about a damaged or missing file, for the message.
        parse: reads one line; raises ValueError for what is no JSON.

    Raises:
        UserError: the file is missing or unreadable, or a line is not UTF-8 or not JSON.
    """
    try:
        with read_errors_named(path), open_bytes(path) as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _json_line(path, number, raw, hint, parse)
    except FileNotFoundError:
        raise UserError(f"expected a file at {path}, found none; {hint}") from None


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Number of the last line of each row of a CSV file with a head, and its values by column; None where there is nothing.

    Raises:
        UserError: the file is unreadable, not UTF-8, or no CSV; a row has more or fewer cells than the head, which is how a text with a
            comma or a line end of its own looks that lacks its quotes; or the head has a name twice.
    """
    csv.field_size_limit(2**31 - 1)
    with read_errors_named(path), open_bytes(path) as file:
        reader = csv.reader((decode_line(path, number, line) for number, line in enumerate(file, start=1)), strict=True)
        try:
            head = next((cells for cells in reader if cells), [])
            if repeated := sorted({name for name in head if name and head.count(name) > 1}):
                raise UserError(f"expected a column of each name in {path}, got two with the name '{repeated[0]}'; rename one")
            for cells in reader:
                if len(cells) not in (0, len(head)):
                    raise UserError(
                        f"expected {counted(len(head), 'cell')} in line {reader.line_num} of {path}, as in its head, got {len(cells)}; "
                        'put texts with commas or line ends in quotes (")'
                    )
                if cells:
                    yield reader.line_num, {name: cell or None for name, cell in zip(head, cells, strict=True)}
        except csv.Error as error:
            raise UserError(
                f"expected a CSV file at {path}, got at line {reader.line_num}: {error}; check its quotes and line ends"
            ) from None


@contextmanager
def read_errors_named(path: Path) -> Iterator[None]:
    """Raise errors of reading a file that is there, compressed or not, as a UserError that names it.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or not be decompressed.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"expected a readable file at {path}, got: {reason}; check the path and its rights") from None


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading; one whose name ends with .gz is decompressed."""
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _json_line(path: Path, number: int, raw: bytes, hint: str, parse: Callable[[str], Any]) -> Any:
    line = decode_line(path, number, raw)
    try:
        return parse(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"expected JSON in line {number} of {path}, got {line[:40].strip()!r} ({error}); {hint}") from None


def decode_line(path: Path, number: int, raw: bytes) -> str:
    """Text of a line of a UTF-8 file, without the byte order mark that the first may begin with.

    Raises:
        UserError: other bytes.
    """
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"expected UTF-8 in {path}, got the byte 0x{error.object[error.start]:02x} in line {number}; convert the file"
        ) from None


def _refuse_repeated_keys(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)[:40]}' twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_object(path: Path, what: str = "file") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        UserError: as `read_json`; also another kind of JSON.
    """
    value = read_json(path, what)
    if not isinstance(value, dict):
        raise UserError(f"expected a JSON object in {path}, got {type(value).__name__}; the file is damaged: make it again")
    return value


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a temporary name and rename it into place, so that `path` is whole or absent.

    An existing directory at `path` is replaced only after the new one is complete.
    """
    with disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_sibling(path)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            if path.exists():
                old = _temporary_sibling(path)
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
            _fsync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Delete half-written files and folders of killed processes in `directory`; another process may be doing the same."""
    for path in directory.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
