"""Spectral norm: keep the largest singular value of every matrix small.

Formula: penalty = strength / 2 * sum over matrices of sigma^2; its gradient is strength * sigma * u v^T.
Source: Yoshida and Miyato 2017 (arXiv 1705.10941), section 3; TinyMem paper, section 4.1. Published TinyMem code adds
    strength / 2 * sum of sigma (`power: 1`) and cuts the attention's out-projection along its outputs (`projection: outputs`).
Matrices: queries, keys, values and out-projection of each head, and both feed-forward matrices of each block; no embeddings, norms, biases.
Cost: one power iteration a step, equal shapes stacked in one batched product; state: a vector u for each matrix.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tinymem.models.gpt2 import GPT, Block
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows, regularizer
from tinymem.training.regularizers._hashing import stream


@regularizer
class SpectralNormSection(RegularizerSection):
    """Penalty on the largest singular value of every matrix (Yoshida and Miyato 2017)."""

    kind: Literal["spectral-norm"] = "spectral-norm"
    strength: float = Field(0.01, ge=0, description="factor of the penalty, the paper's lambda: 0.001, 0.01 or 0.1")
    power: Literal[1, 2] = Field(2, description="power of sigma; the published code has 1")
    projection: Literal["heads", "outputs"] = Field("heads", description="how the attention's out-projection is cut; published: outputs")

    def make(self, rows: TrainingRows) -> SpectralNorm:
        return SpectralNorm(self)


class SpectralNorm(Regularizer):
    """A regularizer with a penalty on the spectral norm of each matrix.

    Shape suffixes: M matrices, R rows, C columns.
    """

    def __init__(self, section: SpectralNormSection) -> None:
        super().__init__()
        self.strength, self.power, self.projection = section.strength, section.power, section.projection

    def attach(self, model: GPT) -> None:
        self._model = [model]  # in a list: no submodule, or its weights would be part of the state
        for name, weights_MRC in self.matrices().items():
            start_MR = torch.sin(stream(0, weights_MRC[:, :, 0].numel()).double()).float().view(weights_MRC.shape[:2])
            self.register_buffer(name, F.normalize(start_MR, dim=1).to(weights_MRC.device))

    def matrices(self) -> dict[str, Tensor]:
        """All penalized matrices, equal shapes stacked."""
        model = self._model[0]
        H, D = model.config.n_head, model.config.n_embd
        heads, feed_forward = [], []
        for block in model.transformer.h:
            assert isinstance(block, Block)
            out_DD = block.attn.c_proj.weight
            by_heads_HKD = out_DD.view(D, H, D // H).permute(1, 2, 0)  # [out, in]: the heads are along the columns
            heads += [block.attn.c_attn.weight.view(3 * H, D // H, D)]
            heads += [by_heads_HKD if self.projection == "heads" else out_DD.view(H, D // H, D)]
            feed_forward += [block.mlp.c_fc.weight, block.mlp.c_proj.weight.T]
        return {"heads": torch.cat(heads), "feed_forward": torch.stack(feed_forward)}

    def penalty(self) -> Tensor:
        """The penalty, a scalar: half the strength times the sum of sigma^power, after one power iteration."""
        return 0.5 * self.strength * torch.cat([self._sigma_M(n, w) for n, w in self.matrices().items()]).pow(self.power).sum()

    def _sigma_M(self, name: str, weights_MRC: Tensor) -> Tensor:
        with torch.no_grad():
            u_MR, fixed_MRC = self.get_buffer(name), weights_MRC.detach()
            v_MC = F.normalize(torch.bmm(u_MR[:, None], fixed_MRC)[:, 0], dim=1)
            next_MR = F.normalize(torch.bmm(fixed_MRC, v_MC[:, :, None])[:, :, 0], dim=1)
            u_MR.copy_(next_MR)
        return (next_MR * torch.bmm(weights_MRC, v_MC[:, :, None])[:, :, 0]).sum(1)
