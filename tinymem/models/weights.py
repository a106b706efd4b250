"""The weights of a checkpoint folder: which files hold them, what their headers say, and the identity that follows from them.

Only safetensors are read: `model.safetensors`, or the files that `model.safetensors.index.json` names.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tinymem.errors import UserError
from tinymem.runtime.files import canonical_json, file_sha256, read_object
from tinymem.runtime.json import JsonObject

WEIGHTS, INDEX, CONFIG, METADATA = "model.safetensors", "model.safetensors.index.json", "config.json", "tinymem.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SAMPLE = "rows.safetensors.xz"
"""A sample of the rows that a model was trained on, beside it (`tinymem.data.sample`)."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTypeName = Literal["auto", "fp32", "bf16", "fp16"]
ADAPTER = "adapter_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Keys of config.json that say where a model came from and not what it computes.
PROVENANCE = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, as the file's header describes it."""

    file: Path
    shape: tuple[int, ...]
    kind: str
    """Name of the dtype in safetensors: F32, BF16, ..."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating-point type; None for whole numbers, booleans and quantized weights."""
        return FLOATS.get(self.kind)

    @property
    def is_half(self) -> bool:
        """Whether it has 16 bits."""
        return self.dtype in (torch.float16, torch.bfloat16)

    @property
    def is_mask(self) -> bool:
        """Whether it is shaped like a causal mask [1, 1, T, T] or the number that a mask fills in."""
        return len(self.shape) in (0, 4)


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder that is being loaded: what its configuration says, and what the headers of its weights say."""

    path: Path
    config: JsonObject
    stored: Mapping[str, StoredTensor]

    @property
    def named_class(self) -> str | None:
        """The first class that the configuration's `architectures` names, if any."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None

    def check_layers(self, layers: int) -> None:
        """Refuse a configuration of more layers than there are tensors: only to describe a billion layers would take forever.

        Raises:
            UserError: too many layers.
        """
        if layers > len(self.stored):
            raise UserError(f"expected weights of {layers} layers in {self.path}, got {len(self.stored)} tensors; wrong config.json?")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights, in a stable order; of both forms the single file, as transformers does.

    Raises:
        UserError: none, a file that the index names but the folder lacks, or an index that leads out of the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise UserError(_no_weights(folder))
    names = read_object(folder / INDEX, "index of weights").get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise UserError(f"expected a weight_map of file names in {folder / INDEX}, got something else; copy the checkpoint again")
    files = [folder / name for name in sorted(set(names.values()))]
    if lost := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"expected {len(files)} files of weights in {folder}, {len(lost)} missing ({lost[0]} first); copy the checkpoint again"
        )
    return files


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's weights by name; only headers are read.

    Raises:
        UserError: as `weight_files`; also a damaged file.
    """
    found = {}
    for path in weight_files(folder):
        with opened(path) as file:
            for name in sorted(file.keys()):
                part = file.get_slice(name)
                found[name] = StoredTensor(path, tuple(part.get_shape()), part.get_dtype())
    return found


def stored_type(stored: Iterable[StoredTensor]) -> torch.dtype:
    """The floating-point type that most stored numbers have; float32 where that is float64."""
    numbers: Counter[torch.dtype] = Counter()
    for tensor in stored:
        if tensor.dtype is not None:
            numbers[tensor.dtype] += math.prod(tensor.shape)
    found = max(numbers, key=numbers.__getitem__, default=torch.float32)
    return torch.float32 if found == torch.float64 else found


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open for reading.

    Raises:
        UserError: it is truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"expected a whole safetensors file at {path}, got a damaged one ({error}); copy the checkpoint again") from None


def read_tensors(path: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name, on the CPU; all unless some are named."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys()) if names is None or name in names}


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file; every tensor has memory of its own.

    Raises:
        OSError: the disk is full.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # its way to report a full disk
        raise OSError(str(error)) from error


def weights_id(checkpoint: Path, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """Identity of a trained model, whatever its folder is called: 16 hexadecimal digits over its configuration and all files of weights.

    Args:
        checkpoint: the folder.
        known: hashes of files, by their names, that need not be read again, as `Checkpoint.hashes`.
    """
    config = {key: value for key, value in read_object(checkpoint / CONFIG, "model configuration").items() if key not in PROVENANCE}
    hashes = [known.get(path.name) or file_sha256(path) for path in weight_files(checkpoint)]
    return hashlib.sha256(canonical_json([config, hashes]).encode()).hexdigest()[:16]


def _no_weights(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if not pickled:
        return f"expected weights at {folder / WEIGHTS} or {INDEX} beside it, found none; copy the checkpoint again"
    convert = f"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')"
    return (
        f"expected weights at {folder / WEIGHTS}, got only pickled ones ({pickled[0]}), which can run code and are not read; "
        f'if you trust them, convert them: python -c "{convert}"'
    )
