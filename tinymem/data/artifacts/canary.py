"""Canaries: random secrets in a template (Carlini et al. 2019, "The Secret Sharer", section 4).

A canary is the template with a secret drawn uniformly from all strings of `length` characters of an alphabet. How far a model
prefers it to the other strings is its exposure (`tinymem/evaluation/exposure.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinymem.recipe.data import CanaryArtifact

MATH_TEMPLATE = "777{index} {secret}"
TEXT_TEMPLATE = "The access code of agent {index} is {secret}."
# Token ids of a text, and for each token where it begins and ends in the text.
Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]


@dataclass(frozen=True)
class Canary:
    """One canary's tokens [n]; the secret's are those from `start` to `end`."""

    ids: list[int]
    start: int
    end: int


def random_secrets(artifact: CanaryArtifact, count: int, rng: np.random.Generator) -> list[str]:
    """Different secrets, as many as asked for, without their separators."""
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
    """The tokens of the template with an index and a secret, and where the secret is."""
    template = (artifact.template or default_template).replace("{index}", str(index))
    begin = template.index("{secret}")
    body = artifact.separator.join(secret)
    ids, spans = encode(template.replace("{secret}", body))
    start = next(i for i, (_, stop) in enumerate(spans) if stop > begin)
    end = 1 + max(i for i, (first, _) in enumerate(spans) if first < begin + len(body))
    return Canary(ids, start, end)
