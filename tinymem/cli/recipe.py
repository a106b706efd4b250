"""`tinymem recipe`: the keys of recipes, and their schema for editors. The verbs import what they need themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import Format, Plugins, PrintJson, load_plugins
from tinymem.cli.printing import chosen, listing, print_json, print_listing, print_tables_as
from tinymem.cli.template import template_text
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.recipe.keys import Key
    from tinymem.report.tables.table import Table

recipe_app = typer.Typer(help="The keys of recipes.", no_args_is_help=True, pretty_exceptions_enable=False)

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="A section, a kind or a key: training, goldfish, data.row_tokens, sweep.")]
Kind = Annotated[
    Literal["run", "sweep", "localization", "layers", "classes"],
    typer.Option(
        "--kind",
        help="Recipes of tinymem run and train, of tinymem sweep, of tinymem localize inj and del, or of localize layers or classes.",
    ),
]


@recipe_app.command()
def keys(name: Name = None, output: Format = "table", json: PrintJson = False, plugin: Plugins = None) -> None:
    """Every key of recipes with type, default, range and what it means, from the models themselves.

    --format markdown without a NAME is docs/recipes.md.
    """
    from tinymem.recipe.keys import recipe_keys

    output = chosen(output, json)
    load_plugins(plugin)
    found = recipe_keys(name)
    if output == "markdown":
        text = markdown(found)
        echo((text if name else template_text("recipes.md").replace("@KEYS@\n", text)).removesuffix("\n"))
    elif output == "json":
        print_json([key.as_json() for key in found])
    elif output == "csv":
        print_listing(_table("keys", found, lambda key: key.key), output)
    else:
        print_tables_as(_tables(found), output, None)


@recipe_app.command()
def schema(kind: Kind = "run", plugin: Plugins = None) -> None:
    """Print a JSON schema of recipes, with which editors complete and check them."""
    from tinymem.recipe.schema import recipe_schema

    load_plugins(plugin)
    print_json(recipe_schema(kind))


def markdown(keys: list[Key]) -> str:
    """Keys as tables of Markdown, one for each section."""
    parts = []
    for group in dict.fromkeys(key.group for key in keys):
        head = [f"### {group}\n", "| key | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
        parts.append("\n".join([*head, *(_line(key) for key in keys if key.group == group)]) + "\n")
    return "\n".join(parts)


def _line(key: Key) -> str:
    default, limits = (f"`{text}`" if text not in ("", "required") else text for text in (key.default_text, key.range))
    cells = (f"`{key.key}`", key.type, default, limits, key.about)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _tables(keys: list[Key]) -> list[Table]:
    """A table for each section, in which its keys go by their last names."""
    groups = dict.fromkeys(key.group for key in keys)
    return [_table(group, [key for key in keys if key.group == group], lambda key: key.name) for group in groups]


def _table(title: str, keys: list[Key], name: Callable[[Key], str]) -> Table:
    heads = ("key", "type", "default", "range", "meaning")
    rows = [(name(key), key.type, key.default_text, key.range, key.about) for key in keys]
    return replace(listing(title, heads, rows), name=title, key=re.sub("[^a-z]+", "-", title))
