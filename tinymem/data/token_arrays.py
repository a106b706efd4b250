"""Arrays of token ids [rows, tokens] in users' files: NumPy's, torch's, and raw ones, memory-mapped so that a file may exceed the memory.

`X_prefix.npy` is read with the `X_suffix.npy` beside it, as lm-extraction-benchmark has them: each row is a prompt and its target. Of a raw
file (`.bin`, as Pythia's training batches) type and width are given, as in `uint16x2049`.
"""

from __future__ import annotations

import pickle
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymem.errors import UserError

ARRAYS = (".npy", ".pt", ".bin")
RAW_TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "int64", "uint64")
PREFIX, SUFFIX = "_prefix.npy", "_suffix.npy"
Array = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RawLayout:
    """How a raw file holds ids: little-endian numbers of one type, `width` to a row."""

    kind: str
    width: int

    @staticmethod
    def parse(text: str) -> RawLayout:
        """The layout of a text such as `uint16x2049`.

        Raises:
            UserError: another form.
        """
        found = re.fullmatch(rf"({'|'.join(RAW_TYPES)})x([1-9]\d{{0,8}})", text)
        if found is None:
            raise UserError(f"expected type and width of a .bin such as uint16x2049 (types: {', '.join(RAW_TYPES)}), got '{text}'")
        return RawLayout(found[1], int(found[2]))


@dataclass(frozen=True)
class TokenArray:
    """Rows of ids, and the length of their prompts where the file says it."""

    ids: Array
    prompt: int | None = None


def read_token_array(path: Path, layout: RawLayout | None = None) -> TokenArray:
    """The array in a file of one of `ARRAYS`.

    Args:
        path: of the file.
        layout: of a raw file, which does not say it itself.

    Raises:
        UserError: no integer array of two dimensions, a pickle that would run code, a prefix without its suffix, or a raw file of
            unknown or another layout.
    """
    if path.name.endswith(PREFIX):
        return _prefix_and_suffix(path)
    suffix = path.suffix.lower()
    array = _raw(path, layout) if suffix == ".bin" else _torch(path) if suffix == ".pt" else _numpy(path)
    return TokenArray(_checked(path, array))


def _checked(path: Path, array: npt.NDArray[Any]) -> Array:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"expected an integer array [rows, tokens] in {path}, got {array.dtype} {list(array.shape)}")
    return array


def _numpy(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError, tokenize.TokenError) as error:
        raise UserError(f"expected a NumPy array in {path}, got something else ({error})") from None
    return array


def _torch(path: Path) -> npt.NDArray[Any]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        raise UserError(f"expected a tensor that torch.save wrote at {path}, got something else, or a pickle that would run code") from None
    if not isinstance(found, torch.Tensor) or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        what = f"a tensor of {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise UserError(f"expected a tensor of token ids [rows, tokens] in {path}, got {what}")
    return found.numpy()


def _raw(path: Path, layout: RawLayout | None) -> npt.NDArray[Any]:
    if layout is None:
        raise UserError(f"expected the layout of {path}, which the file does not say; give it with --raw, as in --raw uint16x2049")
    kind = np.dtype(layout.kind).newbyteorder("<")
    size, row = path.stat().st_size, kind.itemsize * layout.width
    if not size or size % row:
        raise UserError(f"expected rows of {row} bytes ({layout.kind}x{layout.width}) in {path}, got {size:,} bytes; check --raw")
    array: npt.NDArray[Any] = np.memmap(path, kind, mode="r").reshape(-1, layout.width)
    return array


def _prefix_and_suffix(path: Path) -> TokenArray:
    other = path.with_name(path.name.removesuffix(PREFIX) + SUFFIX)
    if not other.is_file():
        raise UserError(f"expected {other.name} beside {path}, which holds prompts only, found none; put it there or rename the file")
    prefix, suffix = (_checked(place, _numpy(place)) for place in (path, other))
    if len(prefix) != len(suffix):
        raise UserError(f"expected as many rows in {other} as in {path}, got {len(suffix)} and {len(prefix)}")
    return TokenArray(np.concatenate([prefix, suffix], axis=1), prefix.shape[1])
