"""Token rows as tensors, with the part of each row that a test of memorization or an unlearner uses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinymem.data.math.sequences import Ids
from tinymem.errors import UserError

IGNORED = -100
"""The target that torch's cross-entropy leaves out."""


@dataclass(frozen=True)
class Rows:
    """Rows [N, T] of token ids; row n is a prompt of `prompt[n]` tokens and a suffix that ends before `end[n]`. All are int64."""

    ids: Tensor
    prompt: Tensor
    end: Tensor
    length: Tensor | None = None
    """Tokens [N] of each row that are its own, where rows were filled up to one length; None: all T, a corpus's padding included."""

    @staticmethod
    def of(ids: Ids | Tensor, prompt: int | Tensor = 1, end: int | Tensor | None = None) -> Rows:
        """Rows from an array [N, T]; `prompt` and `end` (default: the row's last token) per row or for all. All on the device of `ids`.

        Raises:
            UserError: an array of another shape, or of fractions.
        """
        given = ids if isinstance(ids, Tensor) else np.asarray(ids)
        if len(given.shape) != 2:
            raise UserError(f"expected token ids of shape [rows, tokens], got the shape {[*given.shape]}")
        if "float" in str(given.dtype) and bool(torch.as_tensor(given).frac().count_nonzero()):
            raise UserError(f"expected whole numbers as token ids, got fractions in {given.dtype}")
        tensor = given if isinstance(given, Tensor) else torch.from_numpy(np.ascontiguousarray(given, dtype=np.int64))
        length = tensor.shape[1]
        return Rows(tensor.long(), _per_row(prompt, tensor), _per_row(length if end is None else end, tensor))

    @staticmethod
    def ragged(rows: Sequence[Sequence[int]], prompt: Tensor, end: Tensor, tokens: int) -> Rows:
        """Rows of any lengths up to `tokens`, filled up to that with id 0, which nothing scores or trains on."""
        ids = torch.tensor([[*row, *[0] * (tokens - len(row))] for row in rows], dtype=torch.int64).reshape(len(rows), tokens)
        length = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        return Rows(ids, prompt, end, length if bool((length < tokens).any()) else None)

    def __len__(self) -> int:
        return len(self.ids)

    def check(self, vocabulary: int) -> None:
        """Check that memorization can be tested on each row, by a model of so many tokens.

        Raises:
            UserError: no rows, one without a prompt or a suffix, or ids that the model does not have.
        """
        if not len(self):
            raise UserError("expected some rows to forget, got none")
        wrong_N = (self.prompt < 1) | (self.prompt >= self.end) | (self.end > self.lengths())
        if bool(wrong_N.any()):
            row = int(wrong_N.nonzero()[0])
            prompt, end, length = int(self.prompt[row]), int(self.end[row]), int(self.lengths()[row])
            raise UserError(f"expected 1 <= prompt < end <= {length} (the tokens of row {row}), got prompt {prompt} and end {end}")
        self.check_ids(vocabulary)

    def check_ids(self, vocabulary: int) -> None:
        """Raise a UserError for ids that a model of so many tokens does not have."""
        least, most = int(self.ids.min()), int(self.ids.max())
        if least < 0 or most >= vocabulary:
            wrong = least if least < 0 else most
            raise UserError(f"expected token ids from 0 to {vocabulary - 1} (the model's), got {wrong}; is it this model's tokenizer?")

    def take(self, index: Tensor) -> Rows:
        """The chosen rows, in the order of `index`."""
        length = None if self.length is None else self.length[index]
        return replace(self, ids=self.ids[index], prompt=self.prompt[index], end=self.end[index], length=length)

    def to(self, device: torch.device | str) -> Rows:
        """These rows with all tensors on another device."""
        length = None if self.length is None else self.length.to(device)
        return replace(self, ids=self.ids.to(device), prompt=self.prompt.to(device), end=self.end.to(device), length=length)

    def batches(self, size: int) -> list[Rows]:
        """Consecutive pieces of at most `size` rows."""
        return [self.take(index) for index in torch.arange(len(self), device=self.ids.device).split(size)]

    def filled(self, tokens: int) -> Rows:
        """The rows filled up to `tokens` with id 0, which nothing scores or trains on; rows as long as that stay as they are."""
        missing = tokens - self.ids.shape[1]
        return self if missing <= 0 else replace(self, ids=F.pad(self.ids, (0, missing)), length=self.lengths())

    def window(self) -> Tensor:
        """Suffix tokens [N, T]: True from the end of the prompt to `end`."""
        position = torch.arange(self.ids.shape[1], device=self.ids.device)[None, :]
        return (position >= self.prompt[:, None]) & (position < self.end[:, None])

    def lengths(self) -> Tensor:
        """Tokens [N] of each row that are its own."""
        return torch.full_like(self.end, self.ids.shape[1]) if self.length is None else self.length

    def own(self) -> Tensor:
        """Mask [N, T] of the tokens that are a row's own."""
        return torch.arange(self.ids.shape[1], device=self.ids.device)[None, :] < self.lengths()[:, None]


def compact_rows(ids: Ids, device: torch.device | str = "cpu") -> Tensor:
    """Many rows [N, T] as a tensor that takes no more room than the array, which may be memory-mapped; `to_ids` decodes a batch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # a memory-mapped corpus is read-only, and is only read
        # torch indexes signed types only; the ids' bits are kept.
        signed = ids if ids.dtype == np.uint8 else ids.view(np.dtype(f"i{ids.dtype.itemsize}"))
        return torch.from_numpy(signed).to(device)


def to_ids(compact: Tensor) -> Tensor:
    """Token ids [N, T] (int64) of rows that `compact_rows` made."""
    return compact.long() & 0xFFFF if compact.dtype == torch.int16 else compact.long()


def _per_row(value: int | Tensor, ids: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(ids.device).long()
    return torch.full((len(ids),), value, device=ids.device)


def concatenate(parts: list[Rows]) -> Rows:
    """Rows of several sets, one after the other."""
    length = None if all(p.length is None for p in parts) else torch.cat([p.lengths() for p in parts])
    return Rows(torch.cat([p.ids for p in parts]), torch.cat([p.prompt for p in parts]), torch.cat([p.end for p in parts]), length)


def next_tokens(ids_BT: Tensor, length_B: Tensor | None) -> Tensor:
    """Targets [B, T - 1] of a cross-entropy; those behind a row's own length (None: none) are IGNORED."""
    if length_B is None:
        return ids_BT[:, 1:]
    position = torch.arange(1, ids_BT.shape[1], device=ids_BT.device)[None, :]
    return ids_BT[:, 1:].masked_fill(position >= length_B[:, None], IGNORED)
