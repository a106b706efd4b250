"""What every registered method must hold, on every model family. New methods join by being registered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from unittest import SkipTest

import pytest
import torch
from torch import nn

from tinymem.errors import UserError
from tinymem.mitigation import ablation
from tinymem.mitigation.ablation import Refused, group_counts
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import UNLEARNERS, Properties, apply, editor, parse_config
from tinymem.testing import CHECKS, FAMILIES, check, config_of, tiny_case

METHODS = UNLEARNERS.names()
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", [f if f == "gpt" else pytest.param(f, marks=pytest.mark.thorough) for f in FAMILIES])
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, name: str, family: str) -> None:
    check(name, method, family)


@pytest.fixture
def temporary() -> Iterator[None]:
    with UNLEARNERS.temporary():
        yield


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("name", ["random-neurons", "random-weights"])
def test_an_edit_of_one_unit_more_or_less_is_found(name: str, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(*arguments: Any) -> list[tuple[list[str], int]]:
        (names, count), *others = group_counts(*arguments)
        return [(names, count + more), *others]

    monkeypatch.setattr(ablation, "group_counts", off_by_one)
    with pytest.raises(AssertionError, match="the number of edited parameters is not the ratio's"):
        check("exact_count", name, "gpt")


@pytest.mark.parametrize(("name", "option"), [("exact_count", "ratio"), ("tiny_ratio_refused", "ratio"), ("zero_is_control", "epochs")])
@pytest.mark.usefixtures("temporary")
def test_a_check_of_an_option_that_a_method_lacks_is_skipped(name: str, option: str) -> None:
    @dataclass(frozen=True)
    class Nothing(MethodConfig):
        """No options."""

    @editor("idle", config=Nothing, properties=Properties(unit="model", order="zeroth"))
    def idle(model: nn.Module, data: Any, config: Nothing) -> nn.Module:
        return model

    with pytest.raises(SkipTest, match=f"idle has no option '{option}'"):
        check(name, "idle", "gpt")


def test_the_first_methods_are_there() -> None:
    assert {"act", "durable", "balanced-subnet", "finetune-clean"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_documentation(method: str) -> None:
    text = UNLEARNERS.get(method).documentation
    missing = [word for word in ("Source:", "Cost:", "Options:") if word not in text]
    assert not missing, f"the docstring of {method} lacks {missing}"
    unnamed = [f.name for f in fields(UNLEARNERS.get(method).config) if f.name not in text]
    assert not unnamed, f"the docstring of {method} does not name its options {unnamed}"


@pytest.mark.parametrize("method", METHODS)
def test_config(method: str) -> None:
    unlearner = UNLEARNERS.get(method)
    assert is_dataclass(unlearner.config) and unlearner.config.__dataclass_params__.frozen
    assert parse_config(unlearner, {}) == unlearner.config()
    names = {f.name for f in fields(unlearner.config)}
    published = getattr(unlearner.config, "published_grid", {})
    assert published != unlearner.config.grid or not published, "the published runs' grid is named only where it differs"
    for option, values in [*unlearner.config.grid.items(), *published.items()]:
        assert option in names
        for value in values:
            assert getattr(parse_config(unlearner, {option: value}), option) == value
    with pytest.raises(UserError, match=f"unknown option 'ratoi' of {method}"):
        parse_config(unlearner, {"ratoi": 1})


@pytest.mark.parametrize("method", [name for name in METHODS if "ratio" in {f.name for f in fields(UNLEARNERS.get(name).config)}])
@pytest.mark.parametrize("ratio", [2, -0.1, "much", True])
def test_wrong_ratio(method: str, ratio: object) -> None:
    with pytest.raises(UserError, match="ratio") as error:
        parse_config(UNLEARNERS.get(method), {"ratio": ratio})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [name for name in METHODS if UNLEARNERS.get(name).needs_forget])
def test_nothing_to_forget_is_refused(method: str) -> None:
    model, data = tiny_case("gpt")
    nothing = data.__class__(**{**vars(data), "forget": data.forget.take(torch.arange(0))})
    with pytest.raises(Refused, match="got none"):
        apply(UNLEARNERS.get(method), model, nothing, config_of(UNLEARNERS.get(method), ratio=0.25))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_runs_of_one_case_are_equal(method: str) -> None:
    """Nothing that a method is given keeps traces of its first run: rows, twins, optimizer state."""
    model, data = tiny_case("gpt")
    state = {f"{i}.{name}": torch.full_like(p, 0.01) for i, p in enumerate(model.parameters()) for name in ("exp_avg", "exp_avg_sq")}
    state |= {f"{i}.step": torch.tensor(3.0) for i, _ in enumerate(model.parameters())}
    data = data.__class__(**{**vars(data), "optimizer_state": state})
    config = config_of(UNLEARNERS.get(method), ratio=0.05 if method == "greedy" else 0.25, epochs=1)  # it takes a pass for each weight
    first, second = (apply(UNLEARNERS.get(method), model, data, config).state_dict() for _ in range(2))
    assert all(torch.equal(t, second[name]) for name, t in first.items())
