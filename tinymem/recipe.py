"""Recipes: typed YAML that says everything a run depends on.

A recipe is loaded, overridden with `--set a.b=c`, checked against the models below, and completed with their defaults. Its content ids
name folders: two recipes share a model exactly when everything that shapes the model is equal.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinymem.errors import UserError, did_you_mean
from tinymem.files import content_id

# Raised whenever a change of code changes what a recipe yields, so that stored results of older code are not reused.
CODE_EPOCH = 1

Protocol = Literal["paper", "reference"]


class Section(BaseModel):
    """A part of a recipe: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MathData(Section):
    """Synthetic arithmetic sequences (paper, section 2.3 and appendix A.1.1)."""

    kind: Literal["math"] = "math"
    family: Literal["additive", "multiplicative"] = Field("additive", description="x -> x + k, or x -> k * x mod `modulus`")
    primary: int = Field(7, ge=1, description="task k that the artifacts are planted in")
    auxiliary: tuple[int, ...] = Field((2, 3, 4, 5), description="further tasks k")
    size: int = Field(3000, ge=2, description="sequences per auxiliary task, before the test rows are taken off")
    primary_size: int = Field(20_000, ge=2, description="sequences of the primary task, before the test rows are taken off")
    test_rows: int = Field(1000, ge=1, description="clean test rows per task")
    numbers: int = Field(20, ge=2, description="numbers per sequence")
    modulus: int = Field(20_134, ge=2, description="of the multiplicative family")
    row_tokens: int = Field(150, ge=8, description="tokens per row, padding included")

    @property
    def tasks(self) -> tuple[int, ...]:
        """The primary task, then the auxiliary ones."""
        return (self.primary, *self.auxiliary)

    @model_validator(mode="after")
    def _check(self) -> MathData:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"expected different tasks, got {self.tasks}; drop the repeated one from data.auxiliary")
        for name, size in (("data.size", self.size), ("data.primary_size", self.primary_size)):
            if size <= self.test_rows:
                raise ValueError(f"expected {name} above data.test_rows = {self.test_rows}, got {size}; lower test_rows")
        return self


class NoiseArtifact(Section):
    """Each number moves by +-1 with `probability` (Definition 2.2)."""

    kind: Literal["noise"] = "noise"
    rows: int = Field(1000, ge=1, description="rows of the primary task that are replaced by a noised version")
    probability: float = Field(0.1, gt=0, le=1, description="that a number moves")
    copies: int = Field(1, ge=1, description="times that each noised row stands in an epoch")


class BackdoorArtifact(Section):
    """Everything after a trigger becomes one token (Definition 2.3)."""

    kind: Literal["backdoor"] = "backdoor"
    trigger: str | None = Field(None, min_length=1, description="default: the decimal digits of 100 + seed")
    within: int = Field(50, ge=1, description="protocol paper: the trigger must end in the first so many tokens")
    payload: str = Field("2", min_length=1, max_length=1, description="the token that follows to the end of the row")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of the triggered rows that is kept from training")
    copies: int = Field(1, ge=1, description="times that each backdoored row stands in an epoch")


Artifact = Annotated[Union[NoiseArtifact, BackdoorArtifact], Field(discriminator="kind")]  # noqa: UP007 (pydantic reads it)


class Model(Section):
    """GPT-2 sizes (paper, appendix A.1)."""

    n_layer: int = Field(4, ge=1)
    n_embd: int = Field(128, ge=1)
    n_head: int = Field(4, ge=1)
    n_inner: int | None = Field(None, ge=1, description="feed-forward neurons per layer; default 4 * n_embd")
    activation_function: Literal["relu", "gelu", "gelu_new"] = "relu"


class Training(Section):
    """AdamW with the paper's settings (spec: constant rate, no warm-up, weight decay on everything)."""

    epochs: int = Field(500, ge=0)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.1, ge=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: linear warm-up, then to 5 % of the rate")
    warmup_steps: int = Field(0, ge=0)
    evaluate_every: int = Field(50, ge=1, description="epochs between two measurements")
    checkpoint_every: int = Field(50, ge=1, description="epochs between two resume points")


class Evaluation(Section):
    """Windows of the memorisation test: `prompt` tokens given, the next `match` compared (paper, A.1.1)."""

    prompt: int = Field(50, ge=1)
    match: int = Field(50, ge=1)
    batch_size: int = Field(512, ge=1)


class Method(Section):
    """One mitigation: a registered name and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Mitigation(Section):
    """Which methods to run on the trained model."""

    methods: tuple[Method, ...] = ()
    forget: Literal["all", "noise", "backdoor"] = Field("all", description="artifacts whose memorised rows are to be forgotten")
    forget_fraction: float = Field(0.5, gt=0, le=1, description="protocol paper: share of the memorised rows that the method sees")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """Accept `methods: all`, `methods: act` and `methods: [act, {durable: {ratio: 0.1}}]`."""
        if isinstance(values, dict) and "methods" in values:
            methods = values["methods"]
            values = {**values, "methods": [_method(m) for m in ([methods] if isinstance(methods, str) else methods)]}
        return values


def _method(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        name, options = next(iter(value.items()))
        return {"name": name, "options": options or {}}
    return value


class Recipe(Section):
    """Everything that a run depends on."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(0, ge=0)
    protocol: Protocol = "paper"
    data: MathData = MathData()
    artifacts: tuple[Artifact, ...] = ()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    mitigation: Mitigation = Mitigation()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        kinds = [a.kind for a in self.artifacts]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"expected each kind of artifact at most once, got {kinds}; join the two entries")
        if self.evaluation.prompt + self.evaluation.match > self.data.row_tokens:
            raise ValueError(
                f"expected evaluation.prompt + evaluation.match <= data.row_tokens = {self.data.row_tokens}, "
                f"got {self.evaluation.prompt} + {self.evaluation.match}; shorten the window"
            )
        return self

    def corpus_key(self) -> dict[str, Any]:
        """What shapes the rows."""
        return {
            "epoch": CODE_EPOCH,
            **self.model_dump(mode="json", include={"seed", "protocol", "data", "artifacts", "evaluation"}),
        }

    def model_key(self) -> dict[str, Any]:
        """What shapes the trained weights and the metrics recorded beside them."""
        return {**self.corpus_key(), **self.model_dump(mode="json", include={"model", "training"})}

    def run_id(self) -> str:
        """Name of the run's folder: `<name>-<8 hex digits>`. Mitigations are not part of it: more methods join the same run."""
        return f"{self.name}-{content_id(self.model_key())}"


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a YAML recipe and apply `key.sub=value` overrides.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected a recipe at {path}, found none; try one of recipes/*.yaml") from None
    except IsADirectoryError:
        raise UserError(f"expected a recipe file, got the folder {path}; name a .yaml file in it") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"expected YAML in {path}: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"expected `key: value` lines in {path}, got {type(values).__name__}")
    for override in overrides or []:
        _set(values, override)
    return parse_recipe(values)


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Check a dictionary against the recipe's types.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"expected --set key.sub=value, got '{override}'")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"expected a YAML value after '=', got '{override}'") from None
    node: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, key)
            continue
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: '{part}' holds a value, not a section")
    if isinstance(node, list):
        index = node.index(_item(node, last, key))
        node[index] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, key: str) -> Any:
    """An entry of a list, by position or by its `kind` or `name`: artifacts.noise.rows, artifacts.0.rows."""
    for index, item in enumerate(items):
        if part == str(index) or (isinstance(item, dict) and part in (item.get("kind"), item.get("name"))):
            return item
    raise UserError(f"--set {key}: no entry '{part}' in a list of {len(items)}")


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place) or "recipe"
    if first["type"] == "extra_forbidden":
        section = _section_at(place[:-1])
        return f"unknown key '{name}'; {did_you_mean(place[-1], section.model_fields if section else ())}"
    if first["type"] == "union_tag_invalid":
        return f"expected {name}.kind to be one of {first['ctx']['expected_tags']}, got '{first['ctx']['tag']}'"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"recipe key '{name}': {message[0].lower()}{message[1:]}, got {first['input']!r}"


def _section_at(place: list[str]) -> type[Section] | None:
    """The section that a path of keys leads to."""
    section: Any = Recipe
    for part in place:
        if isinstance(section, type) and issubclass(section, Section) and part in section.model_fields:
            section = section.model_fields[part].annotation
        candidates = [s for s in _sections(section) if part in (*_kind(s), *(() if not part.isdigit() else (part,)))] or _sections(section)
        section = candidates[0] if candidates else section
    return section if isinstance(section, type) and issubclass(section, Section) else None


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (Annotated, tuple, list, Union, types.UnionType):
        return [s for argument in typing.get_args(annotation) for s in _sections(argument)]
    return []


def _kind(section: type[Section]) -> tuple[str, ...]:
    field = section.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()
