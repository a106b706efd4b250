"""Types of JSON values, for data that really is arbitrary JSON; whatever has known keys is a dataclass, a TypedDict or a pydantic model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]


def plain_json(value: object, gap: Callable[[str], object], at: str = "") -> Json:
    """A value as JSON can hold it: NumPy's and torch's numbers and arrays become Python's, NaN and infinity null.

    Args:
        value: anything made of mappings, sequences, numbers and text.
        gap: called with the place of each NaN or infinity, such as `.all.share`.
        at: the place of the value itself.

    Raises:
        TypeError: a value of another type.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_json(inner, gap, f"{at}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner, gap, f"{at}[{place}]") for place, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        gap(at)
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"JSON has no {type(value).__name__}{at and f' (at {at})'}")
