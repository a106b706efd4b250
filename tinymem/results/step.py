"""The step of training in the name of a revision or a folder."""

from __future__ import annotations

import re

STEP = re.compile(r"(?:(.*)[-_@])?step-?(\d{1,12})")
"""How Pythia's branches name steps of training; a folder has the model's name before it."""


def step_of(name: str) -> int | None:
    """The step of training that a revision or a folder is named after; None for other names.

    >>> step_of("step143000"), step_of("neox-14m-step-6000"), step_of("main")
    (143000, 6000, None)
    """
    found = STEP.fullmatch(name)
    return int(found[2]) if found else None


def series_of(name: str) -> str:
    """A model's name without the step of training in it.

    >>> series_of("EleutherAI/pythia-2.8b-deduped@step143000"), series_of("neox-14m-step-6000"), series_of("gpt2")
    ('EleutherAI/pythia-2.8b-deduped', 'neox-14m', 'gpt2')
    """
    found = STEP.fullmatch(name)
    return (found[1] or "model") if found else name
