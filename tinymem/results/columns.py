"""Columns of result rows by purpose: one constant for each use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinymem.results.row import Identity
from tinymem.results.share import RateColumns
from tinymem.runtime.json import JsonObject

Rate = Literal["all", "forget", "holdout"]
"""The three rates of memorization, never confused: of all scored rows, of the forget rows, of the holdout rows."""
RATES: dict[Rate, RateColumns] = {
    "all": RateColumns("memorized", "memorized_count", "rows_scored"),
    "forget": RateColumns("forget_memorized", "forget_memorized_count", "rows_forget"),
    "holdout": RateColumns("holdout_memorized", "holdout_memorized_count", "rows_holdout"),
}
PROMPT_RATES: dict[str, RateColumns] = {
    "prompt clean in training": RateColumns("memorized_clean_prompt", "memorized_clean_prompt_count", "rows_clean_prompt"),
    "prompt noised in training": RateColumns("memorized_noised_prompt", "memorized_noised_prompt_count", "rows_noised_prompt"),
}
ACCURACY = RateColumns("performance", "performance_count", "performance_tokens")
"""Accuracy, of tokens; its columns hold no counts where the performance is a perplexity."""
REQUIRED = ("method", "artifact", "status")
"""Columns that every row must have, whatever its kind."""
MODEL_COLUMNS = ("model_name", "data", "data_size", "n_layer", "n_parameters", "epoch", "regularizer")
"""Columns that describe a model; all follow from its recipe and its file."""
FORGET_COLUMNS = ("forget", "forget_fraction")
"""Columns that describe the choice of forget rows."""
WINDOW_COLUMNS = ("prompt", "match")
"""Columns of the test of memorization: tokens of the prompt, and of what must follow."""
EXPERIMENT_COLUMNS = ("method", "artifact", "seed", "epoch", "protocol", "device_type", *FORGET_COLUMNS)
"""Columns that, with equal config and `collect.measured_on`, identify an experiment."""
CONFIGURATION_COLUMNS = {"device_type": "on", "forget": "forget", "forget_fraction": "forget fraction", "plugin": "plugin"}
"""Further columns that distinguish configurations of a method with equal options, each with its word in labels."""
LABEL_COLUMNS = ("protocol", "seed", *FORGET_COLUMNS)
"""Columns that join the label of a method's rows wherever rows differ in them."""
MATCH_COLUMNS = ("data", "data_size", "n_layer", "regularizer", "epoch", "seed", "protocol", "method", "options", "artifact")
"""Columns by which `tinymem check` matches rows."""
TIE_COLUMNS = (*FORGET_COLUMNS, "family", "model_id", "id")
"""Further columns, in this order, where rows agree in all of `MATCH_COLUMNS`."""
PUBLISHED_COLUMNS = ("data", "data_size", "n_layer", "model_name", "artifact")
"""Columns in which a row must agree with a published model, as far as the model has them."""
MOMENT_COLUMNS = ("memorized", "memorized_count", "memorized_by_copies", "performance", "perplexity")
"""Stems of the columns that a trained model's row repeats."""


def pick(columns: Identity, names: Sequence[str]) -> JsonObject:
    """Values of some columns of a row or a model's identity, by name."""
    return {name: getattr(columns, name) for name in names}
