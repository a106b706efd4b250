"""Energy and carbon of machines by the paper's equations 4 and 5, and the thermal design power of GPUs by name.

watts       = cpu_usage * cpu_watts + gpus * gpu_usage * gpu_watts + 0.3725 W/GB * memory_gb
energy [Wh] = hours * watts * PUE                     equation 4 (appendix A.6, after Bouza et al. 2023)
carbon [g]  = energy / 1000 * carbon intensity        equation 5
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WATTS_PER_GB = 0.3725
UNKNOWN_GPU_WATTS = 300.0


@dataclass(frozen=True)
class Card:
    """A GPU model.

    Attributes:
        words: words of the name that the driver reports, separated by spaces; a name must have all of them.
        watts: thermal design power of one GPU, the upper end where the vendor gives a range.
        source: the document that states it.
    """

    words: str
    watts: float
    source: str

    def fits(self, name: str) -> bool:
        """Whether a GPU's name, such as `NVIDIA A100-SXM4-40GB`, contains all words of this card."""
        return _words(self.words) <= _words(name)


# A card precedes those whose words it also has: the first that fits is taken.
CARDS = (
    Card("GB300", 1400, "NVIDIA blog, Inside NVIDIA Blackwell Ultra (2025): Blackwell Ultra up to 1,400 W"),
    Card("B300", 1400, "NVIDIA blog, Inside NVIDIA Blackwell Ultra (2025): Blackwell Ultra up to 1,400 W"),
    Card("GB200", 1200, "NVIDIA blog, Inside NVIDIA Blackwell Ultra (2025): Blackwell up to 1,200 W, of which GB200 has the upper end"),
    Card("B200", 1000, "NVIDIA DGX B200 user guide, power capping: at most 1,000 W"),
    Card("GH200", 900, "power limit that nvidia-smi shows, at most; the datasheet has 450 to 1,000 W with CPU and memory"),
    Card("H200 NVL", 600, "NVIDIA H200 datasheet: H200 NVL up to 600 W"),
    Card("H200", 700, "NVIDIA H200 datasheet: H200 SXM up to 700 W"),
    Card("H100 PCIe", 350, "NVIDIA H100 PCIe product brief: 350 W"),
    Card("H100 NVL", 400, "NVIDIA H100 NVL product brief: 350 to 400 W"),
    Card("H100", 700, "NVIDIA H100 datasheet: H100 SXM up to 700 W"),
    Card("H800 PCIe", 350, "NVIDIA H800 PCIe product brief: 350 W"),
    Card("H800", 700, "the H100 SXM's, of which it is the export variant"),
    Card("A100 80GB PCIe", 300, "NVIDIA A100 datasheet: A100 80GB PCIe 300 W"),
    Card("A100 PCIe", 250, "NVIDIA A100 datasheet: A100 40GB PCIe 250 W"),
    Card("A100", 400, "NVIDIA A100 datasheet: A100 SXM 400 W"),
    Card("V100S", 250, "NVIDIA V100 datasheet: V100S PCIe 250 W"),
    Card("V100 PCIe", 250, "NVIDIA V100 datasheet: V100 PCIe 250 W"),
    Card("V100 SXM3", 350, "power limit that nvidia-smi shows on DGX-2"),
    Card("V100", 300, "NVIDIA V100 datasheet: V100 SXM2 300 W"),
    Card("P100 PCIe", 250, "NVIDIA P100 PCIe datasheet: 250 W"),
    Card("P100", 300, "NVIDIA P100 datasheet: P100 SXM2 300 W"),
    Card("L40S", 350, "NVIDIA L40S datasheet: 350 W"),
    Card("L40", 300, "NVIDIA L40 datasheet: 300 W"),
    Card("L4", 72, "NVIDIA L4 datasheet: 72 W"),
    Card("A40", 300, "NVIDIA A40 product brief: 300 W"),
    Card("A30", 165, "NVIDIA A30 datasheet: 165 W"),
    Card("A10G", 300, "power limit that nvidia-smi shows on Amazon EC2 G5"),
    Card("A10", 150, "NVIDIA A10 datasheet: 150 W"),
    Card("T4", 70, "NVIDIA T4 datasheet: 70 W"),
    Card("RTX PRO 6000 Max-Q", 300, "NVIDIA RTX PRO 6000 Blackwell Max-Q datasheet: 300 W"),
    Card("RTX PRO 6000", 600, "NVIDIA RTX PRO 6000 Blackwell datasheets: 600 W"),
    Card("RTX 6000 Ada", 300, "NVIDIA RTX 6000 Ada datasheet: 300 W"),
    Card("A6000", 300, "NVIDIA RTX A6000 datasheet: 300 W"),
    Card("A5000", 230, "NVIDIA RTX A5000 datasheet: 230 W"),
    Card("5090", 575, "NVIDIA GeForce RTX 5090 specifications: 575 W"),
    Card("4090", 450, "NVIDIA GeForce RTX 4090 specifications: 450 W"),
    Card("3090 Ti", 450, "NVIDIA GeForce RTX 3090 Ti specifications: 450 W"),
    Card("3090", 350, "NVIDIA GeForce RTX 3090 specifications: 350 W"),
)


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s_-]+", name.lower()))


def card_of(name: str) -> Card | None:
    """The card of a GPU's name, or None for one that the table lacks."""
    return next((card for card in CARDS if card.fits(name)), None)


def gpu_watts_of(name: str | None) -> float:
    """Thermal design power in W of a GPU by its name; `UNKNOWN_GPU_WATTS` without a name, or for one that is not in the table."""
    card = card_of(name) if name else None
    return card.watts if card else UNKNOWN_GPU_WATTS


@dataclass(frozen=True)
class Machine:
    """A node, as equation 4 sees it.

    Attributes:
        name: readable.
        cpu_usage: share of the processor's power that is drawn, in [0, 1].
        cpu_watts: thermal design power of the processor.
        gpus: number of GPUs.
        gpu_usage: share of their power that is drawn, in [0, 1].
        gpu_watts: thermal design power of a GPU.
        memory_gb: memory of the node.
        pue: power usage effectiveness of the building, at least 1.
        carbon: grams of CO2 per kWh, the CI of equation 5.
    """

    name: str
    cpu_usage: float
    cpu_watts: float
    gpus: float
    gpu_usage: float
    gpu_watts: float
    memory_gb: float
    pue: float
    carbon: float

    @property
    def watts(self) -> float:
        """Power in W of processor, GPUs and memory, with the building's share (PUE)."""
        drawn = self.cpu_usage * self.cpu_watts + self.gpus * self.gpu_usage * self.gpu_watts + WATTS_PER_GB * self.memory_gb
        return drawn * self.pue

    def kilowatt_hours(self, node_hours: float) -> float:
        """Energy by equation 4, in kWh, of a number of hours."""
        return node_hours * self.watts / 1000

    def kilograms(self, node_hours: float) -> float:
        """Carbon of equation 5, in kg of CO2."""
        return self.kilowatt_hours(node_hours) * self.carbon / 1000
