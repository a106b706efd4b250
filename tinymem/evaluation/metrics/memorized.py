"""(n, k) memorization: greedy decoding from the first k tokens reproduces the rest of the n, word for word.

Formula: rows with arg-max p(. | s[:t]) = s[t] for all k <= t < n, divided by all scored rows; one teacher-forced pass decides it
Unit: share of rows
Direction: lower is better after a mitigation
Range: 0 to 1
Source: TinyMem paper, Definition 2.1 and equation 1; Carlini et al. 2023

For every k of `evaluation.ks` in addition to `evaluation.prompt`; n = prompt + match stays. Noise: the prompt is the clean counterpart's
first k tokens, and rows that equal their counterpart between k and n are not scored, so each k has separate rows. Backdoors and canaries
have prompts of their own length and one number. Rows equal up to n pass once, so further k cost only the prompts that differ.
"""

from __future__ import annotations

from tinymem.evaluation.forward import Key, TokenQuery
from tinymem.evaluation.inputs import EvaluationInputs
from tinymem.evaluation.metric import metric
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject


def _rows(evaluator: EvaluationInputs) -> dict[Key, TokenQuery]:
    probes = evaluator.probes_by_k.items()
    return {(f"k={k}", kind): evaluator.query(probe) for k, by_kind in probes for kind, probe in by_kind.items()}


@metric("memorized", default=True, rows=_rows)
def memorized(view: View, kind: str) -> JsonObject:
    """Share of memorized rows, by prompt length and group."""
    found: JsonObject = {view.evaluator.prompt_names[kind]: view.by_group(kind, view.memorized[kind])}
    for k, probes in view.evaluator.probes_by_k.items():
        if kind in probes:
            flags = view.memorized_on(f"k={k}", kind, probes[kind])
            found[f"k={k}"] = view.by_group(kind, flags, probes[kind].index)
    return found
