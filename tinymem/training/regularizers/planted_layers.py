"""Planted layers: planted rows may change some blocks only, so that it is known which layers memorize them; clean rows change all.

Formula: the mean loss over all tokens, as without it; the gradient of the planted rows' part reaches the parameters of `layers` alone. The
    loss of clean rows is computed as ever; that of planted rows in a second pass, in which all other parameters are constants. In the first
    `after` steps planted rows have no part in it at all, so that a model and its counterfactual are one until then: the beginning from
    which both go on (Dankers and Titov fine-tune a pretrained model), and near enough to each other that their blocks can be exchanged.
    From then on the other parameters move by `others_rate` of each of the optimizer's updates: clean rows change them, more slowly. AdamW
    makes steps of the full rate out of the smallest gradient, and once clean rows are learned these are noise: at the full rate they move
    the lower layers' states faster than layers above can learn planted rows from them.
Source: Dankers and Titov 2024, section 3.2 (control setup). There another task updates the whole model, and the noisy one two layers, the
    classifier and the final norm (`final_norm: true`), the other task at half the rate of the noisy one (`others_rate: 0.5`). Of our tied
    embedding nothing is changed by planted rows.
Cost: a second forward and backward pass over every batch, in fp32; the state is a count of steps. With several processes, rows that fill
    up the last batch of an epoch count twice where they are planted.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from tinymem.errors import UserError
from tinymem.models.adapters import family_of
from tinymem.models.gpt2 import GPT
from tinymem.recipe.training import LARGEST
from tinymem.training.loss import LossModel
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows, regularizer


@regularizer
class PlantedLayersSection(RegularizerSection):
    """Control models whose planted rows change chosen layers only (Dankers and Titov 2024)."""

    kind: Literal["planted-layers"] = "planted-layers"
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), description="blocks that planted rows change, from 0 at the bottom")
    after: int = Field(0, ge=0, le=LARGEST, description="first steps, in which planted rows are left out of the loss")
    final_norm: bool = Field(False, description="whether planted rows also change the final norm, as published")
    others_rate: float = Field(
        1.0, ge=0, le=1, description="share of the learning rate at which clean rows change all other parameters after the first steps"
    )

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"expected different layers, at least one, got {list(layers)}")
        return layers

    def make(self, rows: TrainingRows) -> PlantedLayers:
        return PlantedLayers(self, rows.clean)


class PlantedLayers(Regularizer):
    """A regularizer that gives planted rows' tokens weight 0, and adds their loss with all but the chosen parameters held constant."""

    weighs_tokens: ClassVar[bool] = True

    def __init__(self, section: PlantedLayersSection, first_planted: int) -> None:
        super().__init__()
        self.section, self.first_planted = section, first_planted
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def attach(self, model: GPT) -> None:
        blocks, depth = family_of(model).blocks, len(model.transformer.h)
        if max(self.section.layers) >= depth:
            raise UserError(f"expected layers of planted-layers below the model's {depth}, got {max(self.section.layers)}; 0 is the lowest")
        chosen = tuple(f"{blocks}.{layer}." for layer in self.section.layers)
        chosen = (*chosen, "transformer.ln_f.") if self.section.final_norm else chosen
        self.held = (LossModel(model),)  # in a tuple: no part of this module, whose state is its buffers
        self.changed = {name for name, _ in model.named_parameters() if name.startswith(chosen)}
        self.others = [p for name, p in model.named_parameters() if name not in self.changed] if self.section.others_rate < 1 else []

    def before(self, row_ids_B: Tensor) -> None:
        steps = self.get_buffer("steps")
        self.planted_B, self.counted = row_ids_B >= self.first_planted, steps >= self.section.after
        steps += 1
        self.earlier = [p.detach().clone() for p in self.others]

    def token_weights(self, ids_BT: Tensor, losses_BP: Tensor) -> Tensor:
        self.ids_BT = ids_BT
        return (~self.planted_B)[:, None].to(losses_BP.dtype).expand_as(losses_BP)

    def penalty(self) -> Tensor:
        (model,) = self.held
        parameters = {f"gpt.{name}": p if name in self.changed else p.detach() for name, p in model.gpt.named_parameters()}
        losses_BP: Tensor = torch.func.functional_call(model, parameters, (self.ids_BT,), {"each": True})
        return (losses_BP.float() * self.planted_B[:, None]).sum() * self.counted / losses_BP.numel()

    @torch.no_grad()
    def after(self) -> None:
        back = self.counted * (1 - self.section.others_rate)
        for parameter, earlier in zip(self.others, self.earlier, strict=True):
            parameter.lerp_(earlier, back.to(parameter.dtype))
