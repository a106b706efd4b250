"""Jinja2 templates of the page, with autoescape: whatever is in a value, it stays text. The table's macro shows one table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tinymem.report.render.shown import lines_of, visible
from tinymem.report.render.text import spans_of
from tinymem.report.tables.table import Table, anchor
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SAID = 6  # lines of a prompt that are not folded: itself, what should follow, the trained model and three edits
LINKS = 8  # further sources than these are in the page's JSON files


@cache
def environment() -> Environment:
    """The templates of `page/templates`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("tinymem.report.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    found.filters |= {
        "anchor": anchor,
        "spans": spans_of,
        "raw_json": raw_json,
        "targets": targets,
        "counted": counted,
        "lines": lines_of,
        "visible": visible,
    }
    found.globals |= {"LINKS": LINKS, "SAID": SAID}
    return found


def fill(name: str, **values: object) -> str:
    """A template with its values."""
    return environment().get_template(name).render(values)


def to_html(table: Table, links: Mapping[str, str]) -> str:
    """A titled table that scrolls on narrow screens, with its notes below; `links` has the URLs of the sources that are shown."""
    parts: Any = environment().get_template("parts.html").module
    return str(parts.table(table, links))


def targets(links: Mapping[str, str], sources: Sequence[str]) -> list[tuple[str, str]]:
    """The sources that the page shows, each with its URL: the one mapping from a number to the rows behind it."""
    return [(source, links[source]) for source in sources if source in links]


def raw_json(text: str) -> Markup:
    """JSON that is safe in an element; quotes stay, as half of JSON is quotes."""
    from markupsafe import Markup

    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
