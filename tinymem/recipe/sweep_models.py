"""Models of a sweep: those of a training recipe, and models of any family by name, with the rows from files that these are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from tinymem.recipe.data import Section


class ModelMatrix(Section):
    """Models of a training recipe, whether they are trained yet or not."""

    TAG: ClassVar[str] = "training recipe"

    recipe: Path = Field(description="a training recipe, relative to the sweep's; the models are its matrix")
    overrides: tuple[str, ...] = Field((), description="overrides as of --set, which fix an axis or change a key")
    epochs: tuple[int, ...] | None = Field(
        None, description="epochs whose checkpoints are taken; null: the recipe's training.keep_epochs, or its last epoch"
    )


class NamedModel(Section):
    """A model of any supported family, which is measured on the rows of `rows`."""

    TAG: ClassVar[str] = "model by name"

    name: str = Field(min_length=1, description="instead of a recipe: ORG/NAME of the Hub, or a folder relative to where the command runs")
    revision: str | None = Field(None, description="branch, tag or commit of the Hub, such as step143000")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="type of the weights in memory; auto: as stored")
    gpus: int = Field(1, ge=1, description="GPUs of one machine that the model is spread over; every worker of the sweep then has so many")
    max_size: str | None = Field(
        None, description="most that is downloaded, such as 12GB; null: what this machine's memory, or its GPU's, holds"
    )


class SweepRows(Section):
    """Rows from files, which models by name are measured on and given."""

    forget: Path = Field(description="file of rows whose targets are to be forgotten, relative to where the command runs")
    retain: Path = Field(description="file of rows to keep; half of them only measure perplexity")
    prompt: int | None = Field(None, ge=1, description="tokens of a prompt; null: the file's, or 50")
    match: int | None = Field(None, ge=1, description="tokens that must follow; null: the file's, or 50")
    forget_rows: Literal["all", "memorized"] = Field(
        "all", description="whether methods are given all rows to forget but the holdout, or of those only the memorized ones"
    )
    column: str | None = Field(None, description="column that holds ids or text; null: the first that is known")
    bos: bool = Field(False, description="whether the model's first token is put before each text")
    strict: bool = Field(False, description="whether a row that is too short is an error, and not left out with a warning")
    raw: str | None = Field(None, description="type and width of raw files of ids (.bin), as in uint16x2049")


def _tag(entry: Any) -> str:
    return NamedModel.TAG if isinstance(entry, NamedModel) or (isinstance(entry, dict) and "name" in entry) else ModelMatrix.TAG


SweepModel = Annotated[Annotated[ModelMatrix, Tag(ModelMatrix.TAG)] | Annotated[NamedModel, Tag(NamedModel.TAG)], Discriminator(_tag)]


def short_model(entry: Any) -> Any:
    """An entry of `models` in its long form; a path is a training recipe.

    Raises:
        ValueError: a mapping that says neither or both of `recipe` and `name`.
    """
    if isinstance(entry, dict) and ("recipe" in entry) == ("name" in entry):
        given = "both" if "name" in entry else ", ".join(map(str, entry)) or "nothing"
        raise ValueError(f"expected each of models with `recipe` (to train) or `name` (of the Hub, or a folder), got {given}")
    return {"recipe": entry} if isinstance(entry, str) else entry


def check_models(models: tuple[SweepModel, ...], rows: SweepRows | None, others: list[str]) -> None:
    """Refuse models by name without rows, rows without such a model, and keys that rows from files have no use for.

    Args:
        models: of the sweep.
        rows: of the sweep.
        others: those keys that are given though they only say something of models with a corpus.

    Raises:
        ValueError: one of these.
    """
    named = [model for model in models if isinstance(model, NamedModel)]
    if named and rows is None:
        raise ValueError(f"expected `rows: {{forget: FILE, retain: FILE}}` for {named[0].name}, got none; models by name come without rows")
    if rows is not None and not named:
        raise ValueError("expected a model by name, as in `models: [{name: ORG/NAME}]`, for `rows`, got none; others have their own")
    if named and others:
        raise ValueError(f"expected no `{others[0]}` with models by name, whose rows are those of `rows`, got one; leave it out")
