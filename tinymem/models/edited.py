"""Edited checkpoints: the original folder with other weights. Everything else in it stays as it was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tinymem.models.gpt2_folder import published_tensors
from tinymem.models.layout import Expected, Layout
from tinymem.models.metadata import write_metadata
from tinymem.models.weights import CONFIG, INDEX, METADATA, PICKLED, Folder, read_tensors, stored_tensors, weight_files, write_tensors
from tinymem.runtime.files import new_directory, read_object
from tinymem.runtime.json import Json

# Files that hold the original's weights in other forms, or the state of its training.
OTHER_WEIGHTS = (*PICKLED, ".safetensors", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".npy", ".npz", ".tflite", ".index.json")
TEMPLATES = "additional_chat_templates"


def save_edited(model: nn.Module, original: Path | str, directory: Path | str, *, metadata: Mapping[str, Json]) -> None:
    """Write an edited model as its original folder has it; the folder appears whole or not at all.

    Names, types and files of the tensors are the original's, and so are configuration, tokenizer, templates and generation settings.

    Args:
        model: the model that the original holds, edited.
        original: the checkpoint folder that it was loaded from.
        directory: the new folder.
        metadata: written to `tinymem.json`, with the hashes of the weights; any value that JSON can hold. With that of the original,
            `load_checkpoint(original).metadata.as_json()`, the edit is still known to be of its recipe and corpus.

    Raises:
        UserError: the original no longer fits the model, the disk is full, or the folder cannot be written.
    """
    original, directory = Path(original), Path(directory)
    tensors = published_tensors(model)
    expected = Expected(f"a {type(model).__name__}", tensors, getattr(model, "base_model_prefix", "transformer"))
    layout = expected.layout(Folder(original, read_object(original / CONFIG, "model configuration"), stored_tensors(original)))
    with new_directory(directory) as temporary:
        for path in _companions(original):
            shutil.copyfile(path, temporary / path.name)
        if (original / TEMPLATES).is_dir():
            shutil.copytree(original / TEMPLATES, temporary / TEMPLATES)
        for path in weight_files(original):
            write_tensors(temporary / path.name, _as_stored(path, tensors, layout))
        write_metadata(temporary, metadata)


def edited_bytes(original: Path) -> int:
    """Bytes on disk that an edit of a checkpoint takes: those of the original's files that an edited folder has."""
    return sum(path.stat().st_size for path in (*_companions(original), *weight_files(original)))


@torch.no_grad()
def round_as_stored(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> nn.Module:
    """The model, rounded in place to the types of its folder, so that what is measured is what is saved."""
    for name, tensor in published_tensors(model).items():
        if dtype := dtypes.get(name):
            tensor.copy_(tensor.to(dtype))
    return model


def _companions(original: Path) -> list[Path]:
    """The files beside the weights that an edited model needs just as well; hidden ones and other forms of the weights are left out."""
    files = [path for path in sorted(original.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if path.name == INDEX or not (path.name.endswith(OTHER_WEIGHTS) or path.name == METADATA)]


def _as_stored(path: Path, tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors of one of the original's files with the model's values; those that the model does not have stay."""
    stored = read_tensors(path)
    for name in stored.keys() & layout.places.keys():
        value = tensors[layout.places[name]].detach()
        stored[name] = value.to("cpu", stored[name].dtype, copy=True).contiguous()
    return stored
