"""Methods of mitigation: the data that a method gets, its registration, its options, and its application to a model.

Most methods only differ in how they score neurons or weights; selection and ablation are shared (`ablation`). Methods that edit as they
go register as the second kind. A method is one file: a frozen config, one function, and its registration.

    @scorer("my-method", config=MyConfig, properties=Properties(unit="weight", order="first"))
    def my_method(model, data, config) -> Scores: ...

    @editor("my-edit", config=MyConfig, properties=Properties(unit="weight", order="first"))
    def my_edit(model, data, config) -> nn.Module: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError, did_you_mean
from tinymem.mitigation.ablation import AblationConfig, Refused, Scores, ablate, group_counts, select
from tinymem.mitigation.config import MethodConfig, missed_option
from tinymem.mitigation.methods import ENTRY_POINTS, PACKAGES
from tinymem.models.adapters import neuron_layers
from tinymem.models.copied import copied
from tinymem.registry import Registry, origin_of
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.progress import Bar, SilentBar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Unit = Literal["neuron", "weight", "model"]
State = Scores | Callable[[], nn.Module]
"""State of a method after an epoch: a scorer's scores, or the function that makes an editor's edit."""
A = TypeVar("A", bound=AblationConfig)
C = TypeVar("C", bound=MethodConfig)
P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Properties:
    """A method's properties, the columns of the paper's Table 5 (for the paper's methods, its values).

    Attributes:
        unit: the unit that it changes: chosen neurons, chosen weights, or the whole model.
        order: the highest derivative of the loss that it uses.
        iterative: if true, it chooses parts a few at a time, weighing each choice anew.
        layer_wise: if true, parts compete within each layer, not within the whole model. The option `scope` decides; its default differs
            for SOU (whole model, as Algorithm 2) and the neuron methods (layer, as their papers).
        criterion: how parts are chosen: by a threshold on scores, or by optimization.
        dual_objective: if true, it weighs the retain rows against the forget rows.
    """

    unit: Unit
    order: Literal["zeroth", "first", "second"]
    iterative: bool = False
    layer_wise: bool = False
    criterion: Literal["threshold", "optimization"] = "threshold"
    dual_objective: bool = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                raise UserError(f"expected {name} of Properties to be {' or '.join(get_args(kind))}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Performance:
    """What a model should keep, for a method that measures it itself: the metric, and the tokens [N, T] of rows that it is taken over.

    `task` gives the task [N] of clean training rows, of which the test rows hold as many of each; None: there is one task.
    """

    metric: Literal["accuracy", "perplexity"] = "perplexity"
    scored: Callable[[Rows], Tensor] = Rows.own
    task: Callable[[Rows], Tensor] | None = None


@dataclass(frozen=True)
class MitigationData:
    """The data given to a method, on the model's device: rows to forget, rows to retain (never an artifact's), a seed, a progress bar."""

    forget: Rows
    retain: Rows
    clean_counterparts: Rows | None = None
    """Clean versions of the artifact rows that the method may know (fine-tuning on clean data)."""
    twins: Rows | None = None
    """The clean counterpart of each forget row, and the row itself where its artifact has none; None: counterparts are not known."""
    training: Callable[[int, int], Rows] | None = None
    """(number, seed) -> at most so many training rows, artifacts and copies among them, on the CPU; None where they are not known."""
    performance: Performance = field(default_factory=Performance)
    clean: Tensor | None = None
    """All clean training rows [N, T] as `compact_rows` stores them, where `retain` is a sample of them; None: `retain` is all."""
    seed: int = 0
    optimizer_state: dict[str, Tensor] = field(default_factory=dict)
    """AdamW's state at the end of training, for methods that continue with it; empty where none is stored."""
    bar: Bar = field(default_factory=SilentBar)
    found: JsonObject = field(default_factory=dict)
    """What a method chose or measured on its way, by name, for the result row: each run is given a new one to fill."""

    def with_forget(self, index: Tensor) -> MitigationData:
        """This data with some of the forget rows, and their clean counterparts."""
        return replace(self, forget=self.forget.take(index), twins=self.twins and self.twins.take(index))

    def generator(self) -> torch.Generator:
        """A fresh CPU generator with the seed, so that every device gets the same draws."""
        return torch.Generator().manual_seed(self.seed)


Edit = Callable[Concatenate[nn.Module, MitigationData, C, P], nn.Module]
"""An editor's function: (model, data, config) and more arguments, if it has any -> the edited copy."""


@dataclass(frozen=True)
class Unlearner:
    """A registered method; see `scorer` and `editor` for its parts."""

    name: str
    kind: Literal["score", "edit"]
    function: Callable[..., Any]
    config: type[MethodConfig]
    properties: Properties
    by_epoch: Callable[..., Iterator[tuple[int, State]]] | None = None
    steps: Callable[..., int] | None = None
    by_row: Callable[..., Tensor] | None = None
    ranked: Callable[..., Scores] | None = None
    needs_forget: bool = True
    by_name: bool = False

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return origin_of(self.function)

    @property
    def documentation(self) -> str:
        """The docstring of the method's module: idea, formula, source, cost, options."""
        return inspect.cleandoc(inspect.getmodule(self.function).__doc__ or self.function.__doc__ or "")

    @cached_property
    def adapter(self) -> TypeAdapter[MethodConfig]:
        """Validator of the options, made once, since making it takes longer than many a method.

        Raises:
            UserError: an option's type is none that a recipe or the command line could give.
        """
        from pydantic import PydanticUserError, TypeAdapter

        try:
            return TypeAdapter(self.config)
        except PydanticUserError as error:
            why = str(error).partition(". ")[0]
            raise UserError(f"expected options of {self.name} that a recipe can hold (numbers, text, Literal, Path), got: {why}") from error


UNLEARNERS: Registry[Unlearner] = Registry(
    "method",
    packages=PACKAGES,
    entry_points=ENTRY_POINTS,
)


def scorer(
    name: str,
    *,
    config: type[A],
    properties: Properties,
    by_epoch: Callable[[nn.Module, MitigationData, A], Iterator[tuple[int, Scores]]] | None = None,
    steps: Callable[[nn.Module, A], int] | None = None,
    by_row: Callable[[nn.Module, MitigationData, A], Tensor] | None = None,
) -> Callable[[Callable[[nn.Module, MitigationData, A], Scores]], Callable[[nn.Module, MitigationData, A], Scores]]:
    """Register a function `(model, data, config) -> Scores`; selection and ablation follow from the config.

    Args:
        name: how recipes and the command line call the method.
        config: its options: a frozen dataclass that derives from `AblationConfig`.
        properties: its column of the table of methods.
        by_epoch: yields (epoch, scores) after each epoch of one run, for a method whose runs of fewer epochs are the beginning of longer
            ones; a sweep then takes all numbers of epochs from the longest run. The config has `epochs`.
        steps: number of steps that the progress bar counts, for a method that scores up to its ratio, so that runs at smaller ratios are
            the beginning of those at larger ones. Without it, scores are taken not to depend on the ratio.
        by_row: scores [S, L, F] of each forget row by itself (S rows, L layers, F neurons of a layer), for one edit per row.

    Raises:
        UserError: another method has the name, or the config is none.
    """

    def register(function: Callable[[nn.Module, MitigationData, A], Scores]) -> Callable[[nn.Module, MitigationData, A], Scores]:
        _check_config(name, config, AblationConfig, epochs=by_epoch is not None)
        UNLEARNERS.register(name, Unlearner(name, "score", function, config, properties, by_epoch, steps, by_row))
        return function

    return register


def editor(
    name: str,
    *,
    config: type[C],
    properties: Properties,
    by_epoch: Callable[[nn.Module, MitigationData, C], Iterator[tuple[int, Callable[[], nn.Module]]]] | None = None,
    ranked: Callable[[nn.Module, MitigationData, C], Scores] | None = None,
    needs_forget: bool = True,
    by_name: bool = False,
) -> Callable[[Edit[C, P]], Edit[C, P]]:
    """Register a function `(model, data, config) -> edited copy`, which itself decides the changes.

    It may have more arguments, with defaults, for those who call it from Python.

    Args:
        name: how recipes and the command line call the method.
        config: its options: a frozen dataclass that derives from `MethodConfig`, or from `AblationConfig` if it has a ratio.
        properties: its column of the table of methods.
        by_epoch: yields (epoch, function that makes the edited copy of a run that ends there); otherwise as of `scorer`.
        ranked: the scores whose highest the edit takes, for an editor that ranks parts; benchmarks of localization ask for them.
        needs_forget: if false, the method is given no forget rows and no counterparts: it runs where nothing is memorized, and all scored
            rows count as holdout.
        by_name: if true, `all` leaves the method out: it runs where it is named.

    Raises:
        UserError: another method has the name, or the config is none.
    """

    def register(function: Edit[C, P]) -> Edit[C, P]:
        _check_config(name, config, MethodConfig, epochs=by_epoch is not None)
        made = Unlearner(name, "edit", function, config, properties, by_epoch, ranked=ranked, needs_forget=needs_forget, by_name=by_name)
        UNLEARNERS.register(name, made)
        return function

    return register


def _check_config(name: str, config: object, base: type[MethodConfig], *, epochs: bool) -> None:
    if not (isinstance(config, type) and is_dataclass(config) and issubclass(config, base)):
        raise UserError(f"expected a frozen dataclass as config of method '{name}', got {config!r}; derive it from {base.__name__}")
    if epochs and "epochs" not in {f.name for f in fields(config)}:
        raise UserError(f"expected an option epochs in {config.__name__}, since method '{name}' has by_epoch, found none; add it")
    if missed := missed_option(config):
        how = "write `name: type = default` below @dataclass(frozen=True, kw_only=True), or a ClassVar"
        raise UserError(f"expected '{missed}' of {config.__name__} to be an option of method '{name}', but it is none; {how}")


def all_methods() -> list[str]:
    """The names of the methods that `all` means: every registered one but those that run only where they are named."""
    return [name for name in UNLEARNERS.names() if not UNLEARNERS.get(name).by_name]


@dataclass(frozen=True)
class MethodCall:
    """A method with its checked options: made once, where text enters, and carried from there."""

    method: Unlearner
    config: MethodConfig

    @property
    def name(self) -> str:
        """Name under which the method is registered."""
        return self.method.name


def parse_call(name: str, options: Mapping[str, Json]) -> MethodCall:
    """Look up a method and check its options; those not given have their defaults.

    Raises:
        UserError: an unknown method; otherwise as `parse_config`.
    """
    method = UNLEARNERS.get(name)
    return MethodCall(method, parse_config(method, options))


def parse_config(method: Unlearner, options: Mapping[str, Json]) -> MethodConfig:
    """A method's config from recipe or command-line options.

    Raises:
        UserError: an unknown option (with the closest known one) or a value of the wrong type or range.
    """
    from pydantic import ValidationError

    from tinymem.recipe.data import takes_numbers_only

    types = {f.name: f.type for f in fields(method.config)}
    known = list(types)
    for option in options:
        if option not in known:
            raise UserError(f"unknown option '{option}' of {method.name}; {did_you_mean(option, known)}")
        if isinstance(options[option], bool) and takes_numbers_only(types[option]):
            raise UserError(f"expected a number as option '{option}' of {method.name}, got {options[option]}")
    try:
        return method.adapter.validate_python(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"option '{first['loc'][-1]}' of {method.name}: {first['msg'].lower()}, got {first['input']!r}") from None


def apply(method: Unlearner, model: nn.Module, data: MitigationData, config: MethodConfig) -> nn.Module:
    """Run a method on a model and return an edited copy; the input model is left as it was.

    Raises:
        Refused: a positive ratio that rounds to nothing.
    """
    if is_control(config):
        return copied(model)
    if not method.needs_forget:
        data = replace(data, forget=data.forget.take(data.forget.prompt[:0]), clean_counterparts=None, twins=None)
    elif not len(data.forget):
        raise Refused("expected rows to forget, got none: the model memorized nothing of them; train longer or raise the copies")
    if not isinstance(config, AblationConfig) or method.kind == "edit":
        edited = method.function(model, data, config)
        if not isinstance(edited, nn.Module):
            raise UserError(f"expected an edited copy of the model from {method.name}, got {type(edited).__name__}; return one")
        return edited
    refuse_if_nothing(model, method, config)
    scores = scores_of(method, model, data, config)
    mask = select(model, scores, config)
    del scores  # of a large model they take twice its room, which the copy needs
    return ablate(model, mask)


def scores_of(method: Unlearner, model: nn.Module, data: MitigationData, config: MethodConfig) -> Scores:
    """A scorer's scores.

    Raises:
        UserError: they are of another unit than its properties say.
    """
    scores: Scores = method.function(model, data, config)
    if isinstance(scores, Scores) and scores.unit != method.properties.unit:  # `ablation.check_scores` refuses what is none
        raise UserError(f"expected scores of each {method.properties.unit} from {method.name}, as its Properties say, got {scores.unit}")
    return scores


def is_control(config: MethodConfig) -> bool:
    """True for the control, a config that leaves every model unchanged: ratio 0."""
    return isinstance(config, AblationConfig) and config.ratio == 0


def refuse_if_nothing(model: nn.Module, method: Unlearner, config: AblationConfig) -> None:
    """Raise Refused before the scoring pass, which may be long, if the ratio is known to round to nothing."""
    if method.properties.unit == "neuron":
        group_counts(model, {layer.weight_name: layer.neurons for layer in config.eligible(neuron_layers(model))}, config)
