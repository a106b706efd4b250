"""Memory that measuring and editing a model take, by estimate: weights, activations, and what a method makes of its own.

The model need not have memory itself (device `meta`), so that what cannot fit is refused before it is loaded. Rows, a corpus, and what an
edited checkpoint takes while it is written are not counted. The constants are those of our GPT, whose peaks a test compares; models of
transformers whose activation functions are written out in Python keep more.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tinymem.data.build import refuse_large_corpus
from tinymem.data.manifest import MANIFEST, read_manifest
from tinymem.data.own_rows import RowFiles
from tinymem.data.rows_file import count_rows, read_rows
from tinymem.data.sample import rows_by_table
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.evaluation.evaluator import MAXIMUM_LOGITS
from tinymem.evaluation.forward import CPU_TOKENS
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.methods.curvature._common import CurvatureConfig
from tinymem.mitigation.methods.curvature._projections import projections
from tinymem.mitigation.methods.curvature._store import HELD, ROOM
from tinymem.mitigation.methods.pieces import rows_at_once, size_of
from tinymem.mitigation.methods.weight import greedy
from tinymem.mitigation.methods.weight._learned_mask import PART
from tinymem.mitigation.subject import MAXIMUM_RETAIN
from tinymem.models.adapters import family_of, logits_narrow, mlp_parameters, neuron_layers, vocabulary_of
from tinymem.models.checkpoint import bytes_of
from tinymem.models.metadata import read_metadata
from tinymem.models.weights import SAMPLE
from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.paper import FINETUNINGS
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import clean_rows, planted_rows, test_rows
from tinymem.training.checkpoints import is_made_again, recipe_of, run_of

FLOAT = 4
TRAINED = 3
"""Tensors of the size of the weights that a copy's training changes: their gradients, and AdamW's two moments."""
WHOLE_LOGITS = 5
"""Times that training on whole rows holds the logits: without the last token's they are copied, and so are their gradients."""
RANKED = 5
"""fp32 tensors of the size of a learned mask's part at a time: a gradient, and the weights that it is multiplied by."""
EIGEN = 4
"""Matrices of the size of a second moment that its eigendecomposition takes."""
ROWS = 64
"""Rows that a measurement sees at once where it is not told, and memorized ones that a method is taken to be given."""
LOOKED_AT = 1000
"""Rows of a file whose lengths are looked at before a model is loaded."""
WORKING = 40 * 2**20
"""What fingerprints and other sums over a model hold at a time."""


@dataclass(frozen=True)
class Workload:
    """The largest batch of a measurement, and where it is computed.

    Attributes:
        tokens: of a row.
        rows: measured at a time.
        device: `cpu` or a GPU, on which a method's batch goes on in pieces where it does not fit: there one row counts.
        forget: rows to forget that a method is given; of a batch no more are taken.
        retain: rows to keep that it is given; None: more than fill any batch.
        counterparts: clean counterparts of planted rows that fine-tunings train on; None as above.
        relearned: rows of a step of relearning; 0 where robustness is not measured.
    """

    tokens: int
    rows: int = ROWS
    device: str = "cpu"
    forget: int = ROWS
    retain: int | None = None
    counterparts: int | None = None
    relearned: int = 0

    def measuring(self, model: nn.Module) -> int:
        """Bytes that a model takes while it is measured."""
        most = MAXIMUM_LOGITS // vocabulary_of(model) if self.on_gpu else CPU_TOKENS
        tokens = min(self.tokens * self.rows, max(most, self.tokens))
        return bytes_of(model) + WORKING + _passing(model, tokens, neurons=3)

    def editing(self, model: nn.Module, calls: Collection[MethodCall]) -> int:
        """Bytes that the most demanding of some methods takes, from the first measurement to the last of the edited copy."""
        after = [self._relearning(model)] if calls else []
        return max([self.measuring(model), *(self._editing(model, call) for call in calls), *after])

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def _editing(self, model: nn.Module, call: MethodCall) -> int:
        own, properties = bytes_of(model), call.method.properties
        if isinstance(call.config, CurvatureConfig):
            return own + self._measuring_curvature(model, call, call.config)
        if properties.order == "zeroth":
            return own + max(self.measuring(model), own + WORKING + self._activating(model, call))
        activations = _keeping(model, self._tokens(model, call), logits=WHOLE_LOGITS if call.name in FINETUNINGS else 3)
        weights = sum(p.numel() for p in mlp_parameters(model, matrices_only=True).values())
        if properties.unit == "model":
            return 2 * own + TRAINED * _trained(model, call, weights) + activations
        if _is_mask(call):
            left = weights * (2 if self.on_gpu else _element(model))  # by default in bf16 on a GPU
            return own + 2 * FLOAT * weights + left + RANKED * FLOAT * min(weights, PART) + activations
        return max(own + self.measuring(model), own + WORKING + _scoring(model, call, weights, self._rows(call)) + activations)

    def _activating(self, model: nn.Module, call: MethodCall) -> int:
        """Bytes of a pass without gradients; methods that only read activations, as Act, make logits of a row's last position alone."""
        tokens = self._tokens(model, call)
        last = logits_narrow(model) and not call.method.properties.iterative
        return _passing(model, tokens, neurons=5, heads=tokens // self.tokens if last else tokens)

    def _relearning(self, model: nn.Module) -> int:
        """Bytes of a model, its edited copy, and a copy of that which relearns."""
        if not self.relearned:
            return 0
        return 3 * bytes_of(model) + TRAINED * size_of(model) + _keeping(model, self.tokens * self.relearned, logits=WHOLE_LOGITS)

    def _measuring_curvature(self, model: nn.Module, call: MethodCall, config: CurvatureConfig) -> int:
        """Bytes beside the model: its moments while they are summed, or the copy with the spectra that stay in memory."""
        sides = [side for p in projections(model, config.matrices, config.layers) for side in p.shape]
        moments, largest = 2 * FLOAT * sum(side**2 for side in sides), 2 * FLOAT * max(sides) ** 2
        passing = min(moments, ROOM) + EIGEN * largest + _keeping(model, self._tokens(model, call))
        return max(passing, bytes_of(model) + min(moments // 2, HELD))

    def _tokens(self, model: nn.Module, call: MethodCall) -> int:
        """Tokens of a method's batch that are on their way at once: no more rows than the method is given."""
        rows = self._rows(call)
        rows *= 2 if hasattr(call.config, "retain_weight") else 1
        most = rows_at_once(model, self.tokens, gradients=call.method.properties.order != "zeroth")
        return self.tokens * (1 if self.on_gpu else min(rows, most or rows))

    def _rows(self, call: MethodCall) -> int:
        """Rows of a method's batch; IG takes one row at a time on a CPU."""
        return min(getattr(call.config, "batch_size", ROWS) or 1, self._given(call))

    def _given(self, call: MethodCall) -> int:
        """Rows that a method takes its batches from."""
        unbounded = sys.maxsize
        retain, counterparts = (unbounded if count is None else count for count in (self.retain, self.counterparts))
        if call.name in FINETUNINGS:
            return counterparts if call.name == "finetune-clean" else retain + counterparts
        if _is_mask(call):
            return self.forget + (retain if hasattr(call.config, "loss_weight") else 0)  # Subnet sees rows to forget alone
        sample = getattr(call.config, "sample", 0)  # NeMo compares with rows to keep
        return max(1, self.forget, min(sample, retain))


def workload_of(checkpoint: Path, files: RowFiles, device: str, *, robustness: bool = False) -> Workload:
    """The workload of a checkpoint's own corpus, or of rows from files, which are as long as the longest of the first LOOKED_AT.

    Args:
        checkpoint: its folder.
        files: rows of one's own, which are counted and not read yet, or the corpus.
        device: `cpu` or a GPU.
        robustness: whether it is measured, also where the recipe does not ask for it.

    Raises:
        UserError: a `tinymem.json` or rows that cannot be read, or rows to be made that cannot fit into memory.
    """
    recipe = recipe_of(checkpoint, read_metadata(checkpoint))
    settings = (recipe.mitigation.robustness if recipe and not files.given else None) or (Robustness() if robustness else None)
    relearned = settings.batch_size if settings else 0
    if recipe is not None and not files.given:
        if is_made_again(checkpoint, recipe, files.corpus):
            refuse_large_corpus(recipe)  # first, since it says what is wrong with rows that are too many or too long
        own = Workload(recipe.data.row_tokens, recipe.evaluation.batch_size, device, relearned=relearned)
        return _of_corpus(own, checkpoint, recipe, files)
    defaults = (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else (0, 1)
    window = (given if given is not None else default for given, default in zip((files.prompt, files.match), defaults, strict=True))
    forget, retain = (count_rows(path, files.raw) if path else 0 for path in (files.forget, files.retain))
    given = forget if files.forget_rows == "all" else min(forget, ROWS)
    kept, tokens = retain // 2, max([sum(window), *(_longest(path, files, checkpoint) for path in (files.forget, files.retain) if path)])
    return Workload(tokens, min(ROWS, forget + retain), device, given, kept, 0, min(relearned, max(forget, kept)))


def _longest(path: Path, files: RowFiles, checkpoint: Path) -> int:
    """Tokens of the longest of a file's first rows, without padding; a batch is as long."""
    rows = read_rows(path, ModelTokens(checkpoint), column=files.column, bos=files.bos, layout=files.raw, most=LOOKED_AT).rows
    return max((len(row.ids) for row in rows), default=0)


def _of_corpus(workload: Workload, checkpoint: Path, recipe: Recipe, files: RowFiles) -> Workload:
    """The workload with the rows of the corpus: as many as its folder says, or a sample of it, or as the recipe plans.

    Held-out planted rows are test rows.
    """
    place = files.corpus or run_of(checkpoint) / "corpus"
    clean, planted, tests = clean_rows(recipe), planted_rows(recipe), test_rows(recipe)
    if files.corpus is None and (checkpoint / SAMPLE).is_file():
        clean, tests, *kinds = rows_by_table(checkpoint / SAMPLE).values()
        planted = sum(kinds)
    elif (place / MANIFEST).is_file():
        counts = read_manifest(place).counts
        clean, tests = counts.pop("clean_rows", clean), sum(count for name, count in counts.items() if name.endswith("test_rows"))
        planted = sum(counts.get(f"{artifact.kind}_rows", 0) for artifact in recipe.artifacts)
    return replace(
        workload,
        rows=min(workload.rows, tests + planted),
        forget=min(ROWS, planted),
        retain=min(clean, MAXIMUM_RETAIN),
        counterparts=planted,
        relearned=min(workload.relearned, max(clean, planted)),
    )


def _is_mask(call: MethodCall) -> bool:
    """Whether a method learns a mask over weights."""
    return call.method.properties.unit == "weight" and call.method.properties.criterion == "optimization"


def _scoring(model: nn.Module, call: MethodCall, weights: int, rows: int) -> int:
    """Bytes of a scorer's scores, and of what they are made of; SOU has the gradients of single rows."""
    if call.method.properties.unit != "weight":
        return 0
    if call.method.properties.order == "second":
        largest = max(p.numel() for p in mlp_parameters(model).values())
        return 8 * getattr(call.config, "block", 1) * (weights + 2 * largest) + 3 * FLOAT * rows * largest  # sums, and two copies of one
    if hasattr(call.config, "per_step"):  # Greedy: weights of its own, their gradients in fp32, which are removed, and a part's products
        return weights * (_element(model) + FLOAT + 1) + FLOAT * min(weights, greedy.PART)
    return 2 * FLOAT * weights


def _passing(model: nn.Module, tokens: int, *, neurons: int, heads: int | None = None) -> int:
    """Bytes that a pass without gradients has at a time: a block's states and neurons (so many times), or logits and their logarithms.

    Logits are of all tokens, or of so many (`heads`); those of a model in 16 bits are there in fp32 too.
    """
    (width, count, _), element = _sizes(model), _element(model)
    a_logit = 2 * FLOAT + (element if element < FLOAT else 0)
    states, of_heads = element * (4 * width + neurons * count), FLOAT * width + a_logit * vocabulary_of(model)
    return max(tokens * states, (tokens if heads is None else heads) * of_heads)


def _keeping(model: nn.Module, tokens: int, *, logits: int = 3) -> int:
    """Bytes that a pass keeps for the one backward, and its logits so many times: they, their logarithms, and gradients."""
    width, neurons, layers = _sizes(model)
    ways_in = len(family_of(model).in_projections)
    kept = layers * (8 * width + 2 * ways_in * neurons) + 8 * width
    return tokens * (_element(model) * kept + FLOAT * logits * vocabulary_of(model))


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
