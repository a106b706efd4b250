"""`tinymem methods`: list and describe the registered methods."""

from __future__ import annotations

from typing import Annotated

import typer

from tinymem.cli.options import Plugins, load_plugins

methods_app = typer.Typer(help="What methods there are.", invoke_without_command=True, pretty_exceptions_enable=False)


@methods_app.callback()
def methods(context: typer.Context, plugin: Plugins = None) -> None:
    """List the registered methods with their properties (the paper's Table 5)."""
    load_plugins(plugin)
    if context.invoked_subcommand is None:
        from tinymem.mitigation.method_pages import print_catalogue

        print_catalogue()


@methods_app.command("show")
def methods_show(name: Annotated[str, typer.Argument(help="A method's name.")]) -> None:
    """Idea, formula, source, cost, options with defaults, and the paper's grid of one method."""
    from tinymem.mitigation.method_pages import describe

    print(describe(name))
