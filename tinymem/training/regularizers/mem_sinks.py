"""MemSinks: sequence-tied neurons that gather memorized content, and are switched off after training.

Formula: see `tied_neurons`; the first `general` part of the neurons is always on, each other is on for a row with probability `memory`.
Source: "Memorization sinks" 2025 (arXiv 2507.09937), section 4. Their hash (`hash: published`) switches the first sink on for the first
    19,660 ids and correlates id with 2 * id; the default mixes instead. They scale the shared neurons by (general + memory) / general.
Cost: a hash of [B, sinks] a step; no state.
Options: general, memory (the paper's p_gen, p_mem), hash, tied (`all` rows, or the `planted` ones alone: an oracle that practice lacks),
    factor, inference, ids, excluded, salt_layers, seed: see `TiedNeurons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinymem.training.regularizers.tied_neurons import Factor, Hash, Inference, TiedNeurons


class MemSinks(TiedNeurons):
    """`TiedNeurons` with the defaults and names of the MemSinks paper; `clean_rows` is the number of rows that are not planted."""

    def __init__(
        self,
        *,
        general: float = 0.7,
        memory: float = 0.3,
        hash: Hash = "mix",
        tied: Literal["all", "planted"] = "all",
        factor: Factor = "expectation",
        inference: Inference = "off",
        ids: Sequence[int] = (),
        excluded: Sequence[int] = (),
        salt_layers: bool = False,
        seed: int = 0,
        clean_rows: int = 0,
    ) -> None:
        super().__init__(
            shared=general,
            active=memory,
            hash=hash,
            factor=factor,
            inference=inference,
            ids=ids,
            excluded=excluded,
            salt_layers=salt_layers,
            seed=seed,
            first_tied=clean_rows if tied == "planted" else 0,
        )
