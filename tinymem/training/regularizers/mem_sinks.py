"""MemSinks: sequence-tied neurons that gather memorized content, and are switched off after training.

Formula: see `tied_neurons`; the first `general` part of the neurons is always on, each other is on for a row with probability `memory`.
Source: "Memorization sinks" 2025 (arXiv 2507.09937), section 4. Their hash (`hash: published`) switches the first sink on for the first
    19,660 ids and correlates id with 2 * id; the default mixes instead. They scale the shared neurons by (general + memory) / general.
Cost: a hash of [B, sinks] a step; no state.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tinymem.recipe.training import Share
from tinymem.training.regularizer_section import TrainingRows, regularizer
from tinymem.training.regularizers._tied_neurons import Hash, TiedNeurons, TiedSection


@regularizer
class MemSinksSection(TiedSection):
    """Options of MemSinks, sequence-tied neurons (arXiv 2507.09937)."""

    kind: Literal["mem-sinks"] = "mem-sinks"
    general: float = Field(0.7, gt=0, lt=1, description="part of the neurons that is always on")
    memory: Share = Field(0.3, description="probability that a row has a neuron of the others")
    hash: Hash = Field("mix", description="which sinks a row has; published: as the published code hashes")
    tied: Literal["all", "planted"] = Field("all", description="rows with sinks; `planted` is an oracle that practice lacks")

    @model_validator(mode="after")
    def _check_hash(self) -> MemSinksSection:
        if self.hash == "published" and (self.seed or self.salt_layers):
            raise ValueError("expected no seed and no salt_layers with `hash: published`, which has neither; drop them or take `hash: mix`")
        return self

    def make(self, rows: TrainingRows) -> TiedNeurons:
        self.check_rows(rows)
        first_tied = rows.clean if self.tied == "planted" else 0
        return TiedNeurons(self, shared=self.general, active=self.memory, hash=self.hash, first_tied=first_tied)
