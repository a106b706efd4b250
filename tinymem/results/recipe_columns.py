"""What a model was, as flat columns of its rows: filled in from the run's recipe where an older row does not tell."""

from __future__ import annotations

from typing import Any

from tinymem.runtime.files import content_id

Row = dict[str, Any]
NOTHING: dict[str, Any] = {}


def facts_of(recipe: dict[str, Any]) -> Row:
    """Columns that a recipe decides: data, data_size, n_layer, epoch, regularizer, seed, protocol, family."""
    data, model, training = (recipe.get(key) or NOTHING for key in ("data", "model", "training"))
    math = data.get("kind", "math") == "math"
    return {
        "data": data.get("family") if math else "wiki",
        "data_size": data.get("size") if math else None,
        "n_layer": model.get("n_layer"),
        "epoch": training.get("epochs"),
        "regularizer": " + ".join(map(_regularizer, training.get("regularizers") or [])) or None,
        "seed": recipe.get("seed"),
        "protocol": recipe.get("protocol"),
        "family": family_of(recipe),
    }


def with_facts(row: Row, facts: Row) -> Row:
    """The row, with the facts that it does not hold itself."""
    return {**row, **{key: value for key, value in facts.items() if row.get(key) is None}}


def family_of(recipe: dict[str, Any]) -> str:
    """Id shared by models that differ only in their seed (and what hangs on it), regularizers and epochs: those that one table compares."""
    kept = {key: recipe.get(key) for key in ("protocol", "data", "model")}
    artifacts = [{key: value for key, value in a.items() if key != "trigger"} for a in recipe.get("artifacts") or []]
    training = _only(recipe.get("training"), ("batch_size", "learning_rate", "weight_decay"))
    return content_id(
        {**kept, "artifacts": artifacts, "training": training, "window": _only(recipe.get("evaluation"), ("prompt", "match"))}
    )


def _regularizer(section: Row) -> str:
    """`spectral-norm(strength=0.1)`."""
    given = ", ".join(f"{key}={value}" for key, value in section.items() if key != "kind")
    return section["kind"] + (f"({given})" if given else "")


def _only(section: Any, keys: tuple[str, ...]) -> Row:
    return {key: section[key] for key in keys if key in (section or NOTHING)}
