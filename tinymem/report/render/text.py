"""Tables as Markdown, LaTeX, CSV and JSON text. The terminal is in `terminal.py`, HTML in `html.py`, stored rows in `rows.py`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence

from tinymem.errors import UserError, did_you_mean
from tinymem.report.cells import DASH
from tinymem.report.tables.table import Cell, Number, Table
from tinymem.runtime.json import Json, JsonObject


def render(tables: Sequence[Table], format: str) -> str:
    """Tables as text, with a newline at its end.

    Raises:
        UserError: no such format.
    """
    if format not in FORMATS:
        raise UserError(f"expected a format of {', '.join(FORMATS)}, got '{format}'; {did_you_mean(format, FORMATS)}")
    return FORMATS[format](tables)


# ---- Markdown -----------------------------------------------------------------------------------------------------------------------


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavored tables, each with its title as a heading and its notes as a list."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    lines = [f"### {escape_markdown(table.title)}", "", markdown_line([column.name for column in table.columns])]
    lines.append(markdown_line(["---:" if column.numeric else "---" for column in table.columns]))
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table.rows]
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    notes += [f"- [{i}] {escape_markdown(text)}" for i, text in enumerate(table.footnotes, 1)]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(with_details(cell))
    return (f"**{text}**" if cell.best else text) + "".join(f" [{mark}]" for mark in cell.marks)


def markdown_line(cells: list[str]) -> str:
    """A line of a Markdown table; whatever is in the cells, they stay cells."""
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(value: str) -> str:
    """Text on one line that Markdown shows as it is."""
    text = " ".join(value.split())
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(old, new)
    return text


def with_details(cell: Cell) -> str:
    """A cell's text with its small print: `2.8 ± 0.4 (6/216, 1–6, n=3)`."""
    return f"{cell.text} ({', '.join(cell.details)})" if cell.details else cell.text


# ---- LaTeX --------------------------------------------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "→": r"$\to$", "–": "--", "−": "$-$", "×": r"$\times$", "≤": r"$\le$", "∞": r"$\infty$", "Δ": r"$\Delta$",
}  # fmt: skip


def to_latex(tables: Sequence[Table]) -> str:
    """A `table` environment each, no wider than the text; needs the packages booktabs and graphicx."""
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex(table) for table in tables)


def latex_text(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> latex_text("5 % ± 1")
    '5 \\% $\\pm$ 1'
    """
    return "".join(LATEX.get(character, character) for character in text)


FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def _latex(table: Table) -> str:
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}", rf"\label{{tab:{table.key}}}"]
    lines += [
        FIT,
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        *_latex_groups(table),
        _latex_row([latex_text(c.title) for c in table.columns]),
    ]
    lines += [r"\midrule", *(_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows), r"\bottomrule", r"\end{tabular}}"]
    notes = [latex_text(note) for note in table.notes]
    notes += [rf"\textsuperscript{{{i}}}\,{latex_text(text)}" for i, text in enumerate(table.footnotes, 1)]
    lines += [rf"\par\smallskip\footnotesize {note}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_groups(table: Table) -> list[str]:
    """The line above the heads: each group over the neighboring columns that share it."""
    if not any(column.group for column in table.columns):
        return []
    spans = spans_of(table)
    cells = [rf"\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}" if group else " & ".join([""] * width) for group, _, width in spans]
    rules = [rf"\cmidrule(lr){{{start + 1}-{start + width}}}" for group, start, width in spans if group]
    return [_latex_row(cells), " ".join(rules)]


def spans_of(table: Table) -> list[tuple[str, int, int]]:
    """Group, first column and width of every run of neighboring columns that share a group."""
    spans: list[tuple[str, int, int]] = []
    for i, column in enumerate(table.columns):
        if spans and spans[-1][0] == column.group:
            group, start, width = spans.pop()
            spans.append((group, start, width + 1))
        else:
            spans.append((column.group, i, 1))
    return spans


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = latex_text(with_details(cell))
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + (rf"\textsuperscript{{{','.join(map(str, cell.marks))}}}" if cell.marks else "")


# ---- CSV and JSON -------------------------------------------------------------------------------------------------------------------

LONG = ("table", "line", "row", "column", "text", "small", "value", "spread", "n", "count", "rows", "low", "high", "marks", "sources")


def to_csv(tables: Sequence[Table]) -> str:
    """All tables in one long form: a line per number, with its value, spread, number of seeds, counts, interval and the rows behind it."""
    return _csv([LONG, *(line for table in tables for line in _long(table))])


def _long(table: Table) -> list[tuple[Number, ...]]:
    lines: list[tuple[Number, ...]] = []
    for i, row in enumerate(table.rows, 1):
        for column, cell in zip(table.columns, row, strict=True):
            stored = map(_or_empty, (finite(cell.value), cell.spread, cell.n, *counts(cell).values()))
            marks, sources = " ".join(map(str, cell.marks)), " ".join(cell.sources)
            lines.append((table.key, i, row[0].text, column.name, cell.text, cell.small, *stored, marks, sources))
    return lines


def to_wide_csv(table: Table) -> str:
    """One table as it looks, with unrounded values where there are any; what is missing is empty."""
    rows = [["" if cell.text == DASH else cell.text if cell.value is None else finite(cell.value) for cell in row] for row in table.rows]
    return _csv([[column.name for column in table.columns], *rows])


def _csv(lines: Sequence[Sequence[Number]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def to_json(tables: Sequence[Table]) -> str:
    """Everything: unrounded values and, for each, the rows behind it."""
    return json.dumps({"tables": [_plain(table) for table in tables]}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(table: Table) -> JsonObject:
    columns: list[Json] = [{"title": column.title, "group": column.group} for column in table.columns]
    rows: list[Json] = [[_plain_cell(cell) for cell in row] for row in table.rows]
    about: JsonObject = {"name": table.name, "key": table.key, "title": table.title}
    return {**about, "columns": columns, "rows": rows, "notes": list(table.notes), "footnotes": list(table.footnotes)}


def counts(cell: Cell) -> dict[str, float | None]:
    """Count and rows behind a percentage, and its 95 % interval in percent; None for other cells."""
    if cell.share is None:
        return dict.fromkeys(("count", "rows", "low", "high"))
    low, high = (100 * end for end in cell.share.interval) if cell.share.interval else (None, None)
    return {"count": cell.share.count, "rows": cell.share.rows, "low": low, "high": high}


def _plain_cell(cell: Cell) -> JsonObject:
    """A cell as a dictionary, without empty fields."""
    plain: JsonObject = {"text": cell.text, "small": cell.small, "value": finite(cell.value), "spread": cell.spread, "n": cell.n}
    found: JsonObject = {**plain, **counts(cell), "sources": list(cell.sources), "marks": list(cell.marks), "best": cell.best}
    return {key: value for key, value in found.items() if key == "text" or not (value is None or value is False or value in ("", []))}


def finite(value: Number) -> Number:
    """The value for JSON; infinity and NaN, which JSON lacks, as text."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _or_empty(value: Number) -> Number:
    return "" if value is None else value


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv, "json": to_json}
