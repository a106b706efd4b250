"""Where to compute."""

from __future__ import annotations

from tinymem.errors import UserError


def resolve_device(device: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:1` -> a device that is there.

    Raises:
        UserError: an unknown name, or a GPU that is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not device.startswith("cuda"):
        raise UserError(f"expected --device auto, cpu or cuda, got '{device}'")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"expected a GPU for --device {device}, found none; try --device cpu")
    return device


def describe_device(device: str) -> str:
    """Name for result rows: the GPU's, or the number of CPU threads."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"
