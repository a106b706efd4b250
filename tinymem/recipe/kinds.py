"""Sections of which a recipe lists several kinds, artifacts and regularizers: `kind` names the class that holds the options.

A class registers itself in its own file (`@artifact`, `@regularizer`), so that a plugin's kinds are checked like the built-in ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self, TypeVar

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tinymem.errors import UserError
from tinymem.recipe.data import Section
from tinymem.registry import Registry, origin_of, plugin_of


class KindSection(Section):
    """The options of one kind of a list; a subclass gives `kind` its name: `kind: Literal["my-kind"] = "my-kind"`."""

    registry: ClassVar[Registry[Any]]
    """The registered kinds; set by the class of a recipe's list."""
    origin: ClassVar[str] = ""
    """File and name of the defining class; registering the same origin again is no clash of names."""

    kind: str

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check the values against the registered class that their `kind` names."""
        if "registry" not in vars(cls) or not isinstance(values, dict):
            return handler(values)
        if not isinstance(values.get("kind"), str):
            raise PydanticCustomError("kind_missing", "expected a kind")
        found: type[Self] = cls.registry.get(values["kind"])
        try:
            return found.model_validate(values)
        except ValidationError as error:
            raise _inside(values["kind"], error) from None


def short_kinds(values: Any) -> Any:
    """A list of kinds from its short forms `noise`, `[noise]`, `[{noise: {rows: 9}}]` and `{noise: {rows: 9}}`; others as they are."""
    if isinstance(values, dict) and "kind" not in values:
        values = [{kind: options} for kind, options in values.items()]
    return [_short_kind(value) for value in ([values] if isinstance(values, str) else values)] if isinstance(values, str | list) else values


def _short_kind(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and len(value) == 1 and "kind" not in value:
        kind, options = next(iter(value.items()))
        if options is None or isinstance(options, dict):
            return {"kind": kind, **(options or {})}
    return value


def _inside(kind: str, error: ValidationError) -> ValidationError:
    """The errors with the kind added to their locations: `artifacts.0.noise.rows`."""
    lines = [
        InitErrorDetails(type=line["type"], loc=(kind, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))
        for line in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, lines)


K = TypeVar("K", bound=KindSection)


def register_kind(section: type[K], key: str) -> type[K]:
    """Add a class to the registry of its list.

    Raises:
        UserError: it has no default `kind`, or another class has the name.
    """
    name = section.model_fields["kind"].default
    if not isinstance(name, str):
        raise UserError(f'expected `kind: Literal["name"] = "name"` in {key} {section.__name__}, found none; add it')
    section.origin = origin_of(section)
    section.registry.register(name, section)
    return section


def plugins_of(sections: Iterable[KindSection]) -> tuple[str, ...]:
    """SHA-256 of the plugins that define the kinds of some sections, in the order of the hashes."""
    return tuple(sorted({plugin.sha256 for section in sections if (plugin := plugin_of(type(section)))}))


class ArtifactSection(KindSection):
    """One entry of a recipe's `artifacts`; `tinymem.data.artifact` defines the behavior of its kinds."""


class RegularizerSection(KindSection):
    """One entry of a recipe's `training.regularizers`; `tinymem.training.regularizer_section` defines how its kinds are made."""

    exclusive: ClassVar[str | None] = None
    """Effect of a kind as a verb phrase ("tie the same neurons"), for errors; kinds of equal effect exclude each other in a recipe."""

    def refusal(self, row_tokens: int) -> str | None:
        """Error message if the options do not suit rows of `row_tokens` tokens; else None."""
        return None


ARTIFACTS: Registry[type[ArtifactSection]] = Registry("artifact", packages=("tinymem.data.artifacts",), entry_points="tinymem.artifacts")
REGULARIZERS: Registry[type[RegularizerSection]] = Registry(
    "regularizer", packages=("tinymem.training.regularizers",), entry_points="tinymem.regularizers"
)
ArtifactSection.registry, RegularizerSection.registry = ARTIFACTS, REGULARIZERS
