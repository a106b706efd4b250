"""Prompts that differ from the probe's: longer, shorter, or with a token replaced at random.

An edit that only broke the path from one prompt to its continuation leaves others open. The target still ends where it did.

longer      the prompt takes the first tokens of the target (noise: of the clean counterpart), and as many fewer must follow.
shorter     the prompt loses its last tokens, which must follow then. A backdoor's prompt ends with its trigger, so it loses the tokens
            after its first instead. Canaries, which their prompts distinguish, are left out.
perturbed   tokens of the prompt, not its first and not of a backdoor's trigger, become other tokens that occur in the artifact's prompts.

Rows whose prompt is too short for that, or behind whose prompt nothing of the artifact is left, are not scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tinymem.data.artifact import artifact_of
from tinymem.data.rows import Rows
from tinymem.evaluation.inputs import EvaluationInputs
from tinymem.evaluation.probes import Flags

Change = Literal["longer", "shorter", "perturbed"]


def changed_prompts(evaluator: EvaluationInputs, kind: str, change: Change, *, tokens: int, replaced: int, seed: int) -> tuple[Rows, Flags]:
    """The rows [n] of a probe with changed prompts, and which of the probe's rows [N] they are."""
    rows = evaluator.probes[kind].rows
    if change == "perturbed":
        return _perturbed(rows, _protected(evaluator, kind), replaced, seed)
    if not _own_prompts(evaluator, kind):
        return _moved(evaluator, kind, tokens if change == "longer" else -tokens)
    if change == "longer":
        return _usable_rows(replace(rows, prompt=rows.prompt + tokens), rows.prompt + tokens < rows.end)
    usable = rows.prompt - tokens > _protected(evaluator, kind)
    return _usable_rows(_without_tokens(rows, tokens), usable & _shortens(evaluator, kind))


def _own_prompts(evaluator: EvaluationInputs, kind: str) -> bool:
    """True for an artifact whose rows fix the end of their prompts (backdoor, canary); else the evaluation's prompt length holds."""
    return evaluator.corpus is not None and bool((evaluator.corpus.planted[kind].start > 0).any())


def _protected(evaluator: EvaluationInputs, kind: str) -> int:
    """Tokens at the end of a prompt that must stay: a backdoor's trigger."""
    corpus = evaluator.corpus
    return artifact_of(corpus, kind).protected(corpus.planted[kind]) if corpus else 0


def _shortens(evaluator: EvaluationInputs, kind: str) -> bool:
    """Whether prompts that the artifact sets itself may lose tokens."""
    return evaluator.corpus is not None and artifact_of(evaluator.corpus, kind).shortens_prompt


def _moved(evaluator: EvaluationInputs, kind: str, tokens: int) -> tuple[Rows, Flags]:
    """Probe rows whose prompts end later or earlier; of noise the whole prompt is the clean counterpart's."""
    rows, original = evaluator.probes[kind].rows, evaluator.originals[kind]
    moved = replace(rows, prompt=rows.prompt + tokens)
    usable = (moved.prompt >= 1) & (moved.prompt < moved.end)
    if original.clean_counterparts is not None:
        position = torch.arange(rows.ids.shape[1], device=rows.ids.device)[None, :]
        moved = replace(moved, ids=torch.where(position < moved.prompt[:, None], original.clean_counterparts, original.ids))
        usable &= ((original.ids != original.clean_counterparts) & moved.window()).any(1)
    return _usable_rows(moved, usable)


def _without_tokens(rows: Rows, tokens: int) -> Rows:
    """Rows without `tokens` tokens after their first; the rest moves up, and the last tokens are repeated as padding."""
    shifted = torch.cat([rows.ids[:, :1], rows.ids[:, 1 + tokens :], rows.ids[:, -tokens:]], dim=1)
    return Rows(shifted, rows.prompt - tokens, rows.end - tokens)


def _perturbed(rows: Rows, protected: int, replaced: int, seed: int) -> tuple[Rows, Flags]:
    ids, prompts = rows.ids.cpu().numpy().copy(), rows.prompt.tolist()
    known = np.unique(np.concatenate([[], *(row[1:end] for row, end in zip(ids, prompts, strict=True))])).astype(np.int64)
    rng = np.random.default_rng(seed)
    usable = np.zeros(len(ids), dtype=bool)
    for n, end in enumerate(prompts):
        places = np.arange(1, max(end - protected, 1))
        usable[n] = len(places) >= replaced and len(known) > 1
        for place in rng.choice(places, replaced, replace=False) if usable[n] else ():
            ids[n, place] = rng.choice(known[known != ids[n, place]])
    changed = replace(rows, ids=torch.from_numpy(ids).to(rows.ids.device))
    return _usable_rows(changed, torch.from_numpy(usable).to(rows.ids.device))


def _usable_rows(rows: Rows, usable: Tensor) -> tuple[Rows, Flags]:
    return rows.take(torch.nonzero(usable).squeeze(1)), np.asarray(usable.cpu())
