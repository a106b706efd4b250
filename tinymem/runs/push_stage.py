"""The push of a run that ended, where its recipe asks for one (`training.push`)."""

from __future__ import annotations

import warnings
from pathlib import Path

from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe
from tinymem.runtime.progress import Progress


def push_stage(run: Path, recipe: Recipe, progress: Progress) -> None:
    """Publish a run's checkpoints and corpus where its recipe says; a push that fails is a warning, and the same run tries again."""
    if recipe.training.push is None:
        return
    from tinymem.hub.upload import push
    from tinymem.runs.publish import Choices, plan_of

    try:
        push(plan_of(run, recipe.training.push, Choices()), say=progress.say)
    except UserError as error:
        by_hand = f"the same by hand, with all options: tinymem push {run} --repo {recipe.training.push}"
        warnings.warn(f"{run} is complete, and not pushed: {error}; {by_hand}", stacklevel=2)
