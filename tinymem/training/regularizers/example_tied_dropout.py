"""Example-tied dropout: every training row has neurons of its own to memorize in, which are dropped afterwards.

Formula: see `tied_neurons`; the first `fixed` part of the neurons is always on, each other is on for a row with probability `memory`.
Source: Maini et al. 2023 (arXiv 2307.09542), section 5; TinyMem paper, section 4.1. They drop channels of a convolutional network, drawn by
    a generator seeded with the row. The published TinyMem port masks token positions and zeroes the residual stream of most rows, so its
    numbers say nothing about the method; this one acts on the feed-forward neurons.
Cost: a hash of [B, sinks] a step; no state.
Options: fixed, memory (the papers' p_fixed, p_mem), factor, inference, ids, excluded, salt_layers, seed: see `TiedNeurons`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinymem.training.regularizers.tied_neurons import Factor, Inference, TiedNeurons


class ExampleTiedDropout(TiedNeurons):
    """`TiedNeurons` with the defaults and names of Maini et al."""

    def __init__(
        self,
        *,
        fixed: float = 0.2,
        memory: float = 0.1,
        factor: Factor = "expectation",
        inference: Inference = "off",
        ids: Sequence[int] = (),
        excluded: Sequence[int] = (),
        salt_layers: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            shared=fixed,
            active=memory,
            factor=factor,
            inference=inference,
            ids=ids,
            excluded=excluded,
            salt_layers=salt_layers,
            seed=seed,
        )
