"""The one reader of result rows: JSON to typed rows, with every column checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from tinymem.errors import UserError, did_you_mean
from tinymem.results.columns import REQUIRED
from tinymem.results.row import KINDS, MeasuredRow, ResultRow
from tinymem.runtime.json import JsonObject


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
    """A row from JSON.

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


def columns_in(rows: Sequence[ResultRow]) -> list[str]:
    """Names of the columns that the rows write, each once, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.as_dict()))


COLUMNS = {
    name: {f.name: _json_types(hints[f.name]) for f in fields(kind)} for name, kind in KINDS.items() for hints in [get_type_hints(kind)]
}
"""Per kind of row, its columns with the JSON types that each may hold."""
