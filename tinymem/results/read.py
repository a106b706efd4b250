"""The one reader of result rows: JSON to typed rows, with every column checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from tinymem.errors import UserError, did_you_mean
from tinymem.results.columns import ACCURACY, PROMPT_RATES, RATES, REQUIRED
from tinymem.results.row import KINDS, MeasuredRow, ResultRow
from tinymem.results.share import Share
from tinymem.runtime.json import Json, JsonObject


def _json_types(hint: object) -> tuple[type, ...]:
    """`float | None` -> (float, int, NoneType): whole numbers are floats too."""
    if get_origin(hint) in (Union, UnionType):
        return tuple({t: None for part in get_args(hint) for t in _json_types(part)})
    if get_origin(hint) is Literal:
        return (str,)
    plain = get_origin(hint) or hint
    if plain is float:
        return (float, int)
    return (dict,) if plain not in (str, int, bool, NoneType, list) else (plain,)


def read_row(values: object, where: str, again: str = "make it again") -> ResultRow:
    """A row from JSON; intervals (`with_intervals`) follow from counts, and are not read.

    Args:
        values: a JSON object; its `kind` names the kind of row, by default a mitigation's.
        where: the file, for the message of an error.
        again: the advice in that message about a damaged file.

    Raises:
        UserError: not an object, a column that is missing or unknown, or a value of another type.
    """
    if not isinstance(values, dict):
        raise UserError(f"expected a result row in {where}, got {type(values).__name__}; {again}")
    columns = dict(values)
    kind = KINDS.get(str(columns.pop("kind", "mitigation")))
    if kind is None:
        raise UserError(f"expected a row of kind {', '.join(KINDS)} in {where}, got '{values['kind']}'; {again}")
    if missing := [name for name in REQUIRED if columns.get(name) is None]:
        raise UserError(f"expected a row with {', '.join(missing)} in {where}, got one without; {again}")
    known = COLUMNS[kind.kind]
    for name in INTERVALS & columns.keys():
        del columns[name]
    for name, value in columns.items():
        if name not in known:
            raise UserError(f"unknown column '{name}' in {where}; {did_you_mean(name, known)}")
        if not isinstance(value, known[name]) or (isinstance(value, bool) and bool not in known[name]):
            raise UserError(f"expected {known[name][0].__name__} in column '{name}' of {where}, got {str(value)[:40]!r}; {again}")
    return kind(**columns)


def read_measured(values: object, where: str, again: str = "make it again") -> MeasuredRow:
    """A row of a method or of a trained model from JSON.

    Raises:
        UserError: as `read_row`; also another kind of row.
    """
    row = read_row(values, where, again)
    if not isinstance(row, MeasuredRow):
        raise UserError(f"expected rows of methods in {where}, got one of kind {row.kind}; {again}")
    return row


def as_json(rows: Sequence[ResultRow]) -> list[JsonObject]:
    """The rows as JSON objects, without missing optional columns."""
    return [row.as_dict() for row in rows]


SHARES = (*RATES.values(), *PROMPT_RATES.values(), ACCURACY)


def with_intervals(value: JsonObject) -> JsonObject:
    """A row or a measurement as JSON, in which every share that has its count and rows has its 95 % interval in [0, 1] too.

    In columns of their own, `<share>_low_<moment>` and `<share>_high_<moment>`; in nested columns next to the count, as `low` and `high`.
    """
    return {**{key: _nested(inner) for key, inner in value.items()}, **_flat_intervals(value)}


def _nested(value: Json) -> Json:
    if isinstance(value, list):
        return [_nested(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {key: _nested(inner) for key, inner in value.items()}
    count, total = value.get("count"), value.get("rows", value.get("tokens"))
    return found | (_ends(count, total, "low", "high") if "share" in value else {})


def _flat_intervals(value: JsonObject) -> JsonObject:
    found: JsonObject = {}
    for rate in SHARES:
        for moment in ("before", "after"):
            if rate.rows in value:
                ends = (f"{rate.share}_low_{moment}", f"{rate.share}_high_{moment}")
                found |= _ends(value.get(f"{rate.count}_{moment}"), value[rate.rows], *ends)
    return found | _ends(value.get("accuracy_count"), value.get("accuracy_tokens"), "accuracy_low", "accuracy_high")


def _ends(count: Json, rows: Json, low: str, high: str) -> JsonObject:
    interval = Share(count, rows).interval if isinstance(count, int) and isinstance(rows, int) else None
    return {low: interval[0], high: interval[1]} if interval else {}


def columns_in(rows: Sequence[JsonObject]) -> list[str]:
    """Names of the columns of rows, each once, in order."""
    return list(dict.fromkeys(name for row in rows for name in row))


COLUMNS = {
    name: {f.name: _json_types(hints[f.name]) for f in fields(kind)} for name, kind in KINDS.items() for hints in [get_type_hints(kind)]
}
"""Per kind of row, its columns with the JSON types that each may hold."""
INTERVALS = {f"{rate.share}_{end}_{moment}" for rate in SHARES for end in ("low", "high") for moment in ("before", "after")}
"""Columns that `with_intervals` adds."""
