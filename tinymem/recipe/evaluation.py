"""Recipe section of the measurements before and after a mitigation."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from tinymem.recipe.data import Section
from tinymem.recipe.robustness import TESTS, Test

ALL, DEFAULT = "all", "default"  # names of groups of metrics


class Evaluation(Section):
    """Windows of the memorization test: `prompt` tokens given, the next `match` compared (paper, A.1.1)."""

    prompt: int = Field(50, ge=1, description="first tokens of a row, which the model is given")
    match: int = Field(50, ge=1, description="tokens behind them that must follow, all of them, for a row to count as memorized")
    batch_size: int = Field(512, ge=1, description="rows measured at a time")
    ks: tuple[int, ...] = Field((), description="further prompt lengths k of (n, k) memorization, n = prompt + match (Definition 2.1)")
    metrics: tuple[str, ...] = Field(
        (DEFAULT,), description="names of metrics, `default` (the cheap ones) or `all`; `tinymem metrics` lists them"
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        """Accept one name for the list, as in `metrics: all`."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Evaluation:
        n = self.prompt + self.match
        if len(set(self.ks)) != len(self.ks) or any(not 1 <= k < n for k in self.ks):
            raise ValueError(f"expected evaluation.ks to be different numbers from 1 to {n - 1} (prompt + match - 1), got {list(self.ks)}")
        return self

    def key(self) -> dict[str, Any]:
        """The options that a corpus and a training curve depend on; metrics are not among them, so more can join a run."""
        return self.model_dump(mode="json", include={"prompt", "match", "batch_size"})


class Robustness(Section):
    """Tests of robustness: whether removed content returns, on copies of the edited model (tinymem/mitigation/robustness/measure.py)."""

    tests: tuple[Test, ...] = Field(TESTS, description="tests to make")
    steps: int = Field(20, ge=1, description="steps of relearning, by AdamW")
    learning_rate: float = Field(1e-4, gt=0, description="rate of relearning; so small that an unedited model keeps what it memorized")
    batch_size: int = Field(32, ge=1, description="rows a step of relearning")
    tokens: int = Field(5, ge=1, description="tokens that a prompt is longer or shorter by")
    replaced: int = Field(1, ge=1, description="tokens of a perturbed prompt that are replaced at random")

    @model_validator(mode="after")
    def _check(self) -> Robustness:
        if len(set(self.tests)) != len(self.tests) or not self.tests:
            raise ValueError(f"expected different tests among {', '.join(TESTS)}, got {list(self.tests)}")
        return self
