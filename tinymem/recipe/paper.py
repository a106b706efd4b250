"""The paper's study in numbers: its methods in the order of its tables, the runs of their grids (appendix A.3.5), and their cost."""

from __future__ import annotations

REGULARIZERS = ("spectral-norm", "loss-truncation", "example-tied-dropout", "mem-sinks", "goldfish")
EXTRA = "finetune-extra"
FINETUNINGS = ("finetune-both", "finetune-clean", EXTRA)
GRID = {
    "hard-concrete": 18, "slim": 18, "act": 5, "ig": 5, "zero": 5, "greedy": 5, "sou": 6, "durable": 6, "durable-agg": 6, "subnet": 24,
    "balanced-subnet": 72,
}  # fmt: skip
"""Its unlearners, each with the runs of its grid on one checkpoint."""
METHODS = ("none", *REGULARIZERS, *FINETUNINGS, *GRID)
"""The order of the paper's tables."""
PUBLISHED_GRID = 167
"""Runs on one checkpoint of the published code, whose grids are others."""

CHECKPOINTS = 672
LARGEST, LARGEST_TEXT = 168, 72
"""Checkpoints of 16 layers, without IG and without Greedy's largest ratio; and those of fewer layers on text, without the latter."""
RUNS = {
    **{method: CHECKPOINTS * runs for method, runs in GRID.items()},
    "ig": (CHECKPOINTS - LARGEST) * GRID["ig"],
    "greedy": CHECKPOINTS * GRID["greedy"] - LARGEST - LARGEST_TEXT,
}
"""Runs of each method on all checkpoints, after these exceptions."""

EXPERIMENTS = 102_698
"""Number of runs that the paper counts; fewer than `RUNS`, without a reason in the paper."""
NODE_HOURS, NODE_GPUS, TRIPLED = 6251, 4, 3
"""Hours of nodes with four A100s for these runs (Tables 7 and 8), three times the measured ones."""
