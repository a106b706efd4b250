"""Every recipe key that a hint, an error message or a help text of the package names is a key of the recipe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from sources import trees

from tinymem.recipe.kinds import KindSection
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import SweepRecipe

KEY = re.compile(r"(?<![\w./{])(data|artifacts|model|training|evaluation|mitigation|limits)((?:\.[a-z_]\w*)+)(?![\w(/])")
FILES = (".py", ".yaml", ".yml", ".json", ".jsonl", ".safetensors")
ATTRIBUTES = {"model.layers", "model.decoder.layers"}  # where Llama and OPT of transformers have their blocks


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The recipe's sections in a type such as `tuple[Method, ...] | None`; of a list of kinds, every registered one."""
    if isinstance(annotation, type) and issubclass(annotation, KindSection):
        yield from (annotation.registry.get(name) for name in annotation.registry.names())
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def is_key(section: type[BaseModel], words: list[str]) -> bool:
    """Whether a path of names leads through a section's fields; in a list of sections, the kind comes first."""
    if not words:
        return True
    name, *rest = words
    if name not in section.model_fields:
        return False
    below = list(models_in(section.model_fields[name].annotation))
    if rest and below and "kind" in below[0].model_fields and name in ("artifacts", "regularizers"):
        below, rest = [model for model in below if rest[0] in get_args(model.model_fields["kind"].annotation)], rest[1:]
        return any(is_key(model, rest) for model in below)
    return not rest or any(is_key(model, rest) for model in below)


def named_keys(text: str) -> Iterator[str]:
    """Recipe keys in a text: `training.epochs`, not the module `tinymem.training.loop` nor the file `model.yaml`."""
    for found in KEY.finditer(text):
        if not found.group().endswith(FILES):
            yield found.group()


def texts(tree: ast.AST) -> Iterator[str]:
    """String literals and the literal parts of f-strings, without docstrings (which name modules too)."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@cache
def keys_of_the_package() -> list[tuple[str, str]]:
    """Module and key."""
    found = {(path, key) for path, tree in trees().items() for text in texts(tree) for key in named_keys(text)}
    return sorted((module, key) for module, key in found if key not in ATTRIBUTES)


@pytest.mark.slow
def test_keys_that_the_package_names_exist() -> None:
    wrong = [(module, key) for module, key in keys_of_the_package() if not any(is_key(r, key.split(".")) for r in (Recipe, SweepRecipe))]
    assert not wrong, "a module names a key, which no recipe has"


@pytest.mark.slow
def test_the_scan_finds_keys_and_tells_wrong_ones() -> None:
    found = {key for _, key in keys_of_the_package()}
    assert {"training.keep_epochs", "data.row_tokens"} <= found and len(found) > 15
    assert list(named_keys("needs (training.keep in the recipe), --set training.epochs=3; tinymem.training.loop, model.yaml")) == [
        "training.keep", "training.epochs",
    ]  # fmt: skip
    for key, there in (
        ("training.keep", False), ("training.keep_epochs", True), ("artifacts.noise.rows", True), ("artifacts.noise.trigger", False),
        ("artifacts.backdoor.trigger", True), ("training.regularizers.goldfish.k", True), ("data.tokenizer", True), ("data.nothing", False),
        ("training.energy.pue", True), ("training.epochs.more", False),
    ):  # fmt: skip
        assert is_key(Recipe, key.split(".")) is there, key
