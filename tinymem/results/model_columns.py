"""The columns of a model that follow from its recipe, for rows of runs and sweeps and for reports; `results.row.Identity` explains each."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tinymem.registry import plugin_of
from tinymem.results.columns import WINDOW_COLUMNS
from tinymem.results.row import Identity, MeasuredRow
from tinymem.runtime.files import content_id

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

TRAINED_ALIKE = ("batch_size", "learning_rate", "betas", "weight_decay", "schedule", "warmup_steps", "precision")
"""Options of training that models of one table share."""
Row = TypeVar("Row", bound=MeasuredRow)


def model_columns(recipe: Recipe | None, *, n_parameters: int | None, epoch: int | None, name: str | None = None) -> Identity:
    """The model columns of a recipe's model after `epoch` epochs; of a model without a recipe, its name and size."""
    if recipe is None:
        return Identity(model_name=name, n_parameters=n_parameters)
    data = recipe.data
    kind, size = (data.family, data.size) if data.kind == "math" else ("wiki", None)
    regularizer = " + ".join(map(_regularizer, recipe.training.regularizers)) or None
    parts = [kind, *([str(size)] if size else []), *(a.kind for a in recipe.artifacts), f"{recipe.model.n_layer}L"]
    parts += ["counterfactual"] if recipe.is_counterfactual else []
    return Identity(
        model_name="-".join(parts) + (f"+{regularizer}" if regularizer else ""),
        data=kind,
        data_size=size,
        n_layer=recipe.model.n_layer,
        n_parameters=n_parameters,
        epoch=epoch,
        regularizer=regularizer,
        prompt=recipe.evaluation.prompt,
        match=recipe.evaluation.match,
    )


def recipe_columns(recipe: Recipe, *, epoch: int | None = None, training_seconds: float | None = None) -> Identity:
    """All columns that follow from a run's recipe, for rows that lack them; `epoch` defaults to the last one."""
    model = model_columns(recipe, n_parameters=None, epoch=recipe.training.epochs if epoch is None else epoch)
    family = family_of(recipe)
    return replace(model, seed=recipe.seed, protocol=recipe.protocol, family=family, training_seconds=training_seconds)


def filled(row: Row, columns: Identity) -> Row:
    """The row, with its missing columns taken from `columns`; rows from files keep the windows of their own."""
    kept = WINDOW_COLUMNS if row.match is not None or row.rows_id else ()
    missing = {f.name: getattr(columns, f.name) for f in fields(Identity) if getattr(row, f.name) is None and f.name not in kept}
    return replace(row, **missing)


def family_of(recipe: Recipe) -> str:
    """Id shared by models that differ only in seed, trigger, regularizers and epochs: those that one table compares."""
    values = recipe.model_dump(mode="json")
    return content_id(
        {
            **{key: values[key] for key in ("protocol", "data", "model")},
            "artifacts": [{key: value for key, value in a.items() if key != "trigger"} for a in values["artifacts"]],
            "training": {key: values["training"][key] for key in TRAINED_ALIKE},
            "counterfactual": recipe.is_counterfactual,
            "window": {key: values["evaluation"][key] for key in ("prompt", "match")},
        }
    )


def _regularizer(section: Any) -> str:
    """`spectral-norm(strength=0.1)`: options at their defaults are left out; of a plugin its hash, as versions of it train otherwise."""
    given = {k: v for k, v in section.model_dump(mode="json").items() if k != "kind" and v != _default(section, k)}
    if plugin := plugin_of(type(section)):
        given["plugin"] = plugin.sha256[:8]
    return section.kind + (f"({', '.join(f'{k}={v}' for k, v in given.items())})" if given else "")


def _default(section: Any, key: str) -> Any:
    default = type(section).model_fields[key].default
    return list(default) if isinstance(default, tuple) else default
