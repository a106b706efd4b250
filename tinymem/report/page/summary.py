"""The top of the page: the model and its data, and the memorization of the trained model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tinymem.report.cells import anchors, before_after, escape, number, percent, percent_of, performance
from tinymem.results.columns import PROMPT_RATES
from tinymem.results.curve import CurvePoint
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord
from tinymem.results.share import Share
from tinymem.runtime.json import Json, JsonObject

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

# Keys of recipes and versions in words; any other key is shown as it is, without underscores.
WORDS = {
    "n_layer": "layers",
    "n_embd": "width",
    "n_head": "heads",
    "n_inner": "feed-forward width",
    "primary": "primary task",
    "auxiliary": "auxiliary tasks",
    "size": "rows per auxiliary task",
    "primary_size": "rows of the primary task",
    "numbers": "numbers per row",
    "row_tokens": "tokens per row",
    "tinymem": "TinyMem",
    "python": "Python",
}


def summary(record: RunRecord) -> str:
    """Description of the run: model, data, training, seed, protocol, versions and device."""
    entries = {
        **(_of_recipe(record.recipe) if record.recipe else {}),
        "Model id": _distinct(record.rows, "model_id"),
        "Corpus SHA-256": _distinct(record.rows, "corpus_sha256"),
        "Versions": ", ".join(dict.fromkeys(_pairs({**(row.versions or {})}) for row in record.rows)),
        "Device": _distinct(record.rows, "device"),
    }
    lines = "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries.items() if value)
    methods = len({row.method for row in record.rows})
    tried = f"{methods} method{'' if methods == 1 else 's'}"
    about = f"One small language model, trained on rows with planted artifacts, and {tried} to make it forget them."
    return f'<p>{about}</p>\n<dl class="facts">\n{lines}\n</dl>'


def _of_recipe(recipe: Recipe) -> dict[str, str]:
    training = ("epochs", "batch_size", "learning_rate", "weight_decay", "schedule")
    return {
        "Model": _pairs(recipe.model.model_dump(mode="json")),
        "Training": _pairs(recipe.training.model_dump(mode="json"), training),
        f"Corpus: {recipe.data.kind}": _pairs(recipe.data.model_dump(mode="json")),
        **{f"Artifact: {artifact.kind}": _pairs(artifact.model_dump(mode="json")) for artifact in recipe.artifacts},
        "Seed": str(recipe.seed),
        "Protocol": recipe.protocol,
    }


def _pairs(values: JsonObject, keys: Iterable[str] | None = None) -> str:
    """The set values of a section, in order, without its kind: `layers 4 · width 128`."""
    shown = {key: values[key] for key in (keys or values) if key != "kind" and values.get(key) is not None}
    return " · ".join(f"{WORDS.get(key, key.replace('_', ' '))} {_plain(value)}" for key, value in shown.items())


def _plain(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _distinct(rows: list[MeasuredRow], column: str) -> str:
    return ", ".join(dict.fromkeys(str(row[column]) for row in rows if row[column] is not None))


def headline(record: RunRecord) -> str:
    """A card per artifact, and one for accuracy, of the trained model before any method."""
    first: dict[str, tuple[MeasuredRow, str]] = {}
    for row, anchor in zip(record.rows, anchors(record.rows), strict=True):
        first.setdefault(row.artifact, (row, f"#json-{anchor}"))
    cards = [_artifact_card(kind, *found) for kind, found in first.items()] or _cards_of_curve(record.curve)
    if record.rows:
        cards.append(_performance_card(*next(iter(first.values()))))
    note = '<p class="soft">The trained model, before any method. Counts are rows memorized of rows scored.</p>'
    return f'{note}\n<div class="cards">\n{chr(10).join(cards)}\n</div>' if cards else "<p>Nothing has been measured yet.</p>"


def _artifact_card(kind: str, row: MeasuredRow, link: str) -> str:
    before, _ = before_after(row, "all")
    found = [(title, row.share(rate, "before")) for title, rate in PROMPT_RATES.items()]
    parts = [(title, percent_of(share)) for title, share in found if share and share.rows]
    return _card(f"{kind}: memorized", percent_of(before), parts, link)


def _cards_of_curve(curve: list[CurvePoint]) -> list[str]:
    last = curve[-1].memorized if curve else {}
    return [_card(f"{kind}: memorized", percent_of(Share(value["count"], value["rows"])), []) for kind, value in last.items()]


def _performance_card(row: MeasuredRow, link: str) -> str:
    metric = row.performance_metric or "accuracy"
    parts = [("ceiling", percent(row.performance_ceiling))] if row.is_share else []
    if row.is_share and row.perplexity_before is not None:
        parts.append(("perplexity", number(row.perplexity_before, 2)))
    return _card(f"{metric} on clean rows", performance(row, row.performance_before), parts, link)


def _card(title: str, value: str, parts: list[tuple[str, str]], link: str = "") -> str:
    """A card: a number with its details; `link` leads to their row."""
    main, _, count = value.partition(" (")
    big = _linked(main, link) + (f" <small>({escape(count)}</small>" if count else "")
    items = "".join(f"<li><span>{escape(name)}</span><span>{_linked(text, link)}</span></li>" for name, text in parts)
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<div class="card"><h3>{escape(title)}</h3><div class="value">{big}</div>{listed}</div>'


def _linked(text: str, link: str) -> str:
    return f'<a class="number" href="{link}">{escape(text)}</a>' if link else escape(text)
