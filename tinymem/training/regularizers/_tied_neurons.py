"""Feed-forward neurons of which a part belongs to training rows: the shared part of example-tied dropout and MemSinks.

The first `shared` part of every block's neurons is always on. Each row switches each other neuron (a sink) on with probability `active`,
by a hash of its id, so that the same row meets the same sinks whenever it comes again. For use, the sinks are switched off, scaled, or
those of chosen rows are switched on; that is a factor for each neuron, which folds into the out-projection of a plain GPT-2.

Shape suffixes: L blocks (1 where all have the same sinks), B rows, S sinks, F neurons, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.models.adapters import neuron_layers
from tinymem.models.gpt2 import GPT
from tinymem.recipe.data import MAXIMUM_SEED
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows
from tinymem.training.regularizers._hashing import GOLDEN, chance, splitmix64, stream

RowId = Annotated[int, Field(ge=0)]
Hash = Literal["mix", "published"]
Inference = Literal["off", "all", "ids"]
Factor = Literal[1, "paper", "expectation"]
PUBLISHED_FACTOR, PUBLISHED_MODULUS = 1588635695, 2**32 - 5


class TiedSection(RegularizerSection):
    """The options that both methods with neurons tied to rows share."""

    exclusive: ClassVar[str | None] = "tie the same neurons"

    factor: Factor = Field("expectation", description="factor of the shared neurons while the sinks are off")
    inference: Inference = Field("off", description="sinks in evaluation and the saved model: off, all, or those of `ids`")
    ids: tuple[RowId, ...] = Field((), description="training rows whose sinks `inference: ids` switches on")
    excluded: tuple[RowId, ...] = Field((), description="training rows whose sinks are off whatever the mode")
    salt_layers: bool = Field(False, description="whether a row has other sinks in every block")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="seed of the hash")

    @model_validator(mode="after")
    def _check_ids(self) -> TiedSection:
        if bool(self.ids) != (self.inference == "ids"):
            raise ValueError(f"expected ids with `inference: ids` and with it alone, got inference {self.inference} and ids {self.ids}")
        return self

    def check_rows(self, rows: TrainingRows) -> None:
        """Check that all ids are those of existing training rows.

        Raises:
            UserError: an id at or above the number of distinct rows.
        """
        largest = max((*self.ids, *self.excluded), default=-1)
        if rows.distinct is not None and largest >= rows.distinct:
            raise UserError(
                f"expected ids and excluded of {self.kind} below the number of distinct training rows, {rows.distinct}, got {largest}"
            )


def mixed_sinks(ids_B: Tensor, sinks: int, active: float, salts_L: Tensor) -> Tensor:
    """Sinks [L, B, S] of each id in each block."""
    keys_LB1 = splitmix64(ids_B + salts_L[:, None])[:, :, None]
    return chance(splitmix64(keys_LB1 + GOLDEN * torch.arange(sinks, device=ids_B.device)), active)


def published_sinks(ids_B: Tensor, sinks: int, active: float) -> Tensor:
    """Sinks [1, B, S] as the published MemSinks model hashes them; id 0 switches all of them on."""
    powers_S = torch.full((sinks,), PUBLISHED_FACTOR, device=ids_B.device) ** torch.arange(sinks, device=ids_B.device)
    hashes_BS = ((ids_B.long() * 2**16)[:, None] * (powers_S % PUBLISHED_MODULUS)) % PUBLISHED_MODULUS
    return (hashes_BS / PUBLISHED_MODULUS < active)[None]


class TiedNeurons(Regularizer):
    """Gates on the neurons of every block, chosen by the row of each token.

    Args:
        section: the options.
        shared: part of the neurons that is always on.
        active: probability that a row switches a sink on.
        hash: which sinks those are.
        first_tied: rows below this id switch no sink on.
    """

    def __init__(self, section: TiedSection, *, shared: float, active: float, hash: Hash = "mix", first_tied: int = 0) -> None:
        super().__init__()
        self.section, self.shared, self.active, self.hash, self.first_tied = section, shared, active, hash, first_tied

    def attach(self, model: GPT) -> None:
        layers = neuron_layers(model)
        neurons, device = layers[0].neurons, layers[0].weight.device
        self.shared_neurons = int(self.shared * neurons)
        self.sinks = neurons - self.shared_neurons
        section = self.section
        self.salts_L = stream(section.seed, len(layers) if section.salt_layers and self.hash == "mix" else 1, device)
        self.inference_LF = self.gates_for_use(section.inference, section.ids, section.excluded)
        for layer in layers:
            layer.module.register_forward_pre_hook(self._hook(layer.index))

    def sinks_of(self, ids_B: Tensor) -> Tensor:
        """Mask [L, B, S] of the sinks that the rows switch on."""
        if self.hash == "published":
            on_LBS = published_sinks(ids_B + 1, self.sinks, self.active)
        else:
            on_LBS = mixed_sinks(ids_B, self.sinks, self.active, self.salts_L)
        return on_LBS & (ids_B >= self.first_tied)[None, :, None] if self.first_tied else on_LBS

    def before(self, row_ids_B: Tensor) -> None:
        sinks_LBS = self.sinks_of(row_ids_B)
        shared_LBS = sinks_LBS.new_ones(*sinks_LBS.shape[:2], self.shared_neurons)
        self.gates_LBF = torch.cat([shared_LBS, sinks_LBS], dim=2).float()

    def neuron_gates(self) -> Tensor:
        return self.gates_LBF

    def gates_for_use(self, inference: Inference, ids: Sequence[int] = (), excluded: Sequence[int] = ()) -> Tensor:
        """Factor [L, F] of each neuron outside training."""
        device = self.salts_L.device
        sinks_LS = torch.full((len(self.salts_L), self.sinks), self.active if inference == "all" else 0.0, device=device)
        if inference == "ids":
            sinks_LS = self._any_of(ids).float()
        sinks_LS = sinks_LS * ~self._any_of(excluded)
        shared_LS = torch.full((len(self.salts_L), self.shared_neurons), self.shared_factor(inference), device=device)
        return torch.cat([shared_LS, sinks_LS], dim=1)

    def shared_factor(self, inference: Inference) -> float:
        """Factor by which the shared neurons are scaled."""
        if inference != "off" or self.section.factor == 1:
            return 1.0
        expected = self.active if self.section.factor == "paper" else self.active * (1 - self.shared)
        return (self.shared + expected) / self.shared

    def fold(self, plain: GPT) -> None:
        with torch.no_grad():
            for layer in neuron_layers(plain):
                layer.values_FD().mul_(self._of_layer(self.inference_LF, layer.index)[:, None])

    def _any_of(self, ids: Sequence[int]) -> Tensor:
        return self.sinks_of(torch.tensor(ids, dtype=torch.int64, device=self.salts_L.device)).any(1)

    def _of_layer(self, gates: Tensor, layer: int) -> Tensor:
        return gates[layer if len(gates) > 1 else 0]

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
        def gate(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            gates = self._of_layer(self.gates_LBF, layer)[:, None] if module.training else self._of_layer(self.inference_LF, layer)
            return (inputs[0] * gates.to(inputs[0].dtype),)

        return gate
