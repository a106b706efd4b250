"""Memory that measuring and editing a model take, by estimate: weights, activations, and what a method makes of its own.

The model need not have memory itself (device `meta`), so that what cannot fit is refused before it is loaded. Rows, a corpus, and what an
edited checkpoint takes while it is written are not counted. The constants are those of our GPT, whose peaks a test compares; models of
transformers whose activation functions are written out in Python keep more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tinymem.data.build import refuse_large_corpus
from tinymem.data.own_rows import RowFiles
from tinymem.evaluation.evaluator import MAXIMUM_LOGITS
from tinymem.evaluation.forward import CPU_TOKENS
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.methods.pieces import rows_at_once, size_of
from tinymem.mitigation.methods.weight._learned_mask import PART
from tinymem.models.adapters import family_of, mlp_parameters, neuron_layers, vocabulary_of
from tinymem.models.checkpoint import bytes_of
from tinymem.models.metadata import read_metadata
from tinymem.recipe.paper import FINETUNINGS
from tinymem.training.checkpoints import is_made_again, recipe_of

FLOAT = 4
TRAINED = 3
"""Tensors of the size of the weights that a copy's training changes: their gradients, and AdamW's two moments."""
RANKED = 5
"""fp32 tensors of the size of a learned mask's part at a time: a gradient, and the weights that it is multiplied by."""
ROWS = 64
"""Rows that a measurement or a method is taken to see at once where it is not told."""
WORKING = 40 * 2**20
"""What fingerprints and other sums over a model hold at a time."""


@dataclass(frozen=True)
class Workload:
    """The largest batch of a measurement, and where it is computed.

    Attributes:
        tokens: of a row.
        rows: measured at a time.
        device: `cpu` or a GPU, on which a method's batch goes on in pieces where it does not fit: there one row counts.
    """

    tokens: int
    rows: int = ROWS
    device: str = "cpu"

    def measuring(self, model: nn.Module) -> int:
        """Bytes that a model takes while it is measured."""
        most = MAXIMUM_LOGITS // vocabulary_of(model) if self.on_gpu else CPU_TOKENS
        tokens = min(self.tokens * self.rows, max(most, self.tokens))
        return bytes_of(model) + WORKING + _passing(model, tokens, neurons=3)

    def editing(self, model: nn.Module, calls: Collection[MethodCall]) -> int:
        """Bytes that the most demanding of some methods takes, from the first measurement to that of the edited copy."""
        return max([self.measuring(model), *(self._editing(model, call) for call in calls)])

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def _editing(self, model: nn.Module, call: MethodCall) -> int:
        own, properties = bytes_of(model), call.method.properties
        if properties.order == "zeroth":
            return own + max(self.measuring(model), own + WORKING + _passing(model, self._tokens(model, call), neurons=5))
        activations = _keeping(model, self._tokens(model, call))
        weights = sum(p.numel() for p in mlp_parameters(model, matrices_only=True).values())
        if properties.unit == "model":
            return 2 * own + TRAINED * _trained(model, call, weights) + activations
        if properties.unit == "weight" and properties.criterion == "optimization":
            left = weights * (2 if self.on_gpu else _element(model))  # by default in bf16 on a GPU
            return own + 2 * FLOAT * weights + left + RANKED * FLOAT * min(weights, PART) + activations
        scores = 2 * FLOAT * weights if properties.unit == "weight" else 0
        return activations + max(own + scores, own + self.measuring(model))  # on a CPU small tensors that are freed stay with the process

    def _tokens(self, model: nn.Module, call: MethodCall) -> int:
        """Tokens of a method's batch that are on their way at once.

        Fine-tunings and learned masks fill it with rows to keep; other methods are taken to have `ROWS` rows to forget, and a baseline as
        many to keep.
        """
        rows, properties = int(getattr(call.config, "batch_size", ROWS)), call.method.properties
        if not (call.name in FINETUNINGS or (properties.unit == "weight" and properties.criterion == "optimization")):
            rows = min(rows, ROWS) * (2 if hasattr(call.config, "retain_weight") else 1)
        most = rows_at_once(model, self.tokens, gradients=properties.order != "zeroth")
        return self.tokens * (1 if self.on_gpu else min(rows, most or rows))


def workload_of(checkpoint: Path, files: RowFiles, device: str) -> Workload:
    """The workload of a checkpoint's own corpus, or of rows from files, which are not read yet and count as long as their window.

    Raises:
        UserError: a `tinymem.json` that cannot be read, or rows to be made that cannot fit into memory.
    """
    recipe = recipe_of(checkpoint, read_metadata(checkpoint))
    if recipe is not None and not files.given:
        if is_made_again(checkpoint, recipe, files.corpus):
            refuse_large_corpus(recipe)  # first, since it says what is wrong with rows that are too many or too long
        return Workload(recipe.data.row_tokens, recipe.evaluation.batch_size, device)
    own = (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else (0, 1)
    window = (given if given is not None else default for given, default in zip((files.prompt, files.match), own, strict=True))
    return Workload(sum(window), device=device)


def _passing(model: nn.Module, tokens: int, *, neurons: int) -> int:
    """Bytes that a pass without gradients has at a time: a block's states and neurons (so many times), or logits and their losses."""
    width, count, _ = _sizes(model)
    return tokens * max(_element(model) * (4 * width + neurons * count), FLOAT * (width + 3 * vocabulary_of(model)))


def _keeping(model: nn.Module, tokens: int) -> int:
    """Bytes that a pass keeps for the one backward, and three times its logits."""
    width, neurons, layers = _sizes(model)
    ways_in = len(family_of(model).in_projections)
    kept = layers * (8 * width + 2 * ways_in * neurons) + 8 * width
    return tokens * (_element(model) * kept + FLOAT * 3 * vocabulary_of(model))


def _trained(model: nn.Module, call: MethodCall, weights: int) -> int:
    """Bytes of the parameters that a method trains: RMU those of the feed-forward blocks of some layers, others all."""
    layers = getattr(call.config, "layers", None)
    return _element(model) * weights * layers // len(neuron_layers(model)) if isinstance(layers, int) else size_of(model)


def _element(model: nn.Module) -> int:
    """Bytes of one weight or activation."""
    return next(model.parameters()).element_size()


def _sizes(model: nn.Module) -> tuple[int, int, int]:
    """Width, neurons of a block, and blocks."""
    layers = neuron_layers(model)
    return layers[0].values_FD().shape[1], layers[0].neurons, len(layers)
