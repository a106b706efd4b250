"""The page's sections as HTML text. Every value from a file passes through `escape`."""

from __future__ import annotations

import json

from tinymem.report.cells import anchors, escape, labels
from tinymem.report.figures.of_run import change_numbers, curve_numbers
from tinymem.report.page.figures import figure_element, numbers
from tinymem.report.page.rows import escape_text
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord
from tinymem.runtime.json import JsonObject

READING = {
    "memorized": "Share of all scored rows that the model continues exactly ({prompt} tokens given, next {match} compared).",
    "forget": "The same share on the memorized rows that the method was given to forget.",
    "holdout": "The same on memorized rows that were kept from the method: is the artifact forgotten, or only the rows seen?",
    "accuracy": "Share of next tokens that the model predicts on clean test rows; a good method leaves it where it was.",
    "ceiling": "Share of the scored tokens that the tokens before them determine; the rest can only be guessed.",
    "perplexity": "Exponential of the mean loss per token on clean test rows; lower is better, and it is not a percentage.",
    "seconds": "Wall-clock time of the method alone, without the measurements before and after it.",
    "peak MB": "Most memory while the method ran, in MB of 2^20 bytes: what the process held, or on a GPU what was allocated there.",
    "edited": "How many parameters differ from the trained model afterwards.",
    "grey rows": "The method refused its settings or failed; its message says why, and nothing was measured after it.",
}


CURVE_CAPTION = "Training: share of each artifact's scored rows that is memorized; accuracy on clean test rows, with its ceiling."
SCATTER_CAPTION = (
    "Methods: further left, less is memorized (of all scored rows; at -100 % nothing is left); on the zero line, the model is "
    "unharmed. The star marks the ideal."
)


def figures(record: RunRecord, curve: str | None, scatter: str | None, others: str = "") -> str:
    """The drawings as SVG, with their captions and numbers."""
    curve_data = numbers("curve", curve_numbers(record.curve), {}, "")
    scatter_data = numbers("change", change_numbers(record), links(record), "")
    trio = (("curve", curve, CURVE_CAPTION, curve_data), ("change", scatter, SCATTER_CAPTION, scatter_data))
    found = [figure_element(key, svg, caption, data) for key, svg, caption, data in trio if svg]
    found += [others] if others else []
    return f'<div class="figures">\n{chr(10).join(found)}\n</div>' if found else "<p>There is nothing to draw yet.</p>"


def reading(record: RunRecord) -> str:
    """Explanation of the result table, one sentence per column."""
    tests = record.recipe.evaluation if record.recipe else None
    return reading_of(record.rows, {"prompt": tests.prompt, "match": tests.match} if tests else {})


def reading_of(rows: list[MeasuredRow], window: JsonObject) -> str:
    """Explanation of the result table, one sentence per column, with the window of the test where all rows share one."""
    windows = {"prompt": window.get("prompt", "the first"), "match": window.get("match", "")}
    shares = {row.is_share for row in rows} or {True}
    skipped = {*(() if False in shares else ("perplexity",)), *(() if True in shares else ("accuracy", "ceiling"))}
    lines = [(key, text.format(**windows)) for key, text in READING.items() if key not in skipped]
    listed = "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in lines)
    return f'<dl class="read">\n{listed}\n</dl>'


def links(record: RunRecord) -> dict[str, str]:
    """Links to each row's JSON on the page, by the row's source."""
    return {row.source: f"#json-{anchor}" for row, anchor in zip(record.rows, anchors(record.rows), strict=True)}


def sources(record: RunRecord) -> str:
    """The resolved recipe and the full JSON of every row, each under the anchor that its table row links to."""
    blocks = _recipe_block(record)
    for row, label, anchor in zip(record.rows, labels(record.rows), anchors(record.rows), strict=True):
        body = escape_text(json.dumps(row.as_dict(), indent=2, ensure_ascii=False))
        back = f'<a href="#row-{anchor}">to the table row</a>'
        title = escape(f"{label} on {row.artifact}")
        blocks.append(f'<details><summary>{title}</summary>\n{back}\n<pre id="json-{anchor}">{body}</pre>\n</details>')
    return "<p>Each number above is computed from these stored values; shares are in [0, 1].</p>\n" + "\n".join(blocks)


def _recipe_block(record: RunRecord) -> list[str]:
    """The resolved recipe, folded; nothing for rows without one."""
    from tinymem.recipe.recipe import dump_recipe

    if record.recipe is None:
        return []
    text = escape(dump_recipe(record.recipe))
    return [f"<details><summary>Resolved recipe (recipe.yaml)</summary>\n<pre>{text}</pre>\n</details>"]
