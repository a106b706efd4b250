"""Expansion of a sweep's recipe into runs, each with its content id, in groups that share a scoring pass.

A run is one configuration of one method on one model with one seed. Its id is that of `mitigation.run.row_id`, with the model named
by the hash of its weights: the same run in another sweep, or under another name, has the same id; other weights under the same name do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product

from tinymem.errors import UserError, did_you_mean
from tinymem.mitigation.method import UNLEARNERS, MethodCall, Unlearner, all_methods, parse_call
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import chosen, row_id
from tinymem.mitigation.sweep_scores import pass_key
from tinymem.recipe.matrix import parse_shard
from tinymem.recipe.method import Method
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.recipe.sweep import GridName, SweepRecipe, axis
from tinymem.results.columns import MODEL_COLUMNS, pick
from tinymem.results.model_columns import family_of
from tinymem.runtime.files import canonical_json, content_id
from tinymem.runtime.json import Json, JsonObject
from tinymem.sweep.models import Model
from tinymem.sweep.named import request_of
from tinymem.sweep.work import Measuring, ModelTask, PlannedRun, WorkUnit

NAMED_COLUMNS = ("revision", "step", "dtype")
"""Columns of models by name that `--only` takes too."""


@dataclass(frozen=True)
class Choice:
    """A configuration of a method, parsed once for all models."""

    call: MethodCall
    values: JsonObject
    options: JsonObject
    shared: str


@dataclass(frozen=True)
class Picked:
    """The runs of a model with one seed, and those removed by exclusions."""

    model: Model
    seed: int
    kept: list[Choice]
    dropped: list[Choice]


@dataclass
class Plan:
    """All runs of a sweep: those of every model, trained or not, and the groups of the trained ones."""

    picked: list[Picked] = field(default_factory=list)
    groups: list[WorkUnit] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Number of runs of the trained models."""
        return sum(len(group.runs) for group in self.groups)

    @property
    def counted(self) -> int:
        """Number of runs of all models, trained or not."""
        return sum(len(picked.kept) for picked in self.picked)


def make_plan(sweep: SweepRecipe, models: Sequence[Model], device_type: str, *, only: Sequence[str] = (), shard: str | None = None) -> Plan:
    """The runs of a sweep on its models.

    Raises:
        UserError: an unknown method, option or fact; `only` that picks nothing; a malformed shard.
    """
    choices = expand(sweep)
    plan, picks = Plan(), _Only(only, choices)
    for model in models:
        for seed in sweep.seeds or (model.seed,):
            columns = {**pick(model.columns, (*MODEL_COLUMNS, *NAMED_COLUMNS)), "seed": seed}
            kept, dropped = _allowed(sweep, columns, choices)
            kept = [c for c in kept if picks.takes({**columns, "run": model.run}, c)]
            plan.picked.append(Picked(model, seed, kept, dropped))
            if model.checkpoint is not None:
                plan.groups += _groups(sweep, model, seed, kept, device_type)
    if only and not plan.counted:
        raise UserError(f"expected runs that {' '.join(f'--only {o}' for o in only)} picks, found none; --list shows all")
    plan.groups = _shard(plan.groups, shard)
    return plan


def expand(sweep: SweepRecipe) -> list[Choice]:
    """Every configuration of the recipe's methods, each once."""
    found: dict[str, Choice] = {}
    for entry in sweep.methods:
        for name in all_methods() if entry.name == "all" else [entry.name]:
            for options in grid_of(UNLEARNERS.get(name), entry, sweep.grid):
                call = parse_call(name, options)
                values, shared = call.config.as_json(), pass_key(call.method, call.config)
                found.setdefault(f"{name} {canonical_json(values)}", Choice(call, values, chosen(call.config), shared))
    return list(found.values())


def grid_of(method: Unlearner, entry: Method, name: GridName) -> Iterator[JsonObject]:
    """Options of each point of a method's grid: its own, with axes replaced by the entry's lists and ranges, and fixed by its values."""
    declared = {} if name == "none" else method.config.grid
    if name == "published":
        declared = method.config.published_grid or declared
    axes = {**declared, **{option: axis(value) for option, value in entry.options.items()}}
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _allowed(sweep: SweepRecipe, columns: JsonObject, choices: list[Choice]) -> tuple[list[Choice], list[Choice]]:
    kept: list[Choice] = []
    dropped: list[Choice] = []
    for choice in choices:
        excluded = any(
            choice.call.name == e.method and _matches(e.when, columns) and _matches(e.options, choice.values) for e in sweep.exclude
        )
        (dropped if excluded else kept).append(choice)
    return kept, dropped


def _matches(wanted: JsonObject, values: JsonObject) -> bool:
    return all(values.get(k) in (v if isinstance(v, list | tuple) else (v,)) for k, v in wanted.items())


def _groups(sweep: SweepRecipe, model: Model, seed: int, choices: list[Choice], device_type: str) -> list[WorkUnit]:
    task = _model_task(sweep, model, seed, device_type)
    identity = task.identity
    forget: Json = task.rows["id"] if task.rows else {"forget": task.forget, "forget_fraction": task.forget_fraction}
    same = [pick(identity, ("model_id", "seed", "protocol", "device_type", *(["dtype"] if task.rows else []))), forget]
    groups: dict[str, WorkUnit] = {}
    for choice in choices:
        run_id = row_id(identity, choice.call, forget, rounded=model.in_16_bits)
        run = PlannedRun(run_id, choice.values, choice.options, files=choice.call.config.files_content())
        key = f"{choice.call.name} {choice.shared if sweep.share_scores else run.id}"
        if key not in groups:
            groups[key] = WorkUnit(content_id([*same, key], 16), task, seed, choice.call.name, [])
        groups[key].runs.append(run)
    return list(groups.values())


def _model_task(sweep: SweepRecipe, model: Model, seed: int, device_type: str) -> ModelTask:
    if model.recipe is None:
        return _named_task(sweep, model, seed, device_type)
    measuring, protocol = _measuring(sweep), sweep.protocol or model.recipe.protocol
    identity = replace(
        model.columns,
        family=family_of(model.recipe.model_copy(update={"protocol": protocol})),
        run=model.run,
        model_id=model.model_id,
        weights=model.model_id,  # a run's rows have the recipe's id as model_id, and the hash of the weights here
        corpus_sha256=model.corpus_sha256,
        seed=seed,
        protocol=protocol,
        device_type=device_type,
    )
    return ModelTask(
        checkpoint=str(model.checkpoint),
        forget=sweep.forget or model.recipe.mitigation.forget,
        forget_fraction=sweep.forget_fraction or model.recipe.mitigation.forget_fraction,
        measuring=measuring,
        request=MeasurementRequest.of_recipe(with_measuring(model.recipe, measuring)).as_column(),
        identity=identity,
        artifacts=[a.kind for a in model.recipe.artifacts],
    )


def _named_task(sweep: SweepRecipe, model: Model, seed: int, device_type: str) -> ModelTask:
    """The task of a model by name, whose protocol and share of forget rows are in its columns."""
    measuring = _measuring(sweep)
    identity = replace(model.columns, run=model.run, model_id=model.model_id, weights=model.model_id, seed=seed, device_type=device_type)
    assert identity.forget_fraction is not None, "it is planned"
    request = request_of(measuring["metrics"], measuring["robustness"]).as_column()
    return ModelTask(str(model.checkpoint), None, identity.forget_fraction, measuring, request, identity, ["rows"], model.rows)


def with_measuring(recipe: Recipe, measuring: Measuring) -> Recipe:
    """A model's recipe with a sweep's own metrics, ks and robustness; None leaves the recipe's.

    Raises:
        UserError: prompt lengths that do not fit the recipe's window.
    """
    values = recipe.model_dump(mode="json")
    wanted = {"metrics": measuring["metrics"], "ks": measuring["ks"]}
    values["evaluation"] |= {key: value for key, value in wanted.items() if value is not None}
    if measuring["robustness"] is not None:
        values["mitigation"]["robustness"] = measuring["robustness"]
    return parse_recipe(values)


def _measuring(sweep: SweepRecipe) -> Measuring:
    values = sweep.model_dump(mode="json", include={"metrics", "ks", "robustness"})
    return {"metrics": values["metrics"], "ks": values["ks"], "robustness": values["robustness"]}


class _Only:
    """Filter of runs (`--only act`, `--only n_layer=4`): one value must match of each column, and all columns must match."""

    def __init__(self, only: Sequence[str], choices: list[Choice]) -> None:
        self.wanted: dict[str, list[str]] = {}
        known = {*MODEL_COLUMNS, *NAMED_COLUMNS, "run", "seed", "method", *(option for choice in choices for option in choice.values)}
        for word in only:
            column, separator, value = word.partition("=")
            column, value = (column, value) if separator else ("method", word)
            if column not in known:
                raise UserError(f"unknown column '{column}' of --only; {did_you_mean(column, known)}")
            self.wanted.setdefault(column, []).append(value)

    def takes(self, columns: JsonObject, choice: Choice) -> bool:
        """Whether a run with these columns and this configuration passes the filter."""
        values = {**columns, **choice.values, "method": choice.call.name}
        return all(any(fnmatchcase(str(values.get(c)), p) for p in patterns) for c, patterns in self.wanted.items())


def _shard(groups: list[WorkUnit], shard: str | None) -> list[WorkUnit]:
    """Every n-th model, or every n-th group where there are fewer models than shards."""
    if shard is None:
        return groups
    number, count = parse_shard(shard)
    position = {key: i for i, key in enumerate(dict.fromkeys(group.model_key for group in groups))}
    if len(position) < count:
        return groups[number - 1 :: count]
    return [group for group in groups if position[group.model_key] % count == number - 1]
