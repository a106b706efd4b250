"""The specification that determines the rows of a corpus; its JSON is part of the corpus's hash."""

from __future__ import annotations

from typing import Literal

from pydantic import SerializeAsAny, model_validator

from tinymem.recipe.data import STATED, Data, Section
from tinymem.recipe.evaluation import Evaluation
from tinymem.recipe.kinds import ArtifactSection, plugins_of
from tinymem.runtime.json import JsonObject

# Raised whenever a change of code changes what a recipe yields, so that stored results of older code are not reused.
CODE_EPOCH = 1

Protocol = Literal["paper", "reference"]


class TextSplit(Section):
    """The tokenized text of one split, whatever the files that held it."""

    lines: int
    tokens: int
    sha256: str


class CorpusSpec(Section):
    """The specification of a corpus: recipe keys and, for text, hashes of text and tokenizer instead of their paths."""

    epoch: int = CODE_EPOCH
    seed: int
    protocol: Protocol
    data: Data
    artifacts: tuple[SerializeAsAny[ArtifactSection], ...] = ()
    evaluation: Evaluation
    text: dict[str, TextSplit] | None = None
    plugins: tuple[str, ...] = ()
    """SHA-256 of the plugins that define artifacts of the corpus."""

    @model_validator(mode="after")
    def _check(self) -> CorpusSpec:
        if self.plugins != plugins_of(self.artifacts):
            raise ValueError("expected the plugins that the corpus was made with, got others; give those with --plugin")
        return self

    def as_json(self) -> JsonObject:
        """The manifest's form; equal specifications have equal JSON."""
        without = {"evaluation", "text"} if self.plugins else {"evaluation", "text", "plugins"}
        values: JsonObject = self.model_dump(mode="json", exclude=dict.fromkeys(without, True) | {"data": {*STATED}})
        values["evaluation"] = self.evaluation.key()
        if self.text is None:
            return values
        data: JsonObject = self.data.model_dump(mode="json", exclude={"text_column", *STATED})
        return {**values, "data": data, "text": {split: summary.model_dump() for split, summary in self.text.items()}}
