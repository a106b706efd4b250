"""The scorers of a benchmark with all combinations of their options, checked before a model is loaded, and the ratios that each runs at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tinymem.errors import UserError
from tinymem.localization.scoring import refuse_unless_neurons
from tinymem.localization.weights import refuse_unless_weights
from tinymem.mitigation.method import MethodCall, parse_call
from tinymem.mitigation.methods.neuron._common import NeuronConfig
from tinymem.mitigation.run import chosen
from tinymem.recipe.localization import LocalizationOptions, combinations_of
from tinymem.runtime.json import Json


def calls_at(calls: Iterable[tuple[MethodCall, float | None]], ratio: float) -> list[MethodCall]:
    """The calls that run at a ratio: those that name it, and of other methods those that name none."""
    known = list(calls)
    named = {call.name for call, at in known if at == ratio}
    return [call for call, at in known if at == ratio or (at is None and call.name not in named)]


def parsed_calls(recipe: LocalizationOptions) -> list[tuple[MethodCall, float | None]]:
    """The recipe's scorers with all combinations of their options, and the only ratio that each runs at, if it names one.

    Raises:
        UserError: an unknown scorer or option, one that only decides an edit, a method that does not score the recipe's unit, or one at
            none of its ratios, also because other options of it are named for each.
    """
    refuse = refuse_unless_neurons if recipe.unit == "neuron" else refuse_unless_weights
    calls = [_call(method.name, options) for method in recipe.wanted_methods for options in combinations_of(method.options)]
    for call, _ in calls:
        refuse(call)
        if recipe.unit == "neuron":
            _refuse_choices(recipe, call)
    running = [call for ratio in recipe.wanted_ratios for call in calls_at(calls, ratio)]
    names, runs = {call.name for call in running}, ", ".join(f"{one:g}" for one in recipe.wanted_ratios)
    for call, ratio in calls:
        if ratio is None and not any(call is one for one in running):
            raise UserError(
                f"expected {call.name} without a ratio to have one of the ratios {runs} left to run at, got {call.name} with each of them "
                "too; leave out the one without a ratio, or add a ratio to the ratios"
            )
        if call.name not in names or (ratio is not None and not recipe.ratios and ratio not in recipe.wanted_ratios):
            raise UserError(
                f"expected {call.name} at one of the ratios {runs}, got ratio {ratio:g}; leave its ratio out, or name it among the ratios"
            )
    return calls


def _refuse_choices(recipe: LocalizationOptions, call: MethodCall) -> None:
    """Raise UserError for options by which an edit chooses neurons: the benchmark chooses them itself, and a table would say otherwise."""
    if names := [name for name in ("of", "scope") if name in chosen(call.config)]:
        raise UserError(
            f"expected {call.name} without {' and '.join(names)}, got {names[0]}={getattr(call.config, names[0])}; the benchmark chooses "
            "in each layer, INJ also in the whole model (scopes): leave it out"
        )
    whole = recipe.benchmark == "inj" or not recipe.skip_bottom
    if whole and isinstance(call.config, NeuronConfig) and call.config.skip_bottom:
        where = "INJ, which injects into every layer" if recipe.benchmark == "inj" else "DEL with skip_bottom: false"
        raise UserError(f"expected {call.name} without skip_bottom in {where}, got skip_bottom=True; leave it out")


def _call(name: str, options: Mapping[str, Json]) -> tuple[MethodCall, float | None]:
    call, ratio = parse_call(name, options), options.get("ratio")
    return call, float(ratio) if isinstance(ratio, int | float) else None
