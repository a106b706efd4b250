"""`tinymem methods`: list and describe the registered methods."""

from __future__ import annotations

from typing import Annotated

import typer

from tinymem.cli.options import Format, Plugins, PrintJson, load_plugins
from tinymem.cli.printing import chosen, listing, print_listing
from tinymem.runtime.streams import echo

methods_app = typer.Typer(help="What methods there are.", invoke_without_command=True, pretty_exceptions_enable=False)


@methods_app.callback()
def methods(context: typer.Context, plugin: Plugins = None, output: Format = "table", json: PrintJson = False) -> None:
    """List the registered methods with their properties (the paper's Table 5)."""
    output = chosen(output, json)
    load_plugins(plugin)
    if context.invoked_subcommand is None:
        from tinymem.mitigation.method_pages import COLUMNS, NOTE, catalogue

        print_listing(listing("Methods", COLUMNS, catalogue(), notes=[NOTE]), output)


@methods_app.command("show")
def methods_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method's name.")],
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Idea, formula, source, cost, options with defaults, and the paper's grid of one method."""
    from tinymem.mitigation.method_pages import FACTS, describe, facts

    output = chosen(output, json)
    load_plugins(plugin)
    if output == "table":
        echo(describe(name))
    else:
        print_listing(listing(name, FACTS, facts(name)), output)
