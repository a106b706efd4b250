"""How near each piece of the whole-block step is to what the card can do.

python benchmarks/step_bounds.py --layers 2 4 16            # math models
python benchmarks/step_bounds.py --layers 4 --words 50257   # the language model

A piece's bound is the longer of two times: its products at the card's rate for them, and its bytes at the rate of memory, where each number
that the design reads or writes is moved once (weights too, not once a tile). Both rates are measured here, with the largest products and
copies that a card likes. What the design computes twice is counted twice.

Shape suffixes as in `passes`: B rows, T tokens of a row, N tokens of the batch, D embedding, F neurons, V words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from whole_step import Size, microseconds, passes

from tinymem.training.kernels.flat_adamw import FlatAdamW
from tinymem.training.whole_step.passes import BatchPass
from tinymem.training.whole_step.tiles import Tiles
from tinymem.training.whole_step.weights import KernelWeights

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor  # isort: skip

REPEATS = 20


@dataclass(frozen=True)
class Piece:
    """A kernel or a few: what calls it, how often a step does, and what one call computes and moves."""

    name: str
    call: Callable[[], object]
    count: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Card:
    """What a card does, measured: operations and bytes a microsecond."""

    flops: float
    bytes: float

    def bound(self, piece: Piece) -> float:
        """Microseconds that a call takes at least."""
        return max(piece.flops / self.flops, piece.bytes / self.bytes)


def measured_card() -> Card:
    """Products of 8,192 x 8,192 matrices in bf16, and copies of 2 GB."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2**29, device="cuda")
    target = torch.empty_like(source)
    products = microseconds(lambda: torch.mm(left, right), 5)
    copies = microseconds(lambda: target.copy_(source), 5)
    return Card(2 * 8192**3 / products, 2 * source.nbytes / copies)


def pieces(size: Size, weights: KernelWeights, made: BatchPass) -> list[Piece]:
    """All pieces of a step, in the order of the table; numbers are bf16 (2 bytes) but for residual stream, weights and gradients."""
    w, N, D, F, L = weights, size.rows * size.tokens, weights.D, weights.F, weights.L
    ND, V, rows = N * D, weights.V, (0, size.rows)
    P = w.flat.numel()
    scores = size.rows * size.tokens**2 * D  # the operations of one causal product over all rows and heads: half of 2 B T T D
    per_layer = 3 * D * D + D * D + 2 * D * F

    def one(name: str, count: int, flops: float, moved: float, layer: int | None = 0, label: str = "") -> Piece:
        arguments = (rows,) if layer is None else (layer, rows)
        return Piece(label or name, lambda: getattr(made, name)(*arguments), count, flops, moved)

    found = [
        Piece("gradients to 0, weights folded", w.fold, 1, 0, 4 * P + 6 * L * per_layer),
        one("first_forward", 1, 2 * N * 3 * D * D, 12 * ND, None),
        one("attention", L, 2 * scores, 8 * ND),
    ]
    if L > 1:
        found.append(one("block_forward", L - 1, 2 * N * (D * D + 2 * D * F + 3 * D * D), 20 * ND))
    block = 2 * N * (D * D + 2 * D * F)
    if V:
        found.append(one("last_forward", 1, block + 2 * N * 3 * V * D, 10 * ND, None))
    else:
        head = made.head
        assert head is not None
        table = 2 * N * w.words * D
        found.append(Piece("last_hidden", lambda: made.last_hidden(rows, head), 1, block, 12 * ND))
        found.append(Piece("head and loss", lambda: whole_head(made), 1, 5 * table, 14 * w.words * D + 14 * ND))
    found.append(one("block_backward", 1, 2 * N * (3 * D * F + D * D), 8 * ND, L - 1, "block_backward, last layer"))
    if L > 1:
        found.append(one("block_backward", L - 1, 2 * N * (3 * D * D + 3 * D * F + D * D), 18 * ND))
    found += [
        one("block_weight_gradients", L, 2 * N * 4 * D * F, 4 * ND),
        one("attention_backward", L, 5 * scores, 16 * ND),
        one("attention_weight_gradients", L, 2 * N * 4 * D * D, 12 * ND),
        one("first_backward", 1, 2 * N * (3 * D * D + V * D), 10 * ND, None),
        Piece("gradients unfolded", w.unfold, 1, 0, 12 * L * (3 * D * D + D * F)),
        Piece("AdamW", optimizer(P, w.gradient), 1, 0, 28 * P),
    ]
    return found


def whole_head(made: BatchPass) -> None:
    """The large vocabulary's head, forward and backward, which computes its logits three times."""
    head = made.head
    assert head is not None
    head(made.ids_N, lambda losses_N: made.shares_N, made.d_end)


def optimizer(count: int, gradient: Tensor) -> Callable[[], object]:
    """AdamW's update of so many weights."""
    weights = torch.nn.Parameter(torch.randn(count, device="cuda"))
    made = FlatAdamW([weights], lr=torch.tensor(1e-3, device="cuda"), betas=(0.9, 0.98), weight_decay=0.1)
    return lambda: made.update(gradient[:count])


def show(size: Size, card: Card) -> None:
    """Print the table of a model."""
    _, weights, made = passes(size, Tiles(parts=1))
    ids_BT, shares_BT = size.batch()
    made(ids_BT, shares_BT)
    torch.cuda.synchronize()
    print(f"\n{size.layers} layers, {size.words:,} words, {size.rows} rows of {size.tokens} tokens\n")
    print("| piece | in a step | us | bound, us | by | times |\n| --- | --- | --- | --- | --- | --- |")
    found, total, least = pieces(size, weights, made), 0.0, 0.0
    for piece in found:
        took, bound = microseconds(piece.call, REPEATS if piece.flops < 1e11 else 2), card.bound(piece)
        by = "products" if piece.flops / card.flops >= piece.bytes / card.bytes else "memory"
        total, least = total + piece.count * took, least + piece.count * bound
        print(f"| {piece.name} | {piece.count} | {took:.1f} | {bound:.1f} | {by} | {took / bound:.1f} |", flush=True)
    _, _, apart = passes(size, Tiles())
    whole = microseconds(lambda: apart(ids_BT, shares_BT)) + microseconds(found[-1].call, REPEATS)
    print(f"| one after another | | {total:.0f} | {least:.0f} | | {total / least:.1f} |")
    print(f"| the step, in four parts side by side | | {whole:.0f} | {least:.0f} | | {whole / least:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[4])
    parser.add_argument("--words", type=int, default=14)
    parser.add_argument("--rows", type=int, default=128)
    given = parser.parse_args()
    card = measured_card()
    rates = f"{card.flops / 1e6:.0f} TFLOP/s in bf16 and {card.bytes / 1e6:.2f} TB/s measured"
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; {rates}")
    for layers in given.layers:
        show(Size(layers=layers, words=given.words, rows=given.rows), card)


if __name__ == "__main__":
    main()
