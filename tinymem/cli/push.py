"""`tinymem push`: a run, a checkpoint or a corpus to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import CorpusPath, DryRun, License, Plugins, Private, Remeasure, Replace, load_plugins
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.hub.upload import Plan

Place = Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT|CORPUS", help="A folder; of a run its checkpoints and its corpus.")]


def push(
    place: Place,
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="Where to; of a run the corpus goes to ORG/NAME-corpus.")],
    private: Private = False,
    replace: Replace = False,
    dry_run: DryRun = False,
    remeasure: Remeasure = False,
    corpus: CorpusPath = None,
    license_name: License = None,
    plugin: Plugins = None,
) -> None:
    """Publish a run, a checkpoint or a corpus on the Hugging Face Hub, with its card; a push that was cut goes on when run again.

    The login is the client's own: `hf auth login`.
    """
    from tinymem.runs.publish import Choices, plan_of

    load_plugins(plugin)
    send(plan_of(place, repo, Choices(license_name, remeasure, corpus)), private=private, replace=replace, dry_run=dry_run)


def send(plan: Plan, *, private: bool, replace: bool, dry_run: bool) -> None:
    """Upload a plan and print a line for each branch; or only say what it would be."""
    from tinymem.hub.upload import push

    if dry_run:
        for line in plan.lines():
            echo(line)
        return
    for repository, commits in push(plan, private=private, replace=replace, say=lambda line: echo(line, err=True)).items():
        for branch, commit in commits.items():
            echo(f"{repository}@{branch} {commit}")
