"""Which stored tensor fills which tensor of a model; whatever leaves a tensor unfilled, or is left over, is refused and explained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tinymem.errors import UserError
from tinymem.models.weights import Folder, StoredTensor, opened, read_tensors

# Buffers that older versions of transformers store in addition to the weights.
MASKS = ("attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias")
BUFFERS = ("rotary_emb.inv_freq", "position_ids")
# Beginnings of names that a version of transformers changed (GPT-NeoX), and reads and writes as they were.
RENAMED = {"embed_out.": "lm_head."}
# What wrappers put into the names of tensors, and how to save without it.
WRAPPERS = {
    "_orig_mod.": "a compiled model's (torch.compile); save the module in its _orig_mod",
    "_fsdp_wrapped_module.": "a model's inside FSDP; gather its whole state and save that",
    "_checkpoint_wrapped_module.": "a model's inside activation checkpointing; save the module that it wraps",
    "lora_": "an adapter's; merge it into its base model first (peft: merge_and_unload), then save",
    "base_model.model.": "an adapter's; merge it into its base model first (peft: merge_and_unload), then save",
    "module.": "a data-parallel model's; save the module in its .module",
}
NAMED = 3  # tensors that a message names


@dataclass(frozen=True)
class Layout:
    """A folder's stored tensors and the model's tensors that they fill."""

    stored: Mapping[str, StoredTensor]
    places: Mapping[str, str]
    """By stored name the name in the model; tensors that only older versions of transformers store have none."""
    shared: tuple[tuple[str, ...], ...] = ()
    """Stored names that fill one tensor of the model."""

    @property
    def half_types(self) -> dict[str, torch.dtype]:
        """The type of each of the model's tensors that is stored in 16 bits."""
        return {place: dtype for name, place in self.places.items() if self.stored[name].is_half and (dtype := self.stored[name].dtype)}

    def agrees(self) -> bool:
        """Whether stored tensors that fill one tensor of the model, as a tied head and its embedding do, are equal."""
        return all(torch.equal(self._read(first), self._read(other)) for first, *others in self.shared for other in others)

    def _read(self, name: str) -> Tensor:
        return read_tensors(self.stored[name].file, [name])[name]

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy every stored tensor to its place; one file is open at a time."""
        for path in {tensor.file: None for tensor in self.stored.values()}:
            with opened(path) as file:
                for name in file.keys() & self.places.keys():
                    tensors[self.places[name]].copy_(file.get_tensor(name))


@dataclass(frozen=True)
class Expected:
    """A model's tensors, as they have to be stored.

    Attributes:
        model: what it is, for messages.
        tensors: by name, on any device (meta: nothing is allocated); tied tensors are one object under several names.
        prefix: of the model without its head; stored names may lack it or have it in excess.
    """

    model: str
    tensors: Mapping[str, Tensor]
    prefix: str

    def layout(self, folder: Folder) -> Layout:
        """The places of a folder's stored tensors.

        Raises:
            UserError: a tensor of the model that nothing fills, a stored one that is none of the model's, another shape, or no floats.
        """
        stored = folder.stored
        places = {name: place for name in stored if (place := self._place(name)) is not None}
        extra = [name for name in stored if name not in places and not is_redundant(name, stored[name])]
        filled = {id(self.tensors[place]) for place in places.values()}
        missing = [name for name, tensor in self.tensors.items() if id(tensor) not in filled]
        if missing or extra:
            raise UserError(self._mismatch(folder, missing, extra))
        for name, place in places.items():
            _check(name, folder, self.tensors[place])
        return Layout(stored, places, self._shared(places))

    def _shared(self, places: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
        names: dict[int, list[str]] = {}
        for name, place in places.items():
            names.setdefault(id(self.tensors[place]), []).append(name)
        return tuple(tuple(found) for found in names.values() if len(found) > 1)

    def _place(self, name: str) -> str | None:
        renamed = [new + name.removeprefix(old) for old, new in RENAMED.items() if name.startswith(old)]
        candidates = (name, f"{self.prefix}.{name}", name.removeprefix(f"{self.prefix}."), *renamed)
        return next((candidate for candidate in candidates if candidate in self.tensors), None)

    def _mismatch(self, folder: Folder, missing: list[str], extra: list[str]) -> str:
        parts = [f"none for {_some(missing)}"] if missing else []
        parts += [f"also {_some(extra)}"] if extra else []
        named = f" (config.json says {folder.named_class})" if folder.named_class and folder.named_class not in self.model else ""
        look = self._look(extra, layer_count(folder.stored))
        return f"expected the tensors of {self.model} in {folder.path}{named}, got {' and '.join(parts)}; {look}"

    def _look(self, extra: list[str], stored_layers: int) -> str:
        """What the names look like, and what to do."""
        for part, meaning in WRAPPERS.items():
            if any(name.startswith(part) or f".{part}" in name for name in extra):
                return f"the names are {meaning}"
        for name in extra:
            if own := next((own for own in self.tensors if name.endswith(f".{own}")), None):
                return f"the names begin with '{name.removesuffix(own)}', a wrapper's; save the module inside it"
        if stored_layers != (layers := layer_count(self.tensors)):
            return f"the weights have {stored_layers} layers and config.json says {layers}; wrong config.json, or half a checkpoint?"
        return "wrong config.json, or half a checkpoint?"


def _check(name: str, folder: Folder, tensor: Tensor) -> None:
    stored = folder.stored[name]
    if stored.shape != tuple(tensor.shape):
        raise UserError(f"expected '{name}' of shape {list(tensor.shape)} in {folder.path}, got {list(stored.shape)}; wrong config.json?")
    if stored.dtype is None:
        raise UserError(f"expected floating-point weights in {folder.path}, got {stored.kind} in '{name}'; quantized? use the original")


def layer_count(names: Iterable[str]) -> int:
    """Number of layers that names of tensors speak of: one more than the highest number in them."""
    return 1 + max((int(found[1]) for name in names if (found := re.search(r"\.(\d{1,9})\.", f".{name}"))), default=-1)


def is_redundant(name: str, stored: StoredTensor) -> bool:
    """Whether a tensor is a buffer that only older versions of transformers store: a causal mask, positions or frequencies."""
    return (name.endswith(MASKS) and stored.is_mask) or name.endswith(BUFFERS)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + more
