"""A training step in the style of the published code: transformers GPT-2, fed by a DataLoader, its loss read back each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tinymem.bench.sizes import HEADS, TOKENS, WIDTH, Case
from tinymem.errors import UserError


def endless(batches: Any) -> Iterator[Any]:
    """Yield the batches of a loader endlessly, epoch after epoch."""
    while True:
        yield from batches


def transformers_step(case: Case, rows_NT: Tensor, device: torch.device, rows: int, *, compiled: bool) -> Callable[[], object]:
    """A step of transformers' GPT-2, fed and read back as the published code does.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        raise UserError("this way needs transformers, which is not installed; try: pip install 'tinymem[hf]'") from None
    config = GPT2Config(
        vocab_size=case.vocabulary,
        n_positions=TOKENS,
        n_embd=WIDTH,
        n_layer=case.layers,
        n_head=HEADS,
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model: Any = GPT2LMHeadModel(config)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    call = torch.compile(model) if compiled else model
    loader: Any = torch.utils.data.DataLoader(rows_NT, batch_size=rows, shuffle=True)  # type: ignore[arg-type]
    turn = iter(endless(loader))

    def step() -> float:
        ids_BT = next(turn).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=compiled):
            loss = call(ids_BT, labels=ids_BT).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
