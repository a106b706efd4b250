"""Recipe section of the corpus and the artifacts planted in it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinymem.recipe.built_in import BYTES

MAXIMUM_SEED = 2**32 - 1  # the largest seed that every random generator accepts
LARGEST = 2**53  # of a stranger's numbers; what fits into memory is far less


def takes_numbers_only(annotation: object) -> bool:
    """Whether a type, or its name, accepts numbers but not true or false, which pydantic would read as 1 and 0."""
    names = _types(annotation)
    return bool(names & {"int", "float"}) and "bool" not in names


def _types(annotation: object) -> set[str]:
    """Names of the types in an annotation, or in its text, without what `Annotated` adds."""
    if isinstance(annotation, str):
        return set(re.findall(r"\w+", annotation))
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return {name for part in parts for name in _types(part)} if parts else {getattr(annotation, "__name__", str(annotation))}


class Section(BaseModel):
    """Base class of a recipe's sections: immutable; refuses unknown keys, infinity, NaN, and true or false for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _a_truth_is_no_number(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, dict) else ():
            truths = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, bool)]
            if truths and key in cls.model_fields and takes_numbers_only(cls.model_fields[key].annotation):
                raise ValueError(f"expected a number for '{key}', got {truths[0]}; YAML reads yes, no, on and off as true and false")
        return values


class MathData(Section):
    """Synthetic arithmetic sequences (paper, section 2.3 and appendix A.1.1)."""

    kind: Literal["math"] = Field("math", description="synthetic arithmetic sequences, generated from the seed")
    family: Literal["additive", "multiplicative"] = Field(
        "additive", description="how a sequence goes on: x -> x + k, or x -> k * x mod `modulus`"
    )
    primary: int = Field(7, ge=1, le=LARGEST, description="task k that the artifacts are planted in")
    auxiliary: tuple[Annotated[int, Field(ge=1, le=LARGEST)], ...] = Field(
        (2, 3, 4, 5), description="further tasks k, of which the sequences are learned beside those of the primary one"
    )
    size: int = Field(3000, ge=2, le=LARGEST, description="sequences per auxiliary task, before the test rows are taken off")
    primary_size: int = Field(20_000, ge=2, le=LARGEST, description="sequences of the primary task, before the test rows are taken off")
    test_rows: int = Field(1000, ge=1, le=LARGEST, description="clean test rows per task")
    numbers: int = Field(20, ge=2, le=LARGEST, description="numbers per sequence")
    modulus: int = Field(20_134, ge=2, le=LARGEST, description="modulus of the multiplicative family")
    row_tokens: int = Field(150, ge=8, le=LARGEST, description="tokens per row, padding included")

    @property
    def tasks(self) -> tuple[int, ...]:
        """The primary task, then the auxiliary ones."""
        return (self.primary, *self.auxiliary)

    @model_validator(mode="after")
    def _check(self) -> MathData:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"expected different tasks, got {self.tasks}; drop the repeated one from data.auxiliary")
        for name, size in (("data.size", self.size), ("data.primary_size", self.primary_size)):
            if size <= self.test_rows:
                raise ValueError(f"expected {name} above data.test_rows = {self.test_rows}, got {size}; lower test_rows")
        if self._largest_number() >= 2**63:
            raise ValueError(f"expected numbers below 2^63 in the rows, got some of {self._largest_number():.0e}; lower modulus or tasks")
        return self

    def _largest_number(self) -> int:
        """A bound of what is computed on the way to any number of a row."""
        first, k = max(self.size, self.primary_size), max(self.tasks)
        return first + k * self.numbers if self.family == "additive" else max(first, self.modulus) * k


BUILT_IN = ("tokenizer", BYTES)
STATED = ("license", "credit")
"""What the user says of a text, which decides no row."""


class WikiData(Section):
    """Text cut into rows of tokens: WikiText-103 (paper, appendix A.1.2), another data set of the Hub, or local files."""

    kind: Literal["wiki"] = Field("wiki", description="text, of a data set on the Hub or of local files")
    source: str = Field("Salesforce/wikitext", min_length=1, description="data set on the Hub, or a folder or file: Parquet, .jsonl, text")
    config: str | None = Field(None, description="configuration on the Hub (wikitext-103-v1, ...), or a subfolder")
    text_column: str = Field("text", min_length=1, description="column of Parquet, JSON lines and CSV; one row of it is one line of text")
    tokenizer: str = Field(
        "gpt2", min_length=1, description="bytes (a token is a byte), a tokenizer.json, a folder with one, or a model on the Hub"
    )
    vocab_size: int | None = Field(None, ge=2, description="if given, the tokenizer must have so many tokens")
    row_tokens: int = Field(150, ge=8, description="tokens per row")
    max_rows: int | None = Field(None, ge=1, description="use only so many rows of the training text")
    test_rows: int = Field(1000, ge=1, description="rows off the end of the training text, where the source has no test split")
    license: str | None = Field(
        None, min_length=1, description="license of the text, for the card of the corpus; null: it says that nobody stated it"
    )
    credit: str | None = Field(None, min_length=1, description="whose text it is and where it is from, for the card of the corpus")

    @model_validator(mode="after")
    def _check(self) -> WikiData:
        if self.config is None and self.source == "Salesforce/wikitext":
            raise ValueError("expected data.config for Salesforce/wikitext, got none; try wikitext-103-v1 or wikitext-103-raw-v1")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the source is a path: one that exists, or that is written like one."""
        return _is_path(self.source)

    def without_places(self) -> WikiData:
        """The data as a checkpoint tells others of it: of local text and tokenizers the names, not where they are on this machine."""
        local = {key: value for key in ("source", "tokenizer") if _is_path(value := getattr(self, key)) and (key, value) != BUILT_IN}
        return self.model_copy(update={key: f"./{Path(value).name}" for key, value in local.items()})


FILES = (".txt", ".text", ".jsonl", ".json", ".csv", ".parquet", ".gz")
"""Ends of names of files, which no name on the Hub has: a file that is missing is not looked for there."""


def _is_path(text: str) -> bool:
    with suppress(OSError):  # longer than a name can be
        if Path(text).exists():
            return True
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or text.lower().endswith(FILES)


Data = Annotated[Union[MathData, WikiData], Field(discriminator="kind")]  # noqa: UP007 (pydantic reads it)
