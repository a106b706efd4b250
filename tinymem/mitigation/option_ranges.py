"""Least values of numeric options, checked when a config is made: smaller ones would end in a traceback, or have no effect."""

from __future__ import annotations

from typing import Any

from tinymem.errors import UserError

SHARED: dict[str, float] = {
    "epochs": 0,
    "batch_size": 1,
    "copies": 1,
    "per_step": 1,
    "steps": 1,
    "learning_rate": 0,
    "momentum": 0,
    "penalty": 0,
    "weight_decay": 0,
}
"""Options that mean the same wherever a method has them."""


def check_least(config: Any, **least: float) -> None:
    """Raise UserError if an option of the config is below its bound in `SHARED` or `least`; None or a word is one that the method chooses.

    Raises:
        UserError: one is less, or not a number.
    """
    for option, bound in {**SHARED, **least}.items():
        value = getattr(config, option, None)
        if not isinstance(value, str | None) and not value >= bound:
            raise UserError(f"expected {option} of at least {bound:g}, got {value:g}")


def check_above(config: Any, **bounds: float) -> None:
    """Raise UserError if an option is not above its bound.

    Raises:
        UserError: one is not.
    """
    for option, bound in bounds.items():
        if not (value := getattr(config, option)) > bound:
            raise UserError(f"expected {option} above {bound:g}, got {value:g}")
