"""The registry: lazy, helpful about names, and open to plugins."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import python
from torch import Tensor

from tinymem.errors import UserError
from tinymem.evaluation.metric import METRICS, metric
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.method import UNLEARNERS, Properties, editor, parse_call, scorer
from tinymem.registry import Registry, load_plugin

MODULE = "from tests_registry import REGISTRY\nREGISTRY.register({name!r}, {value!r})\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """A registry that scans a package with a good module, one that registers nothing, and a private one."""
    package = tmp_path / "scanned_things"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first_thing.py").write_text(MODULE.format(name="first-thing", value="one"))
    (package / "forgetful.py").touch()
    (package / "_private.py").write_text("raise RuntimeError")
    found: Registry[str] = Registry("thing", packages=("scanned_things",))
    holder = type(sys)("tests_registry")
    holder.REGISTRY = found
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "tests_registry", holder)
    for name in [name for name in sys.modules if name.startswith("scanned_things")]:
        monkeypatch.delitem(sys.modules, name)
    return found


def test_names_import_nothing(registry: Registry[str]) -> None:
    assert registry.names() == ["first-thing", "forgetful"]
    assert "scanned_things.first_thing" not in sys.modules
    assert registry.get("first-thing") == "one"


def test_unknown_names(registry: Registry[str]) -> None:
    with pytest.raises(UserError, match="unknown thing 'frist-thing'; did you mean 'first-thing'"):
        registry.get("frist-thing")
    with pytest.raises(UserError, match="known: first-thing, forgetful"):
        registry.get("zzz")
    with pytest.raises(UserError, match="expected the module of thing 'forgetful' to register it"):
        registry.get("forgetful")


def test_duplicates() -> None:
    class Thing:
        def __init__(self, origin: str) -> None:
            self.origin = origin

    registry: Registry[Thing] = Registry("thing")
    registry.register("a", Thing("here"))
    registry.register("a", Thing("here"))  # the same file read again
    with pytest.raises(UserError, match="thing 'a' is registered already"):
        registry.register("a", Thing("elsewhere"))


PLUGIN = '''
from dataclasses import dataclass
from tinymem import MethodConfig, Properties, editor

@dataclass(frozen=True)
class Config(MethodConfig):
    """None."""

@editor({name!r}, config=Config, properties=Properties(unit="model", order="zeroth"))
def method(model, data, config):
    return model
'''


def test_temporary_registrations_are_undone(registry: Registry[str]) -> None:
    registry.register("early", "one")
    with pytest.raises(ZeroDivisionError), registry.temporary():
        registry.register("late", "two")
        assert registry.get("late") == "two"
        assert registry.get("first-thing") == "one"  # imported here for the first time
        raise ZeroDivisionError
    assert registry.names() == ["early", "first-thing", "forgetful"]
    assert registry.get("early") == registry.get("first-thing") == "one"
    with registry.temporary():
        registry.register("late", "three")  # the name is free again
    assert "late" not in registry.names()


@pytest.fixture
def plugged() -> Iterator[None]:
    with UNLEARNERS.temporary():
        yield


@pytest.mark.usefixtures("plugged")
def test_plugins(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name="mine"))
    load_plugin(path)
    load_plugin(path)
    assert "mine" in UNLEARNERS.names() and UNLEARNERS.get("mine").function.__name__ == "method"
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.format(name="mine"))
    assert load_plugin(other) == load_plugin(path), "a copy is the same plugin"
    other.write_text(PLUGIN.format(name="mine") + "# another\n")
    with pytest.raises(UserError, match="method 'mine' is registered already"):
        load_plugin(other)


WRAPPED = """
import torch
from tinymem import AblationConfig, Properties, Scores, scorer
from tinymem.mitigation.methods.neuron import nemo

@scorer("mine", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))
@torch.no_grad()
def mine(model, data, config):
    return Scores("neuron", {})
"""


@pytest.mark.usefixtures("plugged")
def test_functions_under_a_decorator_of_torch_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in paths:
        path.write_text(f"{WRAPPED}# {path.name}")
    load_plugin(paths[0])
    with pytest.raises(UserError, match=r"method 'mine' is registered already by .*one\.py, and .*two\.py has it too"):
        load_plugin(paths[1])
    paths[1].write_text(WRAPPED.replace('"mine"', '"act"').replace("def mine", "def act"))
    with pytest.raises(UserError, match=r"^method 'act' is registered already; choose another name$"):
        load_plugin(paths[1])
    paths[1].write_text(WRAPPED.replace('"mine"', '"nemo"'))
    with pytest.raises(UserError, match=r"^method 'nemo' is registered already; choose another name$"):  # which it has imported
        load_plugin(paths[1])


@pytest.mark.usefixtures("plugged")
def test_a_file_takes_a_name_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="mine") + PLUGIN.format(name="mine"))
    with pytest.raises(UserError, match=r"method 'mine' is registered twice in .*mine\.py"):
        load_plugin(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["a b", "a,b", "../a", "", "-a"])
def test_names_can_be_given_in_lists_and_paths(name: str) -> None:
    with pytest.raises(UserError, match=f"expected letters, digits.* as the name of a thing, got {re.escape(repr(name))}"):
        Registry[str]("thing").register(name, "one")


@pytest.mark.processes
def test_a_plugin_cannot_take_a_built_in_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="act"))
    code = "import sys; from pathlib import Path; from tinymem.registry import load_plugin; load_plugin(Path(sys.argv[1]))"
    done = python("-c", code, tmp_path / "mine.py")  # a fresh process: nothing has asked for the built-in one yet
    assert done.code == 1 and "UserError: method 'act' is registered already" in done.err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("def broken(:", "SyntaxError"),
        ("import module_that_is_not_there", "ModuleNotFoundError"),
    ],
)
def test_plugins_that_fail(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(UserError, match=message) as error:
        load_plugin(tmp_path / "bad.py")
    assert "bad.py" in str(error.value) and "\n" not in str(error.value)
    assert "tinymem_plugin_bad" not in sys.modules


def test_plugins_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none at"):
        load_plugin(tmp_path / "none.py")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match=r"a \.py file"):
        load_plugin(tmp_path / "mine.txt")


def test_a_config_that_does_not_fit_its_method() -> None:
    properties = Properties(unit="weight", order="zeroth")
    with pytest.raises(UserError, match=r"expected a frozen dataclass .* derive it from MethodConfig"):
        editor("mine", config=Registry, properties=properties)(lambda model, data, config: model)
    with pytest.raises(UserError, match="expected an option epochs in AblationConfig"):
        scorer("mine", config=AblationConfig, properties=properties, by_epoch=lambda *_: iter(()))(lambda *_: Scores("weight", {}))
    assert "mine" not in UNLEARNERS.names()


class Undecorated(AblationConfig):
    strength: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Untyped(AblationConfig):
    strength = 0.5


@dataclass(frozen=True, kw_only=True)
class Inherited(Untyped):
    other: float = 1.0


@pytest.mark.parametrize("config", [Undecorated, Untyped, Inherited])
def test_what_looks_like_an_option_is_one(config: type[AblationConfig]) -> None:
    with pytest.raises(UserError, match=r"expected 'strength' of \w+ to be an option of method 'mine', but it is none; write `name: type"):
        scorer("mine", config=config, properties=Properties(unit="weight", order="zeroth"))(lambda *_: Scores("weight", {}))
    assert "mine" not in UNLEARNERS.names()


def test_a_grid_without_a_type_and_a_constant_are_no_options() -> None:
    @dataclass(frozen=True, kw_only=True)
    class WithGrid(AblationConfig):
        STEPS = (1, 2)
        grid = {"strength": [0.5, 1.0]}  # noqa: RUF012
        strength: float = 0.5

    with UNLEARNERS.temporary():
        scorer("mine", config=WithGrid, properties=Properties(unit="weight", order="zeroth"))(lambda *_: Scores("weight", {}))
        assert UNLEARNERS.get("mine").config.grid == {"strength": [0.5, 1.0]}


@dataclass(frozen=True, kw_only=True)
class WithTensor(AblationConfig):
    limit: ClassVar[int] = 3
    mask: Tensor | None = None


@pytest.mark.usefixtures("plugged")
def test_options_have_types_of_recipes() -> None:
    scorer("mine", config=WithTensor, properties=Properties(unit="weight", order="zeroth"))(lambda *_: Scores("weight", {}))
    with pytest.raises(UserError, match=r"expected options of mine that a recipe can hold .* for <class 'torch.Tensor'>") as error:
        parse_call("mine", {"ratio": 0.1})
    assert "\n" not in str(error.value)


def test_properties_are_those_of_the_table() -> None:
    wrong: Any = "neurone"
    with pytest.raises(UserError, match="expected unit of Properties to be neuron or weight or model, got 'neurone'"):
        Properties(unit=wrong, order="zeroth")


def test_columns_of_a_metric() -> None:
    wrong: Any = "mine %"
    with pytest.raises(UserError, match="expected a MetricColumn, or several, as column of metric 'mine', got 'mine %'"):
        metric("mine", column=wrong)
    assert "mine" not in METRICS.names()
