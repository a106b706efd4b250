"""Columns of result rows by what they are for: one constant for each use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinymem.results.row import Identity, RateColumns
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
REQUIRED = ("method", "artifact", "status")
"""Every row has these."""
MODEL_COLUMNS = ("model_name", "data", "data_size", "n_layer", "n_parameters", "epoch", "regularizer")
"""What a model is: all follow from its recipe and its file."""
FORGET_COLUMNS = ("forget", "forget_fraction")
"""Which rows a method is given."""
EXPERIMENT_COLUMNS = ("method", "artifact", "seed", "epoch", "protocol", "device_type", *FORGET_COLUMNS)
"""With the weights and the config, what makes two rows the same experiment."""
CONFIGURATION_COLUMNS = {"device_type": "on", "forget": "forget", "forget_fraction": "forget fraction"}
"""Rows of one method and its options that differ in these are of different configurations, told apart by the word."""
LABEL_COLUMNS = ("protocol", "seed", *FORGET_COLUMNS)
"""What joins the label of a method's rows wherever rows differ in it."""
MATCH_COLUMNS = ("data", "data_size", "n_layer", "regularizer", "epoch", "seed", "protocol", "method", "options", "artifact")
"""What rows of a check are matched by."""
TIE_COLUMNS = (*FORGET_COLUMNS, "family", "model_id", "id")
"""Where those leave two rows alike, in this order."""
PUBLISHED_COLUMNS = ("data", "data_size", "n_layer", "model_name", "artifact")
"""What a row must have in common with a published model, of those columns that the model is known by."""
MOMENT_COLUMNS = ("memorized", "memorized_count", "memorized_by_copies", "performance", "perplexity")
"""Stems of the columns that a trained model's row repeats."""


def pick(columns: Identity, names: Sequence[str]) -> JsonObject:
    """Some columns of a row or of what identifies a model, by name."""
    return {name: getattr(columns, name) for name in names}
