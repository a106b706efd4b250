"""Cost of a run in forward passes over one row: a rough table, to estimate before anything is measured, and to scale measured runs.

A training pass counts as three (forward, and backward twice that). Where a cost depends on the model beyond its arithmetic, as with Zero's
pass per neuron, the table includes it; where it depends on the data (dead ReLU neurons), it is a guess from the 4-layer math models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinymem.mitigation import grids
from tinymem.mitigation.subject import MAXIMUM_RETAIN
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import TRAIN_PASSES, clean_rows, inner_width, planned_parameters, planted_rows, row_flops, test_rows
from tinymem.runtime.json import JsonObject

ALIVE = 0.3
"""Share of a ReLU model's neurons that are not 0 throughout a row: Zero skips the others."""


@dataclass(frozen=True)
class Size:
    """Sizes of model and data that the cost of a run depends on."""

    n_layer: int
    neurons: int
    mlp_weights: int
    tokens: int
    match: int
    forget: int
    retain: int
    clean: int
    """Training rows without an artifact, of which the retain rows may be a sample."""
    scored: int
    row_flops: float
    """Floating-point operations of one row's forward pass, see `recipe.sizes.row_flops`."""


def size_of(recipe: Recipe | Size, forget: int | None = None) -> Size:
    """Sizes of a recipe's model and data; half of the planted rows are taken to be memorized where `forget` is not known."""
    if isinstance(recipe, Size):
        return recipe
    model, inner, tokens = recipe.model, inner_width(recipe), recipe.data.row_tokens
    clean, planted = clean_rows(recipe), planted_rows(recipe)
    return Size(
        n_layer=model.n_layer,
        neurons=model.n_layer * inner,
        mlp_weights=model.n_layer * (2 * model.n_embd * inner + inner + model.n_embd),
        tokens=tokens,
        match=recipe.evaluation.match,
        forget=forget if forget is not None else max(1, round(planted * 0.5 * recipe.mitigation.forget_fraction)),
        retain=min(clean, MAXIMUM_RETAIN),
        clean=clean,
        scored=test_rows(recipe) + planted,
        row_flops=row_flops(planned_parameters(recipe), tokens),
    )


def passes(method: str, options: JsonObject, size: Size) -> float:
    """Forward passes over one row that a run takes; of a method that is not in the table, those of an epoch on the forget rows."""
    return max(1.0, TABLE.get(method, _forget_epochs)(options, size))


def measurement_passes(size: Size) -> float:
    """Forward passes of one measurement: artifact rows and clean test rows."""
    return float(size.scored)


def _number(options: JsonObject, name: str, default: float) -> float:
    """A numeric option; the default where it is missing or 0."""
    value = options.get(name)
    return float(value) if isinstance(value, int | float) and value else default


def _forget_epochs(options: JsonObject, size: Size) -> float:
    return TRAIN_PASSES * size.forget * _number(options, "epochs", 1)


def _both_epochs(options: JsonObject, size: Size) -> float:
    return TRAIN_PASSES * (size.forget + size.retain) * _number(options, "epochs", 1)


def _clean_epochs(options: JsonObject, size: Size) -> float:
    return TRAIN_PASSES * size.clean * _number(options, "epochs", 1)


def _baseline(options: JsonObject, size: Size) -> float:
    return 2 * _forget_epochs(options, size)  # a retain row for each forget row


def _greedy(options: JsonObject, size: Size) -> float:
    weights = _number(options, "ratio", 0.0) * size.mlp_weights
    a_step = max(1, size.mlp_weights // grids.WEIGHTS_A_STEP) if options.get("per_step") == "auto" else _number(options, "per_step", 1)
    return TRAIN_PASSES * _number(options, "batch_size", 64) * weights / a_step


def _curvature(options: JsonObject, size: Size) -> float:
    judged = grids.BUDGET_RHOS * _number(options, "judged", 1000) if options.get("budget") else 0.0
    return TRAIN_PASSES * min(_number(options, "sample", 10_000), size.clean) + judged


TABLE: dict[str, Callable[[JsonObject, Size], float]] = {
    "act": lambda _, s: s.forget,
    "zero": lambda _, s: s.forget * ALIVE * s.neurons / 2,  # half of the layers are above a neuron, on average
    "ig": lambda o, s: TRAIN_PASSES * s.forget * s.n_layer / 2 * s.match * _number(o, "steps", 20) / s.tokens,  # one token a pass
    "slim": _forget_epochs,
    "hard-concrete": _forget_epochs,
    "nemo": lambda o, s: s.forget + min(_number(o, "sample", 2000), s.retain) + 200 * min(s.forget, 64),
    "random-neurons": lambda _o, _s: 1.0,
    "random-weights": lambda _o, _s: 1.0,
    "greedy": _greedy,
    "durable": lambda _, s: TRAIN_PASSES * s.forget,
    "durable-agg": lambda _, s: TRAIN_PASSES * s.forget,
    "sou": lambda _, s: 20 * TRAIN_PASSES * min(s.forget, 512),  # the blocks of the Fisher matrix are most of it
    "subnet": _forget_epochs,
    "balanced-subnet": _both_epochs,
    "finetune-clean": _forget_epochs,
    "finetune-extra": _clean_epochs,
    "finetune-both": _clean_epochs,
    "gradient-ascent": _forget_epochs,
    "task-vector": _forget_epochs,
    **dict.fromkeys(("gradient-difference", "npo", "simnpo", "rmu", "dpo-clean"), _baseline),
    **dict.fromkeys(("kfac", "svd", "random-basis", "lowest-kept"), _curvature),
}
