"""`tinymem report` and `tinymem compare`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import Format, MaxSize, Out, Plugins, PrintJson, ReportFormat, a_file, load_plugins, size_in_bytes, words
from tinymem.cli.printing import check_folder, check_out, chosen, print_rows, print_tables_as
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.results.collect import Results

Tables = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Names with commas between: variants, 1, 2, 3, best, pareto, metrics, returns, inj, del, 5, 6, 7, 8, 9, projection, "
        "a plugin's; or all. Those of cost (6 to projection) are made only where named, with all, or with --machine.",
    ),
]
Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="PLACE...", help="Folders of runs or sweeps, or of such folders; checkpoints, also as ORG/NAME[@REVISION] of the Hub."
    ),
]


def report(
    folders: Folders,
    output: ReportFormat = "table",
    tables: Tables = "",
    out: Out = None,
    machine: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=a_file, help="YAML with the machine's power, for the tables of cost.")
    ] = None,
    plugin: Plugins = None,
    max_size: MaxSize = None,
    json: PrintJson = False,
) -> None:
    """Show results. One run: its rows. Several runs or a sweep, or with --tables: how the runs' models differ, and the paper's tables.

    --out is a file to write instead of printing. A folder (a name without suffix) gets tables and figures in every format; with --format
    html the page alone.
    """
    load_plugins(plugin)
    output, folder = chosen(output, json), out is not None and (out.is_dir() or not out.suffix)
    if output in ("png", "svg"):
        _write_figures(folders, output, out, max_size)
        return
    whole = folder and output == "table"
    if folder and output in ("table", "html"):
        check_folder(out)
        out = out / "report.html" if out and output == "html" else out
    else:
        check_out(out, output, "--out", "; without --format a folder gets every format" if folder else "")
    if not (whole or tables or machine) and len(folders) == 1 and _is_run(folders[0]):
        print_rows(folders[0], output, out)
        return
    from tinymem.report.energy import load_machine
    from tinymem.report.tables.catalogue import tables_of
    from tinymem.report.tables.registry import TABLES

    results = _results(folders, max_size)
    names = None if not tables else TABLES.names() if tables == "all" else words(tables) or [tables]
    found = tables_of(results, names, machine=load_machine(machine) if machine else None)
    if not found:
        wanted = f"table {tables}" if tables not in ("", "all") else "tables"
        none = "none; name runs or sweeps, or one checkpoint of a folder"
        got = f"{counted(len(results.rows), 'row')} that give none{_why_none(results, names or [])}" if results.rows else none
        raise UserError(f"expected rows for {wanted} in {', '.join(map(str, folders))}, found {got}")
    if out is not None and whole:
        from tinymem.report.write import write_all

        for path in write_all(results, found, out):
            echo(path)
    elif output == "html":
        from tinymem.report.page.document import write_page

        target = out or _folder_of_runs(folders) / "report.html"
        write_page(results, found, target)
        echo(target)
    else:
        print_tables_as(found, output, out)


def _why_none(results: Results, names: Collection[str]) -> str:
    """The limit of perplexity that leaves out all results of tables of best runs, if it does, and what to try."""
    from tinymem.report.configurations import groups_of
    from tinymem.report.selection import PERPLEXITY_LIMIT

    settings = [(group, setting) for group in groups_of(results) for found in group.settings.values() for setting in found]
    edited = [(group.perplexity_limit, c) for group, setting in settings if (c := setting.candidate()) is not None]
    if (
        not edited
        or not {"1", "best"} & {*names}
        or not all(limit and c.metric == "perplexity" and c.performance_after >= limit for limit, c in edited)
    ):
        return ""
    lowest = min(c.performance_after for _, c in edited)
    wanted = f"a best run of a model made elsewhere must be below {PERPLEXITY_LIMIT:g} as in the paper"
    return (
        f": the lowest perplexity after an edit is {lowest:,.1f}, and {wanted}; try --tables pareto, which has no limit, or milder options"
    )


def _results(places: list[Path], max_size: str | None) -> Results:
    """The results of folders, and of models of the Hub, which are fetched."""
    from tinymem.hub.names import is_hub_name
    from tinymem.results.collect import load_results

    if not any(_is_checkpoint(place) or is_hub_name(str(place)) for place in places):
        return load_results(places)
    from tinymem.runs.checkpoint_rows import results_of_places

    return results_of_places(places, max_size=size_in_bytes(max_size))


def _write_figures(folders: list[Path], format: str, out: Path | None, max_size: str | None) -> None:
    """Write the figures that the rows allow to a folder, each with its CSV and JSON; list the others on standard error."""
    from tinymem.report.figures.catalogue import figures_of
    from tinymem.report.figures.files import write_figures

    check_folder(out)
    figures, skipped = figures_of(_results(folders, max_size))
    for figure in skipped:
        echo(f"not drawn: {figure.name}: {figure.reason}", err=True)
    if not figures:
        raise UserError(f"expected rows for a figure in {', '.join(map(str, folders))}, found none; run some methods first")
    beside = folders[0] if folders[0].is_dir() and not _is_checkpoint(folders[0]) else Path()
    for path in write_figures(figures, out or beside / "figures", (format, "csv", "json")):
        echo(path)


def compare(
    folders: Folders,
    other: Annotated[Literal["published"], typer.Option("--with", help="What to compare with: the paper's tables.")] = "published",
    output: Format = "table",
    out: Out = None,
    plugin: Plugins = None,
    max_size: MaxSize = None,
    json: PrintJson = False,
) -> None:
    """Our rows beside the paper's, with the difference, and what is known of the published numbers.

    --out is a file to write instead of printing.
    """
    from tinymem.report.compare import compare_with_published

    output = chosen(output, json)
    check_out(out, output)
    load_plugins(plugin)
    results = _results(folders, max_size)
    if not results.rows:
        places = ", ".join(map(str, folders))
        raise UserError(f"expected rows of methods in {places}, found none; run some methods first, or name runs or sweeps")
    found, unmatched = compare_with_published(results)
    if found or output != "table":
        print_tables_as(found, output, out)
    for line in unmatched:
        echo(line, err=output != "table" or out is not None)


def _is_run(path: Path) -> bool:
    """Whether a path is a run's folder, or an invalid one whose error the reader of runs explains; no checkpoint or name of the Hub."""
    from tinymem.hub.names import is_hub_name

    if _is_checkpoint(path) or is_hub_name(str(path)):
        return False
    return (path / "recipe.yaml").is_file() or not (path.is_dir() and _holds_others(path))


def _is_checkpoint(path: Path) -> bool:
    return (path / "config.json").is_file()


def _folder_of_runs(places: list[Path]) -> Path:
    """The only place if it is a folder of runs or a sweep's; else the working folder: a run has a page of its own."""
    own = len(places) == 1 and places[0].is_dir() and not (places[0] / "recipe.yaml").is_file() and not _is_checkpoint(places[0])
    return places[0] if own else Path()


def _holds_others(path: Path) -> bool:
    from tinymem.results.collect import holds_results

    return holds_results(path) or any(holds_results(folder) for folder in path.iterdir() if folder.is_dir())
