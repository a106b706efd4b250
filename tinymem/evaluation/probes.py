"""% memorized: the share of artifact rows that greedy decoding reproduces (paper, equation 1, Definitions 2.1 to 2.3).

A row is memorized when, given its prompt, greedy decoding yields exactly the next tokens of the planted row. One teacher-forced pass
decides that: greedy decoding reproduces the target if and only if the arg-max at every target position, given the true tokens before it,
is the target (by induction; a test compares with a decode loop). Scored in fp32.

Noise: the prompt is the first k tokens of the *clean* counterpart, the target the next m tokens of the noised row; rows whose targets equal
the counterpart's are not scored. Backdoor: the prompt ends with the trigger; the target is the next m tokens, or as many as the row has.
Duplicated rows: the first k tokens, the next m, all rows. Canary: everything before the secret, the secret.

Padding is no target, and EOS ends a row where nothing but EOS or padding follows: a target ends with the first of those, and a row that
ends inside its prompt is not scored. Where padding is EOS itself, as in GPT-2, an EOS inside a row is a token like any other.

Protocol `reference` takes m tokens, padding included, forbids EOS while generating (rows that end inside the window never count), scores
held-out backdoor rows only, and filters those with the prompt length of the row before, as the published evaluator does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinymem.data.artifact import artifact_of
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import EOS, Ids
from tinymem.data.planted import Indices, Planted
from tinymem.data.rows import Rows
from tinymem.evaluation.forward import ForwardPlan, TokenQuery
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.evaluation import Evaluation

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Probe:
    """The test of one artifact: prompts with their targets, for scored rows only."""

    rows: Rows
    index: Indices
    """Index [N] of each row in `Planted`."""
    trained: Flags
    """Mask [N] of rows that were in the training set; the others are held-out triggered rows."""
    prompt_changed: Flags
    """Noise: rows whose own prompt was noised in training, so that the clean prompt was never seen before this target."""
    copies: Indices
    """Times [N] that each row occurs in an epoch, its duplication class; 0 for held-out rows."""

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Probe:
        """This probe with its rows on another device."""
        return replace(self, rows=self.rows.to(device))


@torch.no_grad()
def memorized_rows(model: nn.Module, rows: Rows, *, batch_size: int = 512, forbid: int | None = None) -> Tensor:
    """Mask [N], on the CPU, of rows that greedy decoding reproduces from prompt to end.

    `forbid`: a token that decoding may not produce (protocol reference: EOS).
    """
    plan = ForwardPlan({("rows", ""): TokenQuery(rows.ids, rows.window(), forbid is not None)})
    scores = plan.scores(plan.outputs(model, batch_size=batch_size, forbid=forbid), ("rows", ""))
    return scores.memorized(rows.window()).cpu()


def make_probes(corpus: Corpus, evaluation: Evaluation, protocol: Protocol) -> dict[str, Probe]:
    """The test of each artifact of a corpus."""
    return {
        kind: _probe(corpus, planted, evaluation, protocol, has_counterparts=artifact_of(corpus, kind).has_clean_counterpart)
        for kind, planted in corpus.planted.items()
    }


def probe_of_rows(rows: Rows) -> Probe:
    """A probe of any rows: each row's target reaches from its prompt to its end."""
    count = len(rows)
    return Probe(rows, np.arange(count), np.ones(count, dtype=bool), np.zeros(count, dtype=bool), np.ones(count, dtype=np.int64))


def forbidden_token(protocol: Protocol, eos: int = EOS) -> int | None:
    """The token that decoding may not produce: EOS under protocol `reference`, else None."""
    return eos if protocol == "reference" else None


def target_ends(corpus: Corpus, planted: Planted, rows: Ids, evaluation: Evaluation, protocol: Protocol) -> Indices:
    """Token [n] after the target of each planted row, or of its clean counterpart (`rows`).

    A target has `evaluation.match` tokens, or as many as its row has; under protocol reference the row has its padding.
    """
    if planted.end is not None:
        return planted.end
    last = rows.shape[1] if protocol == "reference" else corpus.row_ends(rows, protocol)
    return np.minimum(_prompt_ends(planted, evaluation) + evaluation.match, last)


def _prompt_ends(planted: Planted, evaluation: Evaluation) -> Indices:
    return np.where(planted.start > 0, planted.start, evaluation.prompt)


def _probe(corpus: Corpus, planted: Planted, evaluation: Evaluation, protocol: Protocol, *, has_counterparts: bool) -> Probe:
    position = np.arange(planted.ids.shape[1])[None, :]
    start = _prompt_ends(planted, evaluation)
    end = target_ends(corpus, planted, planted.ids, evaluation, protocol)
    window = (position >= start[:, None]) & (position < end[:, None])
    differs = planted.ids != planted.clean
    scored = (differs & window).any(1) if has_counterparts else window.any(1)
    if protocol == "reference" and not planted.trained.all():
        scored = _reference_filter(planted, evaluation)
    index = np.flatnonzero(scored)
    before = position < start[:, None]
    ids = np.where(before, planted.clean, planted.ids)[index]
    return Probe(
        rows=Rows.of(ids, torch.from_numpy(start[index]), torch.from_numpy(end[index])),
        index=index,
        trained=planted.trained[index],
        prompt_changed=(differs & before).any(1)[index],
        copies=planted.copies[index],
    )


def _reference_filter(planted: Planted, evaluation: Evaluation) -> Flags:
    """Rows that the published evaluator counts: it looks for a difference behind the prompt of the row counted before."""
    scored = np.zeros(len(planted.ids), dtype=bool)
    prompt = evaluation.prompt
    for i in np.flatnonzero(~planted.trained):
        window = slice(prompt, prompt + evaluation.match)
        if (planted.ids[i, window] != planted.clean[i, window]).any():
            scored[i] = True
            prompt = int(planted.start[i])
    return scored
