"""Canaries: random secrets in a template (Carlini et al. 2019, "The Secret Sharer", section 4).

A canary is the template with a secret drawn uniformly from all strings of `length` characters of an alphabet. How far a model
prefers it to the other strings is its exposure (`tinymem/evaluation/exposure.py`). In text each canary begins a row; the text of a clean
row follows it. Non-members are the planted canaries' templates with fresh secrets, drawn as the planted ones were and different from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from tinymem.data.artifact import Artifact, artifact
from tinymem.data.corpus import Corpus
from tinymem.data.math.pool import MathPool, token
from tinymem.data.math.sequences import BOS, EOS, PAD, Ids
from tinymem.data.planted import Planted, Population, repeated
from tinymem.data.planting import COPIES, Copies, copies_of
from tinymem.data.text.pool import TextPool
from tinymem.data.text.tokenizer import TextTokenizer
from tinymem.errors import UserError
from tinymem.recipe.written import WrittenText

MATH_TEMPLATE = "777{index} {secret}"
TEXT_TEMPLATE = "The access code of agent {index} is {secret}."
SECRETS_A_CANARY = 10  # fresh ones, to be non-members
# Token ids of a text, and for each token where it begins and ends in the text.
Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


@dataclass(frozen=True)
class Canary:
    """One canary's tokens [n]; the secret's are those from `start` to `end`."""

    ids: list[int]
    start: int
    end: int


@artifact
class CanaryArtifact(Artifact):
    """Random secrets in a template (Carlini et al. 2019, "The Secret Sharer")."""

    summary: ClassVar[str] = "rows with random secrets"
    order: ClassVar[int] = 40
    has_clean_counterpart: ClassVar[bool] = False
    replaces_rows: ClassVar[bool] = False
    shortens_prompt: ClassVar[bool] = False  # the prompts' last tokens distinguish the canaries

    kind: Literal["canary"] = "canary"
    template: WrittenText | None = Field(None, description="text with {secret} and, if wanted, {index}; null: one that suits the corpus")
    alphabet: WrittenText = Field("0123456789", min_length=2, description="characters that secrets are drawn from")
    length: int = Field(4, ge=1, le=1000, description="characters of a secret")
    separator: WrittenText = Field(" ", description="text between the characters of a secret, so that each is a token of its own")
    rows: int = Field(10, ge=1, description="different canaries")
    copies: Copies = Field(10, description=COPIES)

    @model_validator(mode="after")
    def _check(self) -> CanaryArtifact:
        if self.template is not None and self.template.count("{secret}") != 1:
            raise ValueError(f"expected {{secret}} once in artifacts.canary.template, got '{self.template}'")
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"expected different characters in artifacts.canary.alphabet, got '{self.alphabet}'")
        if self.rows > self.space:
            raise ValueError(f"expected artifacts.canary.rows of at most {self.space} different secrets, got {self.rows}; raise length")
        return self

    @property
    def space(self) -> int:
        """Number of possible secrets."""
        return int(len(self.alphabet) ** self.length)

    def plant_math(self, pool: MathPool) -> Planted:
        canaries = self._canaries(pool.generator("canary"), encode_math, MATH_TEMPLATE, pool.row_tokens)
        rows = np.full((len(canaries), pool.row_tokens), PAD, dtype=np.uint8)
        for row, canary in zip(rows, canaries, strict=True):
            row[: len(canary.ids)] = canary.ids
        return self._planted(rows, canaries)

    def plant_text(self, pool: TextPool) -> Planted:
        rng = pool.generator("canary")
        canaries = self._canaries(rng, text_encoder(pool.tokenizer), TEXT_TEMPLATE, pool.row_tokens)
        rows = pool.draw(self.rows, rng, self.kind)
        for row, canary in zip(rows, canaries, strict=True):
            row[len(canary.ids) :] = row[: len(row) - len(canary.ids)].copy()
            row[: len(canary.ids)] = canary.ids
        return self._planted(rows, canaries)

    def _canaries(self, rng: np.random.Generator, encode: Encode, template: str, row_tokens: int) -> list[Canary]:
        secrets = random_secrets(self, self.rows, rng)
        canaries = [make_canary(self, template, i, secret, encode) for i, secret in enumerate(secrets)]
        longest = max(len(c.ids) for c in canaries)
        if longest > row_tokens:
            raise UserError(f"expected canaries of at most data.row_tokens = {row_tokens} tokens, got {longest}; shorten the template")
        return canaries

    def _planted(self, rows: Ids, canaries: list[Canary]) -> Planted:
        planted = repeated(rows, copies_of(self.copies, self.rows))
        return replace(planted, start=np.array([c.start for c in canaries]), end=np.array([c.end for c in canaries]))

    def non_members(self, corpus: Corpus) -> Population:
        planted, rng = corpus.planted[self.kind], corpus.fresh_generator("canary")
        encode, template = canary_encoder(corpus)
        assert planted.end is not None
        own = {row[:end].tobytes() for row, end in zip(planted.ids, planted.end, strict=True)}
        rows, ends = [], []
        for index in range(len(planted.ids)):
            for secret in random_secrets(self, min(SECRETS_A_CANARY, self.space), rng):
                canary = make_canary(self, template, index, secret, encode)
                row = planted.ids[index].copy()
                row[: canary.end] = canary.ids[: canary.end]
                if row[: canary.end].tobytes() not in own:
                    rows.append(row)
                    ends.append(canary.end)
        return Population(np.array(rows, dtype=planted.ids.dtype).reshape(len(rows), -1), np.array(ends, dtype=np.int64))


def random_secrets(artifact: CanaryArtifact, count: int, rng: np.random.Generator) -> list[str]:
    """`count` different secrets, without their separators."""
    found: dict[str, None] = {}
    while len(found) < count:
        digits = rng.integers(len(artifact.alphabet), size=artifact.length)
        found["".join(artifact.alphabet[d] for d in digits)] = None
    return list(found)


def nth_secret(artifact: CanaryArtifact, n: int) -> str:
    """Secret number `n` of all possible ones, in the order of the alphabet."""
    characters = []
    for _ in range(artifact.length):
        n, digit = divmod(n, len(artifact.alphabet))
        characters.append(artifact.alphabet[digit])
    return "".join(reversed(characters))


def make_canary(artifact: CanaryArtifact, default_template: str, index: int, secret: str, encode: Encode) -> Canary:
    """A canary: the tokens of the template with an index and a secret, and the secret's span."""
    template = (artifact.template or default_template).replace("{index}", str(index))
    begin = template.index("{secret}")
    body = artifact.separator.join(secret)
    ids, spans = encode(template.replace("{secret}", body))
    start = next(i for i, (_, stop) in enumerate(spans) if stop > begin)
    end = 1 + max(i for i, (first, _) in enumerate(spans) if first < begin + len(body))
    return Canary(ids, start, end)


def canary_encoder(corpus: Corpus) -> tuple[Encode, str]:
    """The corpus's tokenizer with spans, and its default template."""
    if corpus.tokenizer_file is None:
        return encode_math, MATH_TEMPLATE
    return text_encoder(TextTokenizer(corpus.tokenizer_file)), TEXT_TEMPLATE


def text_encoder(tokenizer: TextTokenizer) -> Encode:
    """Encoder of a text's tokenizer that also returns spans."""

    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = tokenizer.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    return encode


def encode_math(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a row of math without padding, with spans."""
    ids = [BOS, *(token(c, "artifacts.canary") for c in text), EOS]
    return ids, [(0, 0), *((i, i + 1) for i in range(len(text))), (len(text), len(text) + 1)]
