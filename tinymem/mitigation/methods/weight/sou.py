"""SOU (second-order unlearning): zero the weights that optimal brain surgery on the memorized rows finds most salient.

Idea: how much the loss of the memorized rows changes when a weight is removed and the others may adapt, by the inverse Fisher matrix.
Formula: F = damp * I + (1 / m) sum over m forget rows of g g^T, in blocks of `block` consecutive weights of a tensor, g = gradient of the
    row's mean loss; score = w^2 / (2 [F^-1]_ww). The top K of the whole model are zeroed (A.3.2). Matrices run as in GPT-2's files,
    [in, out]: the weights from an input to consecutive outputs share a block, whichever class holds the model.
Source: TinyMem paper, section 3.3, Algorithm 2, after Kurtic et al. 2022. The published code takes m = 512 gradients of batches that are
    never cleared, so that each is the sum of all before, and ranks within each tensor (`scope: tensor`). On a backdoor it does no better
    than chance (published: 49 % left at an accuracy of 76 %), for the reasons that Durable's page gives.
Cost: one forward and backward pass over the forget rows shared by all tensors, gradients per row by outer products, and one inverse per
    block, in double precision.
Options: ratio, of, scope (whole model), over, block, damp, gradients (at most so many rows, drawn by seed), batch_size. Eligible: weights
    and biases of the feed-forward blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import AblationConfig, Scope, Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import Over
from tinymem.mitigation.methods.pieces import Pieces
from tinymem.mitigation.methods.weight._row_gradients import row_gradients
from tinymem.models.adapters import in_out, mlp_parameters


@dataclass(frozen=True, kw_only=True)
class SOUConfig(AblationConfig):
    """Options of SOU. The grid is that of the paper's A.3.5.

    Attributes:
        block: consecutive weights of a tensor, a matrix in the layout [in, out], that share a block of the Fisher matrix.
        damp: added to its diagonal.
        gradients: most rows whose gradients make it up.
        over: loss of the whole `row` (the paper), or of its `suffix` with the prompt given.
    """

    ratio: float = 0.01
    scope: Scope = "model"
    over: Over = "row"
    block: int = 50
    damp: float = 1e-7
    gradients: int = 512
    batch_size: int = 16

    grid: ClassVar[Grid] = grids.WEIGHT
    published_grid: ClassVar[Grid] = grids.WEIGHT_RUN

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block < 1 or self.damp <= 0 or self.gradients < 1:
            raise UserError(f"expected block >= 1, damp > 0, gradients >= 1; got {self.block}, {self.damp:g}, {self.gradients}")


@scorer("sou", config=SOUConfig, properties=Properties(unit="weight", order="second", layer_wise=True))
def sou(model: nn.Module, data: MitigationData, config: SOUConfig) -> Scores:
    """w^2 / (2 diag F^-1) of the feed-forward parameters."""
    order = torch.randperm(len(data.forget), generator=data.generator())[: config.gradients]
    rows = data.forget.take(order.to(data.forget.ids.device))
    parameters = {name: p.detach() for name, p in mlp_parameters(model).items()}
    outer = {
        name: torch.zeros(_blocks(p, config), config.block, config.block, dtype=torch.float64, device=p.device)
        for name, p in parameters.items()
    }
    pieces = Pieces(model, rows.ids.shape[1], gradients=True, rows=config.batch_size)

    def add(index: Tensor, counted: set[str]) -> None:
        for name, gradient_BP in row_gradients(model, rows.take(index), config.over):
            if name not in counted:
                blocks_NBK = in_blocks(gradient_BP, config.block).transpose(0, 1).double()
                outer[name].baddbmm_(blocks_NBK.transpose(1, 2), blocks_NBK)
                counted.add(name)

    batches = torch.arange(len(rows), device=rows.ids.device).split(config.batch_size)
    data.bar.expect(len(batches))
    for index in batches:
        pieces.run(index, add)
        data.bar.advance(1)
    scores = {}
    for name, weight in parameters.items():
        diagonal_P = inverse_diagonal(outer.pop(name), len(rows), config.damp)[: weight.numel()]
        published = in_out(model, weight)
        scores[name] = in_out(model, (published.double().square() / (2 * diagonal_P.view(published.shape))).float())
    return Scores("weight", scores)


def in_blocks(gradient_BP: Tensor, block: int) -> Tensor:
    """[B, P] -> [B, blocks, block]; the last block is filled up with zeros."""
    B, P = gradient_BP.shape
    return F.pad(gradient_BP, (0, -P % block)).view(B, -1, block)


def inverse_diagonal(outer_NKK: Tensor, rows: int, damp: float) -> Tensor:
    """Diagonal [N * K] of the inverse of damp * I + outer / rows, block by block."""
    eye_KK = torch.eye(outer_NKK.shape[-1], dtype=outer_NKK.dtype, device=outer_NKK.device)
    factor_NKK = torch.linalg.cholesky(outer_NKK / rows + damp * eye_KK)
    return torch.cholesky_inverse(factor_NKK).diagonal(dim1=1, dim2=2).flatten()


def _blocks(parameter: Tensor, config: SOUConfig) -> int:
    return -(-parameter.numel() // config.block)
