"""Where methods are found, and whether a name is one's, seen without importing any: they bring torch along, which takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tinymem.errors import UserError, did_you_mean

PACKAGES = tuple(f"tinymem.mitigation.methods.{kind}" for kind in ("neuron", "weight", "baselines", "finetuning", "curvature"))
ENTRY_POINTS = "tinymem.unlearners"


def check_method_names(names: Iterable[str]) -> None:
    """Raise UserError for the name of no method. Once methods can be registered, as by plugins, the registry does it, and this nothing."""
    if "tinymem.mitigation.method" in sys.modules:
        return
    from tinymem.registry import Registry

    known = Registry[object]("method", packages=PACKAGES, entry_points=ENTRY_POINTS).names()
    for name in names:
        if name not in known:
            raise UserError(f"unknown method '{name}'; {did_you_mean(name, known)}")
