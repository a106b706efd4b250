"""The head of a page, and what explains its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tinymem.results.collect import Results, unit_of
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RECIPE, RESULTS, RunRecord
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.version import version_and_commit

NAMED = 12  # folders or methods listed by name
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
TRAINING = ("epochs", "batch_size", "learning_rate", "weight_decay", "schedule")
READING = {
    "memorized": "Share of all scored rows that the model continues exactly ({prompt} tokens given, next {match} compared).",
    "forget": "The same share on the memorized rows that the method was given to forget.",
    "holdout": "The same on memorized rows that were kept from the method: is the artifact forgotten, or only the rows seen?",
    "accuracy": "Share of next tokens that the model predicts on clean test rows; a good method leaves it where it was.",
    "ceiling": "Share of the scored tokens that the tokens before them determine; the rest can only be guessed.",
    "perplexity": "Exponential of the mean loss per token on clean test rows; lower is better, and it is not a percentage.",
    "interval": "Below a count: the share lies there in 95 of 100 such samples of rows (Wilson's score interval).",
    "seconds": "Wall-clock time of the method alone, without the measurements before and after it.",
    "MB": "Most memory while the method ran, in MB of 2^20 bytes: what the process held, or on a GPU what was allocated there.",
    "edited": "How many parameters differ from the trained model afterwards.",
}


def title_of(results: Results) -> str:
    """The page's title: the folders' names."""
    names = [folder.resolve().name for folder in results.folders]
    return "TinyMem report: " + (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "rows")


def about_run(record: RunRecord) -> dict[str, str]:
    """Description of a run: model, data, training, seed, protocol, versions and device."""
    return {
        **_of_recipe(record.values),
        "Model id": _distinct(record.rows, "model_id"),
        "Corpus SHA-256": _distinct(record.rows, "corpus_sha256"),
        "Versions": ", ".join(dict.fromkeys(_pairs({**(row.versions or {})}) for row in record.rows)),
        "Device": _distinct(record.rows, "device"),
        "Measured": _last_measured(record.rows, [record.path]),
        "Page": f"TinyMem {version_and_commit()}",
        "Again": f"tinymem run {record.path / RECIPE}" if record.values else "",
    }


def _last_measured(rows: Iterable[MeasuredRow], runs: Iterable[Path]) -> str:
    """Day and time, UTC, of the last result of a sweep's rows and of the folders of runs; empty without any."""
    found = [datetime.fromisoformat(row.finished) for row in rows if row.finished]
    found += [datetime.fromtimestamp((run / RESULTS).stat().st_mtime, UTC) for run in runs if (run / RESULTS).is_file()]
    return f"{max(found):%Y-%m-%d %H:%M} UTC" if found else ""


def about_results(results: Results) -> dict[str, str]:
    """Header counts: rows by status; distinct models, seeds, methods, devices."""
    rows = results.rows
    status = Counter(row.status for row in rows)
    return {
        "Folders": _listed([folder.resolve().name for folder in results.folders]),
        "Rows": f"{len(rows):,} ({', '.join(f'{count:,} {name}' for name, count in status.most_common())})" if rows else "none",
        "Models": f"{len(set(map(unit_of, rows))):,}",
        "Data": _listed(_values(rows, "data")),
        "Layers": _listed(_values(rows, "n_layer")),
        "Epochs": _listed(_values(rows, "epoch")),
        "Seeds": _listed(_values(rows, "seed")),
        "Methods": _listed(_values(rows, "method")),
        "Protocol": _listed(_values(rows, "protocol")),
        "Device": _listed(_values(rows, "device")),
        "Measured": _last_measured(rows, [record.path for record in results.records]),
        "Page": f"TinyMem {version_and_commit()}",
        "Again": f"tinymem report {' '.join(map(str, results.folders))} --format html" if results.folders else "",
        "Training curves": f"{sum(bool(record.curve) for record in results.records)}" if results.records else "",
    }


def reading_of(rows: Sequence[MeasuredRow], window: JsonObject) -> dict[str, str]:
    """Explanation of the result table, one sentence per column, with the window of the test where all rows share one."""
    windows = {"prompt": window.get("prompt", "the first"), "match": window.get("match", "")}
    shares = {row.is_share for row in rows} or {True}
    skipped = {*(() if False in shares else ("perplexity",)), *(() if True in shares else ("accuracy", "ceiling"))}
    return {key: text.format(**windows) for key, text in READING.items() if key not in skipped}


def section(values: JsonObject, key: str) -> JsonObject:
    """A section of a recipe; empty where it has none."""
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _of_recipe(values: JsonObject) -> dict[str, str]:
    if not values:
        return {}
    data, artifacts = section(values, "data"), values.get("artifacts")
    planted = [a for a in artifacts if isinstance(a, dict)] if isinstance(artifacts, list) else []
    return {
        "Model": _pairs(section(values, "model")),
        "Training": _pairs(section(values, "training"), TRAINING),
        f"Corpus: {data.get('kind')}": _pairs(data),
        **{f"Artifact: {artifact.get('kind')}": _pairs(artifact) for artifact in planted},
        "Seed": str(values.get("seed", "")),
        "Protocol": str(values.get("protocol", "")),
    }


def _pairs(values: JsonObject, keys: Iterable[str] | None = None) -> str:
    """The set values of a section, in order, without its kind: `layers 4 · width 128`."""
    shown = {key: values[key] for key in (keys or values) if key != "kind" and values.get(key) is not None}
    return " · ".join(f"{WORDS.get(key, key.replace('_', ' '))} {_plain(value)}" for key, value in shown.items())


def _plain(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _distinct(rows: Iterable[MeasuredRow], column: str) -> str:
    return ", ".join(dict.fromkeys(str(row[column]) for row in rows if row[column] is not None))


def _values(rows: Iterable[MeasuredRow], column: str) -> list[Json]:
    """The values of a column, numbers in order before words."""
    found = {str(row[column]): row[column] for row in rows if row[column] is not None}.values()
    return sorted(found, key=lambda value: (isinstance(value, str), value if isinstance(value, int | float) else 0, str(value)))


def _listed(values: Sequence[Json]) -> str:
    shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values[:NAMED])
    return shown + (f" and {len(values) - NAMED:,} more" if len(values) > NAMED else "")
