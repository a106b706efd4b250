"""Options of methods: the base class of every method's config, and the grids that a config declares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path, PurePath
from typing import ClassVar, Protocol, runtime_checkable

from tinymem.errors import UserError
from tinymem.mitigation.option_ranges import check_least
from tinymem.runtime.files import content_sha256
from tinymem.runtime.json import JsonObject

Grid = dict[str, tuple[float, ...]]
"""Values to try of each option: a sweep runs their product."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Options of a method: derive from it with a frozen dataclass that has a field for each option.

    Attributes:
        grid: values of the paper's experiments, option by option; empty: the defaults alone.
        published_grid: values of the published runs, where they differ from the paper's.
    """

    grid: ClassVar[Grid] = {}
    published_grid: ClassVar[Grid] = {}

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if hasattr(value, "tolist"):  # NumPy's and torch's numbers: rows and ids hold Python's
                object.__setattr__(self, option.name, value := value.tolist())
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"expected a finite number as option '{option.name}', got {value}")
        check_least(self)
        self.as_json()  # what no row can hold is refused before any work

    def as_json(self) -> JsonObject:
        """The options as ids, rows and workers hold them: a path is its text.

        Raises:
            UserError: an option of another type than JSON's, paths and enumerations.
        """
        values: JsonObject = json.loads(json.dumps(asdict(self), default=_as_json))
        return values

    def computed_in(self, device_type: str | None, *, ours: bool) -> str | None:
        """What the method computes in on a kind of device, such as `bf16`, where no option says it; None: in the type of the weights.

        `ours`: the model was trained by a recipe, so that it is a GPT of TinyMem.

        It goes into the id of a run, so that rows that an older TinyMem computed otherwise are measured again. A config whose method has
        a precision or a way of its own on some device overrides this.
        """
        return None

    def epoch_of_code(self) -> int:
        """Raised when code changes what the method does with these options alone, so that their stored rows are not taken for new ones."""
        return 0

    def files(self) -> dict[str, list[Path]]:
        """The files and folders that options name, by option: all paths. A config that names some in words overrides this."""
        named = {f.name: [*_paths(getattr(self, f.name))] for f in fields(self)}
        return {option: paths for option, paths in named.items() if paths}

    def files_content(self) -> dict[str, list[str | None]]:
        """SHA-256 of each of `files`, null where there is none: a result depends on what they hold, whatever they are called."""
        return {option: [content_sha256(path) for path in paths] for option, paths in self.files().items()}


def missed_option(config: type[MethodConfig]) -> str | None:
    """An attribute that looks like an option and that the dataclass does not have: without a type, or in a class without the decorator.

    What some class of it names as a ClassVar, such as `grid`, and CONSTANTS are none.
    """
    typed = {owner: vars(owner).get("__annotations__", {}) for owner in config.__mro__[:-1]}
    shared = {n for names in typed.values() for n, kind in names.items() if "ClassVar" in str(kind)}
    for owner, names in typed.items():
        plain = [n for n, value in vars(owner).items() if n not in names and not n.startswith("_") and isinstance(value, _PLAIN)]
        undecorated = [] if "__dataclass_fields__" in vars(owner) else list(names)
        if missed := [n for n in (*plain, *undecorated) if n not in shared and not n.isupper()]:
            return missed[0]
    return None


_PLAIN = (bool, int, float, str, list, tuple, dict, PurePath, type(None))


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, PurePath):
        yield Path(value)
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _paths(part)


def _as_json(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise UserError(f"expected options that JSON can hold, or paths, got a {type(value).__name__}; try numbers, words or lists of them")


@runtime_checkable
class HasEpochs(Protocol):
    """A config with the option `epochs`."""

    @property
    def epochs(self) -> int:
        """Number of passes over the rows to forget."""
