"""The top of the page: what was trained on what, and what the trained model memorized."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinymem.report.cells import PARTS, anchors, counts, escape, is_share, number, percent, percent_of, performance
from tinymem.results.run_folder import Row, RunRecord

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
    """What was trained on what, with which seed, protocol, versions and device."""
    recipe = record.recipe
    facts = {
        "Model": _pairs(recipe.get("model")),
        "Training": _pairs(recipe.get("training"), ("epochs", "batch_size", "learning_rate", "weight_decay", "schedule")),
        f"Corpus: {(recipe.get('data') or {}).get('kind', '?')}": _pairs(recipe.get("data")),
        **{f"Artifact: {artifact.get('kind', '?')}": _pairs(artifact) for artifact in recipe.get("artifacts") or []},
        "Seed": recipe.get("seed"),
        "Protocol": recipe.get("protocol"),
        "Model id": _distinct(record.rows, "model_id"),
        "Corpus SHA-256": _distinct(record.rows, "corpus_sha256"),
        "Versions": ", ".join(dict.fromkeys(_pairs(row.get("versions")) for row in record.rows)),
        "Device": _distinct(record.rows, "device"),
    }
    lines = "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value not in (None, ""))
    methods = len({row["method"] for row in record.rows})
    tried = f"{methods} method{'' if methods == 1 else 's'}"
    about = f"One small language model, trained on rows with planted artifacts, and {tried} to make it forget them."
    return f'<p>{about}</p>\n<dl class="facts">\n{lines}\n</dl>'


def _pairs(values: Any, keys: Iterable[str] | None = None) -> str:
    """`layers 4 · width 128`: the set values of a section, in order; its kind is told elsewhere."""
    values = values if isinstance(values, dict) else {}
    shown = {key: values[key] for key in (keys or values) if key != "kind" and values.get(key) is not None}
    return " · ".join(f"{WORDS.get(key, key.replace('_', ' '))} {_plain(value)}" for key, value in shown.items())


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _distinct(rows: list[Row], key: str) -> str:
    return ", ".join(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None))


def headline(record: RunRecord) -> str:
    """A card per artifact, and one for accuracy, of the trained model before any method."""
    first: dict[str, tuple[Row, str]] = {}
    for row, anchor in zip(record.rows, anchors(record.rows), strict=True):
        first.setdefault(row["artifact"], (row, f"#json-{anchor}"))
    cards = [_artifact_card(kind, *found) for kind, found in first.items()] or _cards_of_curve(record.curve)
    if record.rows:
        cards.append(_performance_card(*next(iter(first.values()))))
    note = '<p class="soft">The trained model, before any method. Counts are rows memorized of rows scored.</p>'
    return f'{note}\n<div class="cards">\n{chr(10).join(cards)}\n</div>' if cards else "<p>Nothing has been measured yet.</p>"


def _artifact_card(kind: str, row: Row, link: str) -> str:
    count, _, rows = counts(row, "all")
    parts = [(title, percent_of(row[share], row.get(base))) for title, (share, base) in PARTS.items() if row.get(share) is not None]
    return _card(f"{kind}: memorized", percent_of(row.get("memorized_before"), rows, count), parts, link)


def _cards_of_curve(curve: list[Row]) -> list[str]:
    last = (curve[-1].get("memorized") or {}) if curve else {}
    shares = {kind: percent_of(value.get("share"), value.get("rows"), value.get("count")) for kind, value in last.items()}
    return [_card(f"{kind}: memorized", share, []) for kind, share in shares.items()]


def _performance_card(row: Row, link: str) -> str:
    metric = row.get("performance_metric") or "accuracy"
    parts = [("ceiling", percent(row.get("performance_ceiling")))] if is_share(row) else []
    if is_share(row) and row.get("perplexity_before") is not None:
        parts.append(("perplexity", number(row["perplexity_before"], 2)))
    return _card(f"{metric} on clean rows", performance(row, row.get("performance_before")), parts, link)


def _card(title: str, value: str, parts: list[tuple[str, str]], link: str = "") -> str:
    """A number with those beside it; `link` leads to the row that they stand in."""
    main, _, count = value.partition(" (")
    big = _linked(main, link) + (f" <small>({escape(count)}</small>" if count else "")
    items = "".join(f"<li><span>{escape(name)}</span><span>{_linked(text, link)}</span></li>" for name, text in parts)
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<div class="card"><h3>{escape(title)}</h3><div class="value">{big}</div>{listed}</div>'


def _linked(text: str, link: str) -> str:
    return f'<a class="number" href="{link}">{escape(text)}</a>' if link else escape(text)
