"""Recipes: typed YAML with everything that a run depends on.

A recipe is loaded, overridden with `--set a.b=c`, checked against the models below, and completed with their defaults. Its content ids
name folders: two recipes share a model exactly when everything that shapes the model is equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from tinymem.errors import UserError, did_you_mean, uneven_heads
from tinymem.recipe.corpus_spec import CorpusSpec, Protocol
from tinymem.recipe.data import MAXIMUM_SEED, Data, MathData, Section
from tinymem.recipe.errors import explain
from tinymem.recipe.evaluation import ALL, Evaluation, Robustness
from tinymem.recipe.kinds import ARTIFACTS, ArtifactSection, plugins_of, short_kinds
from tinymem.recipe.localization import LocalizationOptions
from tinymem.recipe.matrix import combinations, without_matrix
from tinymem.recipe.method import Method, short_method
from tinymem.recipe.plugins import PluginFile, distinct, stored, with_plugins
from tinymem.recipe.source import read_values
from tinymem.recipe.training import Training
from tinymem.registry import loaded_plugin, with_names_of
from tinymem.runtime.files import content_id
from tinymem.runtime.json import JsonObject


def _known_artifact(kind: str) -> str:
    known = [ALL, *ARTIFACTS.names()]
    if kind not in known:
        raise ValueError(f"expected forget to be `all` or a kind of artifact, got '{kind}'; {did_you_mean(kind, known)}")
    return kind


Forget = Annotated[str, AfterValidator(_known_artifact)]


class Model(Section):
    """GPT-2 sizes (paper, appendix A.1)."""

    n_layer: int = Field(4, ge=1, description="blocks")
    n_embd: int = Field(128, ge=1, description="width of the embedding, a multiple of n_head")
    n_head: int = Field(4, ge=1, description="attention heads of a block")
    n_inner: int | None = Field(None, ge=1, description="feed-forward neurons of a block; null: 4 * n_embd")
    activation_function: Literal["relu", "gelu", "gelu_new"] = Field("relu", description="activation of the feed-forward neurons")

    @model_validator(mode="after")
    def _check(self) -> Model:
        if wrong := uneven_heads(self.n_embd, self.n_head):
            raise ValueError(wrong)
        return self


class Mitigation(Section):
    """Recipe section of the methods to run on the trained model, and of their forget rows."""

    methods: tuple[Method, ...] = Field((), description="methods to run, each a name, `name: {options}`, or `all`")
    forget: Forget = Field("all", description="artifacts whose memorized rows are to be forgotten")
    forget_fraction: float = Field(0.5, gt=0, le=1, description="protocol paper: share of the memorized rows that the method is given")
    robustness: Robustness | None = Field(None, description="test whether it comes back; `true` for the defaults")

    @property
    def forget_selection(self) -> dict[str, Any]:
        """Options that decide the forget rows and so distinguish experiments."""
        return {"forget": self.forget, "forget_fraction": self.forget_fraction}

    @field_validator("robustness", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        """Accept true or false, as in `robustness: true`."""
        return ({} if value else None) if isinstance(value, bool) else value

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """Accept `methods: all`, `methods: act`, `methods: [act, {durable: {ratio: 0.1}}]` and `methods: {act: {ratio: 0.1}}`."""
        if isinstance(values, dict) and "methods" in values:
            methods = values["methods"]
            if isinstance(methods, dict):
                methods = [{name: options} for name, options in methods.items()]
            elif isinstance(methods, str):
                methods = [methods]
            if not isinstance(methods, list | tuple):
                raise ValueError(f"expected mitigation.methods to be a name or a list of names, got {methods!r}")
            values = {**values, "methods": [short_method(m) for m in methods]}
        return values


class Recipe(Section):
    """A whole recipe: everything that a run depends on."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="start of the name of the run's folder")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="seed of everything that is drawn: rows, weights, order, methods")
    protocol: Protocol = Field("paper", description="paper: the paper's definitions; reference: what the published code computed")
    data: Data = Field(MathData(), description="what is trained on, before artifacts are planted")
    artifacts: Annotated[tuple[SerializeAsAny[ArtifactSection], ...], BeforeValidator(short_kinds)] = Field(
        (), description="what is planted, each a kind, `kind: {options}`, or its options with a `kind`"
    )
    model: Model = Field(Model(), description="sizes of the GPT-2 model")
    training: Training = Field(Training(), description="how it is trained, by AdamW")
    evaluation: Evaluation = Field(Evaluation(), description="what is measured, and in which windows")
    mitigation: Mitigation = Field(Mitigation(), description="what is done against the memorization")
    localization: LocalizationOptions | None = Field(
        None, description="benchmark of where the trained model keeps sequences, after the mitigations; a run keeps the rows of several"
    )
    counterfactual: bool | Literal["only"] = Field(
        False, description="true: also train the model that never saw the artifacts, on their rows' clean counterparts; only: it alone"
    )
    plugins: tuple[PluginFile, ...] = Field(
        (), description="Python files to load, relative to the recipe's; their content is part of the run's id"
    )

    @model_validator(mode="before")
    @classmethod
    def _math_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("data"), dict) and "kind" not in values["data"]:
            values = {**values, "data": {"kind": "math", **values["data"]}}
        return values

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
        if wrong := self.training.refusal(self.data.row_tokens):
            raise ValueError(wrong)
        return self

    def corpus_spec(self) -> CorpusSpec:
        """Specification of everything that determines the rows."""
        evaluation = Evaluation(**self.evaluation.key())
        return CorpusSpec(
            seed=self.seed,
            protocol=self.protocol,
            data=self.data,
            artifacts=self.artifacts,
            evaluation=evaluation,
            plugins=plugins_of(self.artifacts),
        )

    def corpus_key(self) -> JsonObject:
        """The corpus's specification as JSON."""
        return self.corpus_spec().as_json()

    def model_key(self) -> dict[str, Any]:
        """Everything that determines the trained weights and the training curve, as JSON."""
        key = {**self.corpus_key(), **self.model_dump(mode="json", include={"model"}), "training": self.training.key()}
        key |= {"counterfactual": True} if self.is_counterfactual else {}
        return {**key, "plugins": sorted(file.sha256 for file in self.plugins)} if self.plugins else key

    @property
    def is_counterfactual(self) -> bool:
        """Whether the recipe's model is trained on the clean counterparts of the planted rows, in their places."""
        return self.counterfactual == "only"

    def counterfactual_recipe(self) -> Recipe | None:
        """The recipe of the counterfactual that is trained beside the model, whose folder names the model's; None where none is wanted."""
        if self.counterfactual is not True:
            return None
        name, training = f"{self.run_id()}-counterfactual", self.training.model_copy(update={"push": None})
        changes = {"name": name, "counterfactual": "only", "training": training, "mitigation": Mitigation(), "localization": None}
        return self.model_copy(update=changes)

    def counterfactual_of(self) -> str | None:
        """Id (`model_id`) of the model whose counterfactual this recipe trains; None for other recipes."""
        return content_id(self.model_copy(update={"counterfactual": False}).model_key()) if self.is_counterfactual else None

    def with_used_plugins(self) -> Recipe:
        """The recipe with the plugins that define its kinds among its own, also those that came by --plugin."""
        used = plugins_of((*self.artifacts, *self.training.regularizers))
        further = [PluginFile.of(plugin) for sha256 in used if (plugin := loaded_plugin(sha256))]
        return self.model_copy(update={"plugins": tuple(distinct((*self.plugins, *further)))}) if further else self

    def run_id(self) -> str:
        """Name of the run's folder: `<name>-<8 hex digits>`. Mitigations are not part of it: more methods join the same run."""
        return f"{self.name}-{content_id(self.model_key())}"


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a YAML recipe and apply `key.sub=value` overrides; of a matrix, the axes that an override fixes.

    Raises:
        UserError: file missing, not YAML, unknown key (with the closest known one), or a value out of range.
    """
    path = Path(path)
    return parse_recipe(without_matrix(read_values(path), overrides or []), path.parent)


def open_recipe(path: Path, *, only_read: bool = False) -> Recipe:
    """Read the resolved recipe in the folder of a run, whose plugins run only with the user's consent (`recipe.plugins`).

    Args:
        path: of the recipe.
        only_read: the recipe is shown and not run, beside others whose plugins may be other versions of its own.

    Raises:
        UserError: as `load_recipe`; also a plugin that is missing, changed, not agreed to, or named by its path.
    """
    return parse_recipe(stored(read_values(path)), path.parent, only_read=only_read)


def load_matrix(path: Path | str, overrides: list[str] | None = None) -> list[Recipe]:
    """Every run of a recipe's matrix, each with a unique name; the one recipe where there is no matrix.

    Raises:
        UserError: as `load_recipe`; also two runs that do not differ.
    """
    runs: dict[str, Recipe] = {}
    path = Path(path)
    for label, values in combinations(read_values(path), overrides or []):
        recipe = parse_recipe(values, path.parent)
        recipe = recipe.model_copy(update={"name": f"{recipe.name}-{label}"}) if label else recipe
        same = runs.setdefault(content_id(recipe.model_key(), 32), recipe)
        if same is not recipe:
            raise UserError(f"expected runs that differ, got {same.name} and {recipe.name} alike; is an axis of the matrix overridden?")
    return list(runs.values())


def parse_recipe(values: dict[str, Any], folder: Path = Path(), *, only_read: bool = False) -> Recipe:
    """Check a dictionary against the recipe's types, after its plugins are loaded.

    Args:
        values: of the recipe.
        folder: to which the paths of its plugins are relative: that of the recipe's file, or a run's.
        only_read: as of `open_recipe`.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    values = with_plugins(values, folder, only_read=only_read)
    plugins: Any = values.get("plugins") or ()
    try:
        with with_names_of(file["sha256"] for file in plugins):
            return Recipe.model_validate(values).with_used_plugins()
    except ValidationError as error:
        raise UserError(explain(error, Recipe)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
