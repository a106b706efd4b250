"""Checkpoints: a folder that plain `transformers` loads, plus `tinymem.json` with the model's origin.

`config.json`, `model.safetensors` or several such files with an index, the tokenizer's files, `tinymem.json`. No pickle is written or
read. What transformers loads is loaded to the same logits; what does not fill the model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from tinymem.data.math.sequences import BOS, EOS, PAD
from tinymem.errors import UserError, no_checkpoint, run_for_checkpoint
from tinymem.models.foreign import load_foreign
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.models.gpt2_folder import hf_config, is_gpt2, load_gpt, published_tensors, read_gpt2_config
from tinymem.models.layout import Layout
from tinymem.models.metadata import Metadata, read_metadata, verify_weights, write_metadata
from tinymem.models.spread import bytes_by_device, refuse_without_accelerate
from tinymem.models.weights import ADAPTER, CONFIG, DTYPES, WEIGHTS, DTypeName, Folder, stored_tensors, stored_type, write_tensors
from tinymem.runtime.device import in_one_transfer, spread_devices
from tinymem.runtime.files import new_directory, read_object, write_json, write_text
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.memory import refuse_beyond_memory
from tinymem.runtime.segments import TOGETHER, concatenated, grouped

# Keys of config.json that make other weights of the stored ones, or name other files.
UNSUPPORTED = ("quantization_config", "transformers_weights")
SMALLER_WORK = "take shorter rows, a smaller batch_size of the method, or a larger machine"
"""What to try where the work on a model takes more than twice what the model does."""
OTHER_GPUS = "free it, or name other GPUs with CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with the metadata of its `tinymem.json` (empty for a folder that TinyMem did not write)."""

    model: nn.Module
    metadata: Metadata
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Types of the tensors that the folder stores in 16 bits, by their names in `published_tensors`."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files of weights that were compared with `tinymem.json`, by their names."""


def math_config(**sizes: Any) -> GPTConfig:
    """GPTConfig of a math model: 14 tokens with their special ids."""
    return GPTConfig(vocab_size=14, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, **sizes)


def save_checkpoint(model: nn.Module, directory: Path | str, *, metadata: Mapping[str, Json], tokenizer_files: dict[str, str]) -> None:
    """Write a checkpoint folder that transformers can load; it appears whole or not at all, in place of an older one.

    `save_edited` writes an edit of a checkpoint: it takes tokenizer and types from that.

    Args:
        model: our GPT, or a model of transformers.
        directory: the folder.
        metadata: written to `tinymem.json`, with the hashes of the weights; any value that JSON can hold.
        tokenizer_files: text by file name.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with new_directory(Path(directory)) as temporary:
        if isinstance(model, GPT):
            write_json(temporary / CONFIG, hf_config(model.config))
            published = published_tensors(model)
            write_tensors(temporary / WEIGHTS, {name: published[name].detach().cpu().contiguous() for name in model.state_dict()})
        else:
            try:
                model.save_pretrained(temporary)  # type: ignore[operator]
            except SafetensorError as error:  # its way to report a full disk
                raise OSError(str(error)) from error
        for name, text in tokenizer_files.items():
            write_text(temporary / name, text)
        write_metadata(temporary, metadata)


def bytes_of(model: nn.Module) -> int:
    """Bytes that a model's parameters and buffers take in memory; tied ones count once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def load_checkpoint(
    directory: Path | str,
    *,
    device: str = "cpu",
    needed: Callable[[nn.Module], int] = bytes_of,
    verify: bool = True,
    dtype: DTypeName = "fp32",
    gpus: int = 1,
) -> Checkpoint:
    """Load a checkpoint folder: ours, a GPT-2 that transformers wrote, or (through transformers) another known family.

    Args:
        directory: the folder.
        device: where the model goes.
        needed: bytes that the model takes with all that is done with it, by the model without memory; they have to fit the device's.
        verify: whether the weights must have the hashes that `tinymem.json` holds, if it holds any.
        dtype: type of the weights in memory. `auto`: of our GPT-2s float32, of other families the type that most of their weights have.
        gpus: number of GPUs that a model of transformers is spread over, by accelerate; the device is then `cuda`.

    Raises:
        UserError: missing, truncated, damaged or changed files, weights that do not fill the model or are no numbers, a model too large
            for the memory, or an architecture or option that is not supported.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    folder = Folder(directory, _read_config(directory), stored_tensors(directory))
    model, layout = _load(folder, device, needed, dtype, gpus)
    model.eval()
    _check_finite(model, directory)
    return Checkpoint(model, metadata, layout.half_types, verify_weights(directory, metadata) if verify else {})


def _load(folder: Folder, device: str, needed: Callable[[nn.Module], int], dtype: DTypeName, gpus: int) -> tuple[nn.Module, Layout]:
    """The model and where its tensors are stored."""
    sizes = read_gpt2_config(folder.config) if is_gpt2(folder) else None
    if gpus > 1:
        if sizes:
            raise UserError(f"expected a model of another family than GPT-2 with --gpus {gpus}, got {folder.path}, which one GPU holds")
        refuse_without_accelerate()

    def check(model: nn.Module) -> None:
        what = f"the model in {folder.path}" + ("" if needed is bytes_of else " and what is done with it")
        takes = needed(model)
        refuse_beyond_memory(takes, device, what, _remedy(model, takes, device, gpus), gpus)
        for place, part in bytes_by_device(model, devices).items() if gpus > 1 else ():
            refuse_beyond_memory(part, place, f"its share of the model in {folder.path}", OTHER_GPUS)

    devices = spread_devices(device, gpus)
    ours = load_gpt(folder, sizes, device, DTYPES.get(dtype, torch.float32), check) if sizes else None
    return ours or load_foreign(folder, devices, DTYPES.get(dtype) or stored_type(folder.stored.values()), check)


def _remedy(model: nn.Module, takes: int, device: str, gpus: int) -> str:
    """What to try where a model and what is done with it do not fit."""
    if not isinstance(model, GPT) and device.startswith("cuda") and torch.cuda.device_count() > gpus:
        return f"spread it over more GPUs: --gpus {gpus + 1}"
    return SMALLER_WORK if takes > 3 * bytes_of(model) else "use a larger machine or a smaller model"


def planned_dtype(directory: Path, dtype: DTypeName) -> str:
    """The type that a folder's weights will have in memory, as float32 or bfloat16; only headers are read."""
    folder = Folder(directory, _read_config(directory), stored_tensors(directory))
    ours = is_gpt2(folder) and read_gpt2_config(folder.config) is not None
    found = DTYPES.get(dtype) or (torch.float32 if ours else stored_type(folder.stored.values()))
    return str(found).removeprefix("torch.")


def _read_config(directory: Path) -> JsonObject:
    if not directory.is_dir():
        raise no_checkpoint(directory)
    if not (directory / CONFIG).is_file() and (directory / "checkpoint" / CONFIG).is_file():
        raise run_for_checkpoint(directory)
    if (directory / ADAPTER).is_file():
        raise UserError(f"expected a whole model in {directory}, got an adapter's {ADAPTER}; merge it (peft: merge_and_unload), then save")
    config: JsonObject = read_object(directory / CONFIG, "model configuration")
    for key in UNSUPPORTED:
        if config.get(key) not in (None, WEIGHTS):
            raise UserError(f"expected no '{key}' in {directory / CONFIG}, got {str(config[key])[:60]}; use the original weights")
    return config


def not_finite(model: nn.Module) -> list[str]:
    """Names of the parameters that hold NaN or infinity."""
    parameters = dict(model.named_parameters())
    parts = [p.detach() for p in parameters.values()]
    if all(in_one_transfer([torch.isfinite(concatenated([parts[i] for i in group])).all() for group in grouped(parts, TOGETHER)])):
        return []
    return [name for name, p in parameters.items() if not bool(torch.isfinite(p).all())]


def _check_finite(model: nn.Module, directory: Path) -> None:
    """All measurements of a model with a NaN in it would be NaN, or that it memorized nothing."""
    if broken := not_finite(model):
        raise UserError(
            f"expected finite weights in {directory}, got NaN or infinity in {len(broken)} tensors, '{broken[0]}' first; "
            "the training or the edit that wrote it diverged: make it again with a lower learning rate"
        )
