"""`tinymem zoo`: the shipped checkpoints. The verbs import what they need themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.leaderboard import leaderboard
from tinymem.cli.options import (
    CorpusPath,
    DryRun,
    Format,
    License,
    MaxSize,
    PrintJson,
    Private,
    Remeasure,
    Replace,
    Revision,
    Zoo,
    size_in_bytes,
)
from tinymem.cli.printing import chosen, print_json, print_tables_as
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.report.tables.table import Table
    from tinymem.zoo.catalogue import Entry

zoo_app = typer.Typer(help="The shipped checkpoints.", no_args_is_help=True, pretty_exceptions_enable=False)
zoo_app.command()(leaderboard)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint with recipe.yaml and curve.jsonl.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint, as `tinymem zoo list` has it.")]


@zoo_app.command("list")
def list_checkpoints(zoo: Zoo = None, output: Format = "table", json: PrintJson = False) -> None:
    """List the checkpoints: data, artifact, size, and what they memorized at the end of training."""
    from tinymem.zoo.catalogue import entry_of, names_in, zoo_folder

    output, folder = chosen(output, json), zoo_folder(zoo)
    entries = [entry_of(folder / name) for name in names_in(folder)]
    if not entries:
        raise UserError(f"expected checkpoints in {folder}, found none; name the zoo/ of a clone of the repository, or add one by zoo add")
    if output == "json":
        print_json([entry.as_json() for entry in entries])
    else:
        print_tables_as([_table(entries, folder)], output, None)


@zoo_app.command()
def verify(
    zoo: Zoo = None, measure: Annotated[bool, typer.Option("--measure", help="Measure the models again, beside their curves.")] = False
) -> None:
    """Check the hash of every file against the manifest. Exit code 1 if one differs, is missing, or is new."""
    from tinymem.zoo.catalogue import names_in, zoo_folder
    from tinymem.zoo.manifest import faults

    folder = zoo_folder(zoo)
    found = faults(folder)
    for fault in found:
        echo(fault, err=True)
    names = names_in(folder)
    echo(f"{counted(len(names), 'checkpoint')}, {counted(len(found), 'changed file')}")
    if measure:
        _measure(folder, names)
    if found:
        raise typer.Exit(1)


@zoo_app.command()
def card(name: Name, zoo: Zoo = None) -> None:
    """Print a checkpoint's card: what it is, what it memorized, how to load it."""
    from tinymem.zoo.card import card_of
    from tinymem.zoo.catalogue import checkpoint_at, zoo_folder

    echo(card_of(checkpoint_at(name, zoo_folder(zoo))).rstrip("\n"))


@zoo_app.command()
def add(folder: Folder, zoo: Zoo = None, corpus: CorpusPath = None) -> None:
    """Copy a checkpoint into the zoo under its folder's name, and store the hashes of its files; one that is there gets new hashes.

    With --corpus a language model gets a sample of its rows: all planted and test rows, and 8,000 clean ones.
    """
    from tinymem.zoo.catalogue import zoo_folder
    from tinymem.zoo.manifest import add

    echo(add(folder, zoo_folder(zoo), corpus))


@zoo_app.command()
def push(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Checkpoints, as `tinymem zoo list` has them.")],
    org: Annotated[str, typer.Option("--org", metavar="ORG", help="Organization or user on the Hub.")],
    zoo: Zoo = None,
    private: Private = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    remeasure: Remeasure = False,
    corpus: CorpusPath = None,
    license_name: License = None,
) -> None:
    """Publish checkpoints on the Hugging Face Hub: a repository a cell, a branch a seed and step, the corpora, and a collection a table."""
    from tempfile import TemporaryDirectory

    from tinymem.cli.push import send
    from tinymem.runs.publish import Choices
    from tinymem.zoo.catalogue import zoo_folder
    from tinymem.zoo.push import plan_of_zoo

    with TemporaryDirectory(prefix="tinymem-") as work:
        plan = plan_of_zoo(names, zoo_folder(zoo), org, Path(work), Choices(license_name, remeasure, corpus))
        send(plan, private=private, replace=replace, dry_run=dry_run)


@zoo_app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME[@REVISION]", help="A published checkpoint.")],
    zoo: Zoo = None,
    revision: Revision = None,
    max_size: MaxSize = None,
) -> None:
    """Take a published checkpoint from the Hub into the zoo, verified."""
    from tinymem.hub.fetch import fetch
    from tinymem.hub.names import hub_name
    from tinymem.zoo.catalogue import zoo_folder
    from tinymem.zoo.pull import pull

    folder = zoo_folder(zoo)
    echo(pull(fetch(hub_name(name, revision), max_size=size_in_bytes(max_size)), folder))


def _measure(folder: Path, names: list[str]) -> None:
    """Print what is memorized now beside the end of the curve, of the models whose rows are here or can be generated."""
    from tinymem.runs.evaluate import evaluate_checkpoint
    from tinymem.zoo.catalogue import entry_of, names_with_rows

    there = names_with_rows(folder)
    for entry in (entry_of(folder / name) for name in names):
        if entry.name not in there:
            echo(f"{entry.name}: not measured, its text is not shipped")
            continue
        now = evaluate_checkpoint(folder / entry.name).memorized
        counts = (
            f"{kind} {now[kind]['count']:,} of {now[kind]['rows']:,}, at training {was['count']:,}" for kind, was in entry.memorized.items()
        )
        echo(f"{entry.name}: {'; '.join(counts)}")


def _table(entries: list[Entry], zoo: Path) -> Table:
    from tinymem.report.tables.table import Cell, Column, Table

    heads = ("name", "data", "artifact", "layers", "seed", "epochs", "% memorized", "accuracy %", "perplexity", "MiB", "folder")
    columns = tuple(Column(head, numeric=2 < i < 10, optional=head == "folder") for i, head in enumerate(heads))
    return Table("zoo", "zoo", f"Checkpoints in {zoo}", columns, tuple(tuple(map(Cell, _words(entry))) for entry in entries))


def _words(entry: Entry) -> list[str]:
    from tinymem.report.cells import number

    memorized = ", ".join(number(None if share["share"] is None else 100 * share["share"]) for share in entry.memorized.values())
    accuracy = number(None if entry.accuracy is None else 100 * entry.accuracy, 2)
    sizes = [str(entry.n_layer), str(entry.seed), f"{entry.epoch:,}"]
    return [
        entry.name,
        entry.data,
        entry.artifact,
        *sizes,
        memorized,
        accuracy,
        number(entry.perplexity, 2),
        f"{entry.mib:.1f}",
        entry.folder,
    ]
