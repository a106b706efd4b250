"""Members and non-members for membership inference: rows that differ in nothing but having been trained on.

An attack that tells apart two distributions of rows is no evidence of memorization, so non-members are drawn as the members were:

noise        members are the planted rows that the noise changed; non-members are test rows of the same task (math: the primary one) with
             fresh noise of the same probability. Members and test rows are a random split of one pool, and neither's clean version is
             trained on. As with members, none equals a row of the corpus and none holds the backdoor's trigger.
backdoor     the triggered rows kept from training: a random part of all triggered rows.
duplication  test rows of the same task: the duplicated rows are a random part of the others.
canary       the planted canaries' templates with fresh secrets, drawn as the planted ones were and different from them.

Text whose test rows are another split, or the end of the text, differs from its training rows a little by topic: there compare the number
after a mitigation with that of a model that has never seen the rows, not with 0.5.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymem.data.artifacts.backdoor import trigger_ends
from tinymem.data.artifacts.canary import make_canary, random_secrets
from tinymem.data.artifacts.noise import add_noise, add_token_noise
from tinymem.data.corpus import Corpus, Planted
from tinymem.data.math.sequences import BOS, CHARACTERS, EOS, PAD, SPACE, Ids, Numbers, render
from tinymem.evaluation.exposure import canary_encoder
from tinymem.evaluation.originals import content_lengths
from tinymem.recipe.data import CanaryArtifact

SECRETS_A_CANARY = 10
DIFFERENT_SEED = 1  # appended to the corpus's seed, for fresh noise and secrets


@dataclass(frozen=True)
class Population:
    """Rows [N, T], the number [N] of leading tokens of each that count, and for members their indices [N] among the planted rows."""

    ids: Ids
    content: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]


def populations(corpus: Corpus, kind: str) -> tuple[Population, Population]:
    """Members and non-members of one artifact; the latter are empty where the corpus has none."""
    planted = corpus.planted[kind]
    members = np.flatnonzero(planted.trained & ((planted.ids != planted.clean).any(1) | (kind != "noise")))
    if kind == "canary":
        others = _fresh_canaries(corpus, planted)
        assert planted.end is not None
        return Population(planted.ids[members], planted.end[members], members), others
    rows = {"noise": _fresh_noise, "backdoor": _held_out, "duplication": _test_rows}[kind](corpus)
    return _population(corpus, planted.ids[members], members), _population(corpus, rows, np.arange(len(rows)))


def _population(corpus: Corpus, ids: Ids, index: npt.NDArray[np.int64]) -> Population:
    return Population(ids, content_lengths(ids, corpus.pad).numpy(), index)


def _held_out(corpus: Corpus) -> Ids:
    planted = corpus.planted["backdoor"]
    return planted.ids[~planted.trained]


def _test_rows(corpus: Corpus) -> Ids:
    """Test rows of the task that artifacts are planted in; all of them for text."""
    if corpus.is_text:
        return np.concatenate([*corpus.tests.values()])
    return corpus.tests[str(corpus.spec["data"]["primary"])]


def _fresh_noise(corpus: Corpus) -> Ids:
    clean = _test_rows(corpus)
    artifact = next(a for a in corpus.spec["artifacts"] if a["kind"] == "noise")
    rng = _generator(corpus, "noise")
    if corpus.is_text:
        noised = add_token_noise(clean, artifact["probability"], corpus.vocab_size, rng)
    else:
        noised = render(add_noise(_numbers(clean), artifact["probability"], rng), corpus.row_tokens)
    usable = (noised != clean).any(1) & ~_known(corpus, noised)
    if "backdoor" in corpus.planted:
        trigger = common_ending(corpus.planted["backdoor"])
        usable &= trigger_ends(noised, trigger) < 0 if len(trigger) else True
    return noised[usable]


def _known(corpus: Corpus, rows: Ids) -> npt.NDArray[np.bool_]:
    """Mask [N] of rows that are also trained, planted or test rows of the corpus."""
    parts = [*corpus.tests.values(), *(p.ids for p in corpus.planted.values())]
    if not corpus.is_text:  # the text's many rows are noised in ids that no text has
        parts.append(corpus.clean)
    known = {row.tobytes() for part in parts for row in part.astype(rows.dtype)}
    return np.array([row.tobytes() in known for row in rows], dtype=bool)


def common_ending(planted: Planted) -> npt.NDArray[np.int64]:
    """The tokens that all prompts of an artifact end with: a backdoor's trigger (and more, if few rows share more)."""
    length = int(planted.start.min(initial=planted.ids.shape[1]))
    endings = np.array([row[start - length : start] for row, start in zip(planted.ids, planted.start, strict=True)])
    different = np.flatnonzero((endings != endings[:1]).any(0)) if len(endings) else np.array([length - 1])
    return endings[0, 1 + different.max(initial=-1) :].astype(np.int64) if len(endings) else np.zeros(0, dtype=np.int64)


def _numbers(ids_NT: Ids) -> Numbers:
    """The numbers [N, L] that rows of math were written from."""
    skipped = {BOS, EOS, PAD}
    texts = ("".join(" " if i == SPACE else CHARACTERS[i] for i in row if i not in skipped) for row in ids_NT.tolist())
    return np.array([[int(number) for number in text.split()] for text in texts], dtype=np.int64)


def _fresh_canaries(corpus: Corpus, planted: Planted) -> Population:
    artifact = CanaryArtifact.model_validate(next(a for a in corpus.spec["artifacts"] if a["kind"] == "canary"))
    encode, template = canary_encoder(corpus)
    rng = _generator(corpus, "canary")
    assert planted.end is not None
    own = {row[:end].tobytes() for row, end in zip(planted.ids, planted.end, strict=True)}
    rows, ends = [], []
    for index in range(len(planted.ids)):
        for secret in random_secrets(artifact, min(SECRETS_A_CANARY, artifact.space), rng):
            canary = make_canary(artifact, template, index, secret, encode)
            row = planted.ids[index].copy()
            row[: canary.end] = canary.ids[: canary.end]
            if row[: canary.end].tobytes() not in own:
                rows.append(row)
                ends.append(canary.end)
    return Population(np.array(rows, dtype=planted.ids.dtype).reshape(len(rows), -1), np.array(ends, dtype=np.int64), np.arange(len(rows)))


def _generator(corpus: Corpus, purpose: str) -> np.random.Generator:
    return np.random.default_rng([corpus.spec["seed"], zlib.crc32(purpose.encode()), DIFFERENT_SEED])
