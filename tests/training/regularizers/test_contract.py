"""The contract that `tinymem.testing.check_regularizer` holds regularizers to: ours hold it, and what breaks it is said."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from tinymem.errors import UserError
from tinymem.models.adapters import neuron_layers
from tinymem.recipe.kinds import REGULARIZERS
from tinymem.testing import check_regularizer
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows, make_regularizers, regularizer

OPTIONS: dict[str, dict[str, Any]] = {
    "loss-truncation": {"window": 4},
    "example-tied-dropout": {"fixed": 0.5, "memory": 0.5},
    "goldfish": {"width": 3},
}


@pytest.mark.parametrize("kind", REGULARIZERS.names())
def test_built_in_regularizers(kind: str) -> None:
    check_regularizer(kind, **OPTIONS.get(kind, {}))


class Counting(Regularizer):
    """State in an attribute, which a resume loses."""

    steps = 0.0

    def penalty(self) -> torch.Tensor:
        self.steps += 1
        return torch.tensor(self.steps)


class Endless(Regularizer):
    """A loss that no one can train on."""

    def penalty(self) -> torch.Tensor:
        return torch.tensor(torch.inf)


class Hooked(Regularizer):
    """Halves neurons in a hook, and does not fold that into the plain model."""

    def attach(self, model: Any) -> None:
        for layer in neuron_layers(model):
            layer.module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 2,))


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Counting, "state outside buffers is lost"), (Endless, "expected a finite scalar"), (Hooked, "computes something else")],
)
def test_what_breaks_it(broken: type[Regularizer], message: str) -> None:
    class Section(RegularizerSection):
        """Makes the broken one."""

        kind: Literal["broken"] = "broken"

        def make(self, rows: TrainingRows) -> Regularizer:
            return broken()

    with REGULARIZERS.temporary(), pytest.raises(AssertionError, match=message):
        regularizer(Section)
        check_regularizer("broken")


def test_a_section_makes_a_regularizer() -> None:
    class Idle(RegularizerSection):
        """Has no `make`."""

        kind: Literal["idle"] = "idle"

    class Empty(Idle):
        """Makes none."""

        def make(self, rows: TrainingRows) -> Any:
            pass

    with pytest.raises(UserError, match="expected `make` in the section of regularizer 'idle', found none"):
        make_regularizers([Idle()])
    with pytest.raises(UserError, match="expected `make` of regularizer 'idle' to return a Regularizer, got NoneType; return one"):
        make_regularizers([Empty()])
