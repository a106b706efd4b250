"""Copies of models: what `copy.deepcopy` makes, in less than half the time for small models."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)
OWN_WAYS = (
    "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__",
)  # fmt: skip
"""Methods by which a class says how it is copied."""


def copied(model: M) -> M:
    """A copy of a model with all that it holds, as `copy.deepcopy` makes it; nothing of it is the original's.

    A module holds a dozen dicts of hooks, and `deepcopy` is slow at objects without entries: those are made anew here.
    """
    found: M = _copied(model, {})
    return found


def _copied(module: Any, memo: dict[int, Any]) -> Any:
    kind: Any = type(module)
    if id(module) in memo or not isinstance(module, nn.Module) or _has_own_way(kind):
        return deepcopy(module, memo)
    new = kind.__new__(kind)
    memo[id(module)] = new
    for name, value in vars(module).items():
        if name == "_modules":
            copy: Any = type(value)()
            copy.update((child, _copied(part, memo)) for child, part in value.items())
        else:
            empty = type(value) in (dict, OrderedDict) and not value
            copy = memo.setdefault(id(value), type(value)()) if empty else deepcopy(value, memo)
        vars(new)[name] = copy
    return new


def _has_own_way(kind: type[nn.Module]) -> bool:
    """Whether a class of modules is copied otherwise than by its attributes."""
    changed = any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in OWN_WAYS)
    return changed or any(vars(base).get("__slots__") for base in kind.__mro__)
