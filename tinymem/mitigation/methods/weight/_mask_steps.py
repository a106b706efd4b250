"""Steps of a learned mask by the whole-block kernels of training: forward, backward, and what changes the mask, without autograd.

A step needs the gradients of feed-forward matrices only, and each layer's mask as late as its block's next forward pass. So the parts of a
batch run on streams of their own, from one step into the next, and streams beside them change a layer's mask as soon as its gradient is
there: the lower layers' backward pass and the next step's forward pass go on meanwhile.

Shape suffixes: K steps, B rows, T tokens of a row, N tokens of a batch, P weights of all matrices, G groups.
"""

# triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tinymem.mitigation.methods.weight._mask_step_kernels import keep, learn
from tinymem.mitigation.methods.weight._selection_kernel import CHUNK, WARPS, counted
from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.launch import compile_side_by_side, launch
from tinymem.training.whole_step.passes import BatchPass
from tinymem.training.whole_step.tiles import SumTile, Tiles
from tinymem.training.whole_step.weights import KernelWeights

if TYPE_CHECKING:
    from tinymem.mitigation.methods.weight._learned_mask import LearnedMask

NEURONS, LEARN_WARPS = 16, 4
"""Of a program of `learn`."""
TILES = Tiles(block_weights=SumTile(stages=3, pieces=16))
"""The fastest for batches of 64 rows."""


class MaskSteps:
    """Steps of a mask over a GPT whose groups are all of one size; they change its scores and velocity, the model is left as it is.

    Args:
        mask: the mask; its scores may not be changed by others.
        gpt: its model.
        dtype: of the products.
        tiles: of the kernels.
    """

    def __init__(self, mask: LearnedMask, gpt: GPT, dtype: torch.dtype = torch.bfloat16, tiles: Tiles | None = None) -> None:
        (part,) = mask.parts
        self._own = torch.cat([weight.detach().flatten() for weight in gpt.parameters()])
        self._w = KernelWeights(gpt, self._own.clone(), dtype, tiles or TILES)
        self._part, self._config, self._kept_P = part, mask.config, mask.own_weights(part)
        self._scores_P, self._velocity_P = mask.scores_P, mask.velocity_P
        of_layer = 2 * self._w.D * self._w.F
        self._span = max(1, part.size // of_layer)  # layers whose weights compete
        self._groups = self._span * of_layer // part.size
        self._neurons = min(NEURONS, self._w.F)
        self._passes: dict[tuple[int, int], BatchPass] = {}
        self._lanes, self._sums = ([Lane(self._own.device) for _ in range(self._w.tiles.parts)] for _ in range(2))
        self._beside = [Lane(self._own.device) for _ in range(self._w.L)]
        self._started = False

    def compile(self, ids_BT: Tensor, coefficient_B: Tensor) -> Callable[[], None]:
        """Begin to compile the kernels for such batches, and return what waits for them."""
        if not ids_BT.is_cuda:
            return lambda: None

        def launches() -> None:
            self(ids_BT[None], coefficient_B[None])
            self._w.unfold()

        wait, self._started = compile_side_by_side(launches, ids_BT.device), False
        return wait

    def __call__(self, ids_KBT: Tensor, coefficient_KB: Tensor) -> None:
        """Lower sum(coefficient * mean loss of a row) of each batch in turn; nothing is read back, so that a CUDA graph can hold it."""
        self._run(ids_KBT, coefficient_KB, learning=True)

    def gradients(self, ids_BT: Tensor, coefficient_B: Tensor) -> Tensor:
        """The gradient of all weights under the current mask, right for feed-forward matrices only; nothing is learned from it."""
        self._run(ids_BT[None], coefficient_B[None], learning=False)
        self._w.unfold()
        found = self._w.gradient.clone()
        self._w.fold()  # which zeroes the gradient
        return found

    def _run(self, ids_KBT: Tensor, coefficient_KB: Tensor, *, learning: bool) -> None:
        if not self._started:
            self._start()
        K, B, T = ids_KBT.shape
        made = self._pass_of(B, T)
        shares_KBT = nn.functional.pad((coefficient_KB / (T - 1))[..., None].expand(K, B, T - 1), (0, 1))
        ids_KN, shares_KN = (_rows_apart(values.reshape(K, B * T)) for values in (ids_KBT, shares_KBT))
        run = Run(made)
        for lane in (*self._lanes, *self._sums, *self._beside):
            lane.begin()
        for k in range(K):
            made.ids_N, made.shares_N = ids_KN[k], shares_KN[k]
            self._passes_of(run)
            if learning:
                self._learn(run)
        for lane in (*self._lanes, *self._sums, *self._beside):
            lane.end()

    def ready(self, rows: int, row_tokens: int) -> None:
        """Let the copies follow the mask, and make what the passes of such batches write to: then a CUDA graph can hold the first step."""
        self._pass_of(rows, row_tokens)
        self._start()

    def _start(self) -> None:
        """Let the copies follow the mask; those of other weights stay as they are now."""
        self._w.fold()
        for first in range(0, self._w.L, self._span):
            self._choose(first)
        self._started = True

    def _passes_of(self, run: Run) -> None:
        """A forward and a backward pass of all parts."""
        made, head, lanes = run.made, run.made.head, self._lanes[: len(run.made.parts)]
        for i, lane in enumerate(lanes):
            with lane.inside():
                self._forward(run, i)
                if head is None:
                    self._backward(run, i)
        if head is not None:
            first, others = lanes[0], lanes[1:]
            with first.inside():
                first.behind(*(lane.now() for lane in others))
                head(made.ids_N, lambda _: made.shares_N, made.d_end)
                after = first.now()
            for i, lane in enumerate(lanes):
                with lane.inside():
                    lane.behind(after)
                    self._backward(run, i)

    def _forward(self, run: Run, i: int) -> None:
        made, top, part = run.made, self._w.L - 1, run.made.parts[i]
        made.first_forward(part)
        for layer in range(self._w.L):
            made.attention(layer, part)
            self._lanes[i].behind(run.changed.get(layer))
            if layer < top:
                made.block_forward(layer, part)
            elif made.head is None:
                made.last_forward(part)
            else:
                made.last_hidden(part, made.head)

    def _backward(self, run: Run, i: int) -> None:
        """Backward pass of a part; the sums that are a layer's gradients run beside its attention."""
        made, top, part, lane, sums = run.made, self._w.L - 1, run.made.parts[i], self._lanes[i], self._sums[i]
        for layer in reversed(range(self._w.L)):
            if layer:
                made.block_backward(layer, part)
            elif top:
                made.queries_backward(layer, part)
            sums.behind(lane.now())
            with sums.inside():
                made.block_weight_gradients(layer, part)
            run.left.setdefault(layer, []).append(sums.now())
            if layer:
                made.attention_backward(layer, part)
                lane.behind(run.left[layer][-1])  # the layer below writes what the sums read

    def _learn(self, run: Run) -> None:
        """Change the scores, and what is dropped by them, from the top layer down."""
        for first in reversed(range(0, self._w.L, self._span)):
            beside, layers = self._beside[first], range(first, first + self._span)
            with beside.inside():
                for layer in reversed(layers):
                    beside.behind(*run.left.pop(layer))
                    self._descend(layer)
                self._choose(first)
            run.changed |= dict.fromkeys(layers, beside.now())

    def _descend(self, layer: int) -> None:
        """A step of SGD on a layer's scores."""
        w, config = self._w, self._config
        gradients = w.d("mlp.c_fc.weight", layer), w.d("mlp.c_fc.bias", layer), w.of("ln_2.weight", layer), w.d("mlp.c_proj.weight", layer)
        own = (self._own[w.place(name, layer) :] for name in ("mlp.c_fc.weight", "mlp.c_proj.weight"))
        state = (values[2 * layer * w.D * w.F :] for values in (self._scores_P, self._velocity_P))
        numbers = config.learning_rate, -1.0 if config.drop == "highest" else 1.0, config.momentum, config.weight_decay
        launch(learn, w.F // self._neurons, 2)(*gradients, *own, *state, *numbers, w.D, w.F, self._neurons, num_warps=LEARN_WARPS)

    def _choose(self, first: int) -> None:
        """Write the copies of the weights that scores leave of layers which compete."""
        w, size, lowest = self._w, self._part.size, self._config.drop == "lowest"
        start = 2 * first * w.D * w.F
        scores_GN, own_GN = (v[start : start + self._groups * size].view(-1, size) for v in (self._scores_P, self._kept_P))
        grid, found, numbers = counted(scores_GN, self._part.count, lowest=lowest)
        (N, K, G, C, KC), places = numbers, (w.of("mlp.c_fc.weight", first), w.of("mlp.c_proj.weight", first))
        sizes = (N, K, G, w.stride, w.D, w.F, C, KC)
        launch(keep, *grid)(own_GN, scores_GN, *found, *places, *sizes, LOWEST=lowest, CHUNK=CHUNK, num_warps=WARPS)
        w.fold_blocks(first, self._span)

    def _pass_of(self, rows: int, row_tokens: int) -> BatchPass:
        key = rows, row_tokens
        if key not in self._passes:
            self._passes[key] = BatchPass(self._w, rows, row_tokens)
        return self._passes[key]


@dataclass
class Run:
    """What steps in a row share.

    Attributes:
        made: passes over their batches.
        left: moments at which the parts had added to a layer's gradient.
        changed: the moment at which a layer's mask had been changed.
    """

    made: BatchPass
    left: dict[int, list[Moment]] = field(default_factory=dict)
    changed: dict[int, Moment] = field(default_factory=dict)


Moment = torch.cuda.Event | None


class Lane:
    """What runs in order, beside other lanes: a stream of a GPU. On a CPU all runs in order."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def inside(self) -> AbstractContextManager[object]:
        """Inside the context all launches are of this lane."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def begin(self) -> None:
        """Run behind all that the caller's stream has been given."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def end(self) -> None:
        """Let the caller's stream go on behind this lane."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def now(self) -> Moment:
        """The moment at which all is done that the lane has been given."""
        return None if self._stream is None else self._stream.record_event()

    def behind(self, *moments: Moment) -> None:
        """Go on when these moments have come."""
        for moment in moments:
            if self._stream is not None and moment is not None:
                self._stream.wait_event(moment)


def _rows_apart(values_KN: Tensor) -> Tensor:
    """A copy whose rows begin at addresses of one alignment: kernels are compiled anew for another."""
    K, N = values_KN.shape
    apart_KN = values_KN.new_zeros(K, -(-N // 16) * 16)
    apart_KN[:, :N] = values_KN
    return apart_KN[:, :N]
