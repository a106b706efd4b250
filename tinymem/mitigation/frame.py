"""Score, select, ablate: the frame that unlearning methods fill in.

Most methods only differ in how they score neurons or weights; `select` and `ablate` are shared. Methods that edit as they go register
as the second kind. A method is one file: a frozen config, one function, and its registration.

    @scorer("my-method", config=MyConfig, properties=Properties(unit="weight", order="first"))
    def my_method(model, data, config) -> Scores: ...

    @editor("my-edit", config=MyConfig, properties=Properties(unit="weight", order="first"))
    def my_edit(model, data, config) -> nn.Module: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import ROUND_CEILING, Context
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError, did_you_mean
from tinymem.mitigation.option_ranges import check_least
from tinymem.models.adapters import layer_of, neuron_layers
from tinymem.progress import Bar, SilentBar
from tinymem.registry import Registry

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Unit = Literal["neuron", "weight", "model"]
Scope = Literal["tensor", "layer", "model"]
Grid = dict[str, tuple[Any, ...]]
Scorer = Callable[..., "Scores"]
Editor = Callable[..., nn.Module]


class Refused(UserError):
    """A configuration that can do nothing, such as a ratio that rounds to no neuron: a row of status `refused`, not a failure."""


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """Options of every method that zeroes neurons or weights.

    Attributes:
        ratio: share of the eligible neurons or weights to zero, in [0, 1]; 0 is the control.
        of: what `ratio` counts: the `eligible` parts, or all parameters of the `model` (paper, A.3.3).
        scope: where the highest scores are compared: within each `tensor`, each `layer`, or the whole `model`.
    """

    ratio: float = 0.05
    of: Literal["eligible", "model"] = "eligible"
    scope: Scope = "layer"

    grid: ClassVar[Grid] = {}
    published_grid: ClassVar[Grid] = {}
    """Where the published runs' grid differs from the paper's."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise UserError(f"expected ratio in [0, 1], got {self.ratio:g}; it is a share: try ratio=0.05")
        check_least(self)


@dataclass(frozen=True, kw_only=True)
class Properties:
    """A method's column of the paper's Table 5.

    Attributes:
        unit: what it changes: neurons or weights that are chosen, or the whole model.
        order: the highest derivative of the loss that it uses.
        iterative: whether it chooses parts a few at a time, weighing each choice anew.
        layer_wise: whether parts compete within each layer, not within the whole model.
        criterion: how parts are chosen: by a threshold on scores, or by optimisation.
        dual_objective: whether it weighs the rows to keep against those to forget.
    """

    unit: Unit
    order: Literal["zeroth", "first", "second"]
    iterative: bool = False
    layer_wise: bool = False
    criterion: Literal["threshold", "optimisation"] = "threshold"
    dual_objective: bool = False


@dataclass(frozen=True)
class MitigationData:
    """What a method may look at, on the model's device: rows to forget, rows to keep (never an artifact's), a seed, a progress bar."""

    forget: Rows
    retain: Rows
    twins: Rows | None = None
    """Clean versions of the artifact rows that the method may know (fine-tuning on clean data)."""
    clean: Tensor | None = None
    """All clean training rows [N, T] as `compact_rows` keeps them, where `retain` is a sample of them; None: `retain` is all."""
    seed: int = 0
    optimizer_state: dict[str, Tensor] = field(default_factory=dict)
    """AdamW's state at the end of training, for methods that go on with it; empty where there is none."""
    bar: Bar = field(default_factory=SilentBar)

    def generator(self) -> torch.Generator:
        """A fresh CPU generator: the same seed draws the same on every device."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Scores:
    """One number per neuron or weight; larger = more to blame.

    `values` maps the parameter's name to a tensor: of the parameter's shape for weights, [neurons] for neurons (under the name of the
    out-projection whose inputs they are).
    """

    unit: Literal["neuron", "weight"]
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Mask:
    """What to zero: a boolean tensor per parameter, shaped as in `Scores`."""

    unit: Literal["neuron", "weight"]
    values: dict[str, Tensor]

    def count(self) -> int:
        """Number of chosen neurons or weights."""
        return sum(int(m.sum()) for m in self.values.values())


@dataclass(frozen=True)
class Unlearner:
    """A registered method."""

    name: str
    kind: Literal["score", "edit"]
    function: Callable[..., Any]
    config: type[Any]
    properties: Properties

    @property
    def origin(self) -> str:
        """Where the method is defined; loading the same file twice is not a clash of names."""
        return f"{inspect.getsourcefile(self.function)}:{self.function.__qualname__}"

    @property
    def documentation(self) -> str:
        """The docstring of the method's module: idea, formula, source, cost, options."""
        return inspect.cleandoc(inspect.getmodule(self.function).__doc__ or self.function.__doc__ or "")

    def beside(self, name: str) -> Callable[..., Any] | None:
        """A function that the method's module has beside it (`by_epoch`, `steps`, `by_row`); None where it has none."""
        return getattr(inspect.getmodule(self.function), name, None)


UNLEARNERS: Registry[Unlearner] = Registry(
    "method",
    packages=(
        "tinymem.mitigation.unlearning.neuron",
        "tinymem.mitigation.unlearning.weight",
        "tinymem.mitigation.unlearning.baselines",
        "tinymem.mitigation.finetuning",
    ),
    entry_points="tinymem.unlearners",
)


def scorer(name: str, *, config: type[Any], properties: Properties) -> Callable[[Scorer], Scorer]:
    """Register a function `(model, data, config) -> Scores`; selection and ablation follow from the config.

    Args:
        name: what recipes and the command line call the method.
        config: its options: a frozen dataclass that derives from `AblationConfig`.
        properties: its column of the table of methods.

    Raises:
        UserError: another method has the name.
    """

    def register(function: Scorer) -> Scorer:
        _check_config(name, config)
        UNLEARNERS.register(name, Unlearner(name, "score", function, config, properties))
        return function

    return register


def editor(name: str, *, config: type[Any], properties: Properties) -> Callable[[Editor], Editor]:
    """Register a function `(model, data, config) -> edited copy` that decides itself what to change.

    Args:
        name: what recipes and the command line call the method.
        config: its options: a frozen dataclass.
        properties: its column of the table of methods.

    Raises:
        UserError: another method has the name.
    """

    def register(function: Editor) -> Editor:
        _check_config(name, config)
        UNLEARNERS.register(name, Unlearner(name, "edit", function, config, properties))
        return function

    return register


def _check_config(name: str, config: Any) -> None:
    if not (isinstance(config, type) and is_dataclass(config)):
        raise UserError(f"expected a frozen dataclass as config of method '{name}', got {config!r}; AblationConfig has ratio and scope")


def parse_config(method: Unlearner, options: dict[str, Any]) -> Any:
    """A method's config from recipe or command-line options.

    Raises:
        UserError: an unknown option (with the closest known one) or a value of the wrong type or range.
    """
    from pydantic import ValidationError

    known = [f.name for f in fields(method.config)]
    for option in options:
        if option not in known:
            raise UserError(f"unknown option '{option}' of {method.name}; {did_you_mean(option, known)}")
    try:
        kind: Any = method.config
        return _adapter(kind).validate_python(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"option '{first['loc'][-1]}' of {method.name}: {first['msg'].lower()}, got {first['input']!r}") from None


@cache
def _adapter(config: Any) -> TypeAdapter[Any]:
    """Made once: it takes longer than many a method."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(config)
    return adapter


def apply(method: Unlearner, model: nn.Module, data: MitigationData, config: Any) -> nn.Module:
    """Run a method on a model and return an edited copy; the input model is left as it was.

    Raises:
        Refused: a positive ratio that rounds to nothing.
    """
    if getattr(config, "ratio", None) == 0:
        return deepcopy(model)
    if not len(data.forget):
        raise Refused("expected rows to forget, got none: the model memorised nothing of them; train longer or raise the copies")
    if method.kind == "edit":
        edited = method.function(model, data, config)
        if not isinstance(edited, nn.Module):
            raise UserError(f"expected an edited copy of the model from {method.name}, got {type(edited).__name__}; return one")
        return edited
    refuse_if_nothing(model, method, config)
    scores: Scores = method.function(model, data, config)
    return ablate(model, select(model, scores, config))


def select(model: nn.Module, scores: Scores, config: AblationConfig) -> Mask:
    """The highest scores of each group, exactly as many as the ratio says; ties go to the earlier neuron or weight.

    Raises:
        Refused: a positive ratio that rounds to nothing in every group.
        UserError: `of: model` asks for more than is eligible; scores that are none, or not the model's.
    """
    check_scores(model, scores)
    masks = {name: torch.zeros_like(s, dtype=torch.bool) for name, s in scores.values.items()}
    sizes = {name: s.numel() for name, s in scores.values.items()}
    for names, count in group_counts(model, sizes, config):
        flat = torch.cat([scores.values[n].flatten() for n in names])
        chosen = torch.zeros_like(flat, dtype=torch.bool)
        chosen[torch.sort(flat, descending=True, stable=True).indices[:count]] = True
        for name, part in zip(names, chosen.split([sizes[n] for n in names]), strict=True):
            masks[name] = part.view_as(masks[name])
    return Mask(scores.unit, masks)


def check_scores(model: nn.Module, scores: Scores) -> None:
    """Raise UserError unless there is a number for each neuron or weight of some of the model's tensors; NaN has no rank."""
    if not isinstance(scores, Scores):
        raise UserError(f"expected Scores from the method, got {type(scores).__name__}; return one")
    known: dict[str, tuple[int, ...]]
    if scores.unit == "neuron":
        known = {layer.weight_name: (layer.neurons,) for layer in neuron_layers(model)}
    else:
        known = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, values in scores.values.items():
        if known.get(name) != tuple(values.shape):
            found = f"expected scores of shape {known[name]}" if name in known else f"expected names of {scores.unit} tensors"
            raise UserError(f"{found}, got '{name}' of shape {tuple(values.shape)}; see the docstring of Scores")
        if values.isnan().any():
            raise UserError(f"expected numbers as scores, got NaN in '{name}'; is the method's loss or gradient finite?")
    if not scores.values:
        raise UserError("expected scores of some tensors, got none; see the docstring of Scores")


def group_counts(model: nn.Module, sizes: dict[str, int], config: AblationConfig) -> list[tuple[list[str], int]]:
    """For each group of tensors that are ranked together, how many entries to choose.

    `sizes` maps a tensor's name to its eligible entries. Raises as `select`.
    """
    groups: dict[object, list[str]] = {}
    for name in sizes:
        key = name if config.scope == "tensor" else layer_of(model, name) if config.scope == "layer" else None
        groups.setdefault(key, []).append(name)
    eligible = sum(sizes.values())
    if not eligible:
        raise UserError("expected neurons or weights to choose from, got none; of a model of one layer skip_bottom leaves nothing")
    total = sum(p.numel() for p in model.parameters()) if config.of == "model" else eligible
    if config.ratio * total > eligible * (1 + 1e-9):
        raise UserError(f"expected at most {eligible} neurons or weights to zero, got {config.ratio:g} of {total}; lower ratio")
    counts = []
    for names in groups.values():
        share = sum(sizes[n] for n in names) / eligible
        counts.append((names, int(config.ratio * total * share + 1e-6)))  # the margin undoes 0.29 * 100 = 28.999...
    if config.ratio > 0 and not any(count for _, count in counts):
        largest = max(sum(sizes[n] for n in names) for names in groups.values()) * total / eligible
        raise Refused(f"ratio {config.ratio:g} rounds to nothing here; the smallest that acts is {_rounded_up(1 / largest):g}")
    return counts


def _rounded_up(ratio: float) -> float:
    """Three digits, and no less than `ratio`: what is rounded down is refused again."""
    up = Context(prec=3, rounding=ROUND_CEILING)
    return float(up.create_decimal_from_float(ratio * (1 - 1e-9)))  # 1 / 50 is a little more than 0.02, and must not become 0.0201


def ablate(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy of the model with the chosen weights zeroed, or with the value vectors of the chosen neurons zeroed.

    Zeroing a neuron's value vector equals multiplying its activation by zero at every position.
    """
    edited = deepcopy(model)
    with torch.no_grad():
        if mask.unit == "neuron":
            for layer in neuron_layers(edited):
                if layer.weight_name in mask.values:
                    layer.values_FD()[mask.values[layer.weight_name]] = 0
        else:
            parameters = dict(edited.named_parameters())
            for name, chosen in mask.values.items():
                parameters[name].masked_fill_(chosen, 0)
    return edited


def refuse_if_nothing(model: nn.Module, method: Unlearner, config: AblationConfig) -> None:
    """Find out before the scoring pass, which may be long, that the ratio rounds to nothing."""
    if method.properties.unit == "neuron":
        eligible = neuron_layers(model)[1 if getattr(config, "skip_bottom", False) else 0 :]
        group_counts(model, {layer.weight_name: layer.neurons for layer in eligible}, config)
