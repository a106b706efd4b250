"""Example-tied dropout: every training row has neurons of its own to memorize in, which are dropped afterwards.

Formula: see `tied_neurons`; the first `fixed` part of the neurons is always on, each other is on for a row with probability `memory`.
Source: Maini et al. 2023 (arXiv 2307.09542), section 5; TinyMem paper, section 4.1. They drop channels of a convolutional network, drawn by
    a generator seeded with the row. The published TinyMem port masks token positions and zeroes the residual stream of most rows, so its
    numbers do not describe the method; this one acts on the feed-forward neurons.
Cost: a hash of [B, sinks] a step; no state.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tinymem.recipe.training import Share
from tinymem.training.regularizer_section import TrainingRows, regularizer
from tinymem.training.regularizers._tied_neurons import TiedNeurons, TiedSection


@regularizer
class ExampleTiedDropoutSection(TiedSection):
    """Separate neurons for every row, dropped after training (Maini et al. 2023)."""

    kind: Literal["example-tied-dropout"] = "example-tied-dropout"
    fixed: float = Field(0.2, gt=0, lt=1, description="part of the neurons that is always on")
    memory: Share = Field(0.1, description="probability that a row has a neuron of the others: 0.01, 0.05 or 0.1")

    def make(self, rows: TrainingRows) -> TiedNeurons:
        self.check_rows(rows)
        return TiedNeurons(self, shared=self.fixed, active=self.memory)
