"""Deletion: what is lost when the neurons that a scorer names for a row are dropped, of that row, of others, and of ordinary text.

The DEL Benchmark of Chang et al. 2024, section 2.2 and Table 4. A dropped neuron's activation is 0 at every position, prompt included.
Everything is teacher-forced, as published: accuracy is the share of a row's suffix tokens that are the arg-max of their own prefix, and
the distance is between the texts that prompt and arg-max tokens, and prompt and true tokens, decode to.

Shape suffixes: S rows, R rows of ordinary text, L layers, F neurons of a layer, T tokens, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.ratios import check_ratio
from tinymem.localization.recall import bootstrap, scored
from tinymem.localization.text_cost import BATCH, text_intervals
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron._common import gated
from tinymem.models.adapters import logits, vocabulary_of
from tinymem.runtime.progress import Bar, SilentBar

Decode = Callable[[list[int]], str]
MAXIMUM_LOGITS = 1 << 28


@dataclass(frozen=True)
class State:
    """A model's answers to rows and to ordinary text.

    Attributes:
        accuracy_S: share of each row's suffix tokens that are right.
        distance_S: characters between each row's text and the model's; NaN where texts cannot be compared.
        nll_R: mean next-token loss of each row of ordinary text, in nats.
    """

    accuracy_S: Tensor
    distance_S: Tensor
    nll_R: Tensor


@dataclass(frozen=True)
class Deletion:
    """The unedited model's state, and that without the neurons of each target in turn.

    Attributes:
        before: of the unedited model.
        targets_N: rows whose neurons were dropped.
        accuracy_NS: accuracy of every row under each target's edit.
        distance_NS: distances likewise.
        nll_NR: losses of ordinary text likewise, in nats.
        dropped: neurons that each edit drops.
    """

    before: State
    targets_N: Tensor
    accuracy_NS: Tensor
    distance_NS: Tensor
    nll_NR: Tensor
    dropped: int

    @property
    def confusion_NS(self) -> Tensor:
        """Change of accuracy of each row (column) when a target's (line) neurons are dropped; its diagonal is the change of the targets."""
        return self.accuracy_NS - self.before.accuracy_S

    def changes(self) -> dict[str, Tensor]:
        """Per target [N] the change of each metric: of the target itself, of the mean other row, and of ordinary text."""
        own, other = _own_and_others(self.confusion_NS, self.targets_N)
        far, far_others = _own_and_others(self.distance_NS - self.before.distance_S, self.targets_N)
        base, after = self.before.nll_R.double(), self.nll_NR.double()
        return {
            "self_accuracy": own,
            "other_accuracy": other,
            "self_distance": far,
            "other_distance": far_others,
            "text_nll": after.mean(1) - base.mean(),
            "text_perplexity": after.mean(1).exp() - base.mean().exp(),
            "text_perplexity_base2": published_perplexity(after) - published_perplexity(base[None]),
        }

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """Mean of each change over the targets with its 95 % bootstrap interval, paired with the unedited model: (mean, low, high).

        Intervals are over targets; those of ordinary text over targets and rows of text (`text_cost`).
        """
        text, known = text_intervals(self.before.nll_R, self.nll_NR), self.known_changes()
        return {name: (float(values_N.double().mean()), *(text.get(name) or bootstrap(values_N))) for name, values_N in known.items()}

    def known_changes(self) -> dict[str, Tensor]:
        """The changes that were measured for every target: without a decoder no distances, without text no losses of it."""
        return {name: values_N for name, values_N in self.changes().items() if not values_N.isnan().any()}


def published_perplexity(nll_NR: Tensor, batch: int = BATCH) -> Tensor:
    """The published "perplexity" [N]: 2 to the power of a loss in nats, by batches of rows, then the mean (spec of the published code).

    It is far below the perplexity, e to the power of the mean loss: 10.2 stands for 28.4.
    """
    return torch.stack([2 ** part.mean(1) for part in nll_NR.split(batch, dim=1)]).mean(0)


def _own_and_others(values_NS: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    own_N = values_NS.gather(1, targets_N[:, None]).squeeze(1)
    return own_N, (values_NS.sum(1) - own_N) / max(1, values_NS.shape[1] - 1)


@torch.no_grad()
def delete(
    model: nn.Module,
    rows: Rows,
    text: Rows,
    chosen_NLF: Tensor,
    *,
    targets: Tensor | None = None,
    decode: Decode | None = None,
    bar: Bar | None = None,
) -> Deletion:
    """Drop each target's neurons in turn and measure all rows and the ordinary text.

    Args:
        model: of any registered family; it is left as it was.
        rows: memorized rows [S, T], with prompts and suffixes.
        text: ordinary rows [R, T], measured to their own ends.
        chosen_NLF: mask of the neurons that each target's edit drops.
        targets: the targets' places in `rows`; default: all rows.
        decode: token ids to text, for distances; None: no distances.
        bar: counts targets.

    Raises:
        UserError: fewer than two rows, so that there is no other one.
    """
    if len(rows) < 2:
        raise UserError(f"expected at least 2 memorized rows, one of them to compare with, got {len(rows)}; name more rows")
    bar, targets_N = bar or SilentBar(), torch.arange(len(rows)) if targets is None else targets
    bar.expect(len(targets_N))
    before, states = _state(model, rows, text, decode), []
    for chosen_LF in chosen_NLF:
        with gated(model, [(~chosen_F).float() for chosen_F in chosen_LF]):
            states.append(_state(model, rows, text, decode))
        bar.advance(1)
    return Deletion(
        before,
        targets_N.to(rows.ids.device),
        torch.stack([state.accuracy_S for state in states]),
        torch.stack([state.distance_S for state in states]),
        torch.stack([state.nll_R for state in states]),
        int(chosen_NLF[0].sum()) if len(chosen_NLF) else 0,
    )


@torch.no_grad()
def suffix_accuracy(model: nn.Module, rows: Rows) -> Tensor:
    """Share [S] of each row's suffix tokens that are the arg-max of their own prefix."""
    found = [_right(batch, _guesses(model, batch)) for batch in _batches(model, rows)]
    return torch.cat(found) if found else torch.zeros(0, device=rows.ids.device)


def _guesses(model: nn.Module, rows: Rows) -> Tensor:
    return logits(model, rows.ids)[:, :-1].argmax(-1)


def _right(rows: Rows, guess_BT: Tensor) -> Tensor:
    window_BT = rows.window()[:, 1:]
    return ((guess_BT == rows.ids[:, 1:]) & window_BT).sum(1) / window_BT.sum(1).clamp(min=1)


def _state(model: nn.Module, rows: Rows, text: Rows, decode: Decode | None) -> State:
    accuracies, distances = [], []
    for batch in _batches(model, rows):
        guess_BT = _guesses(model, batch)
        accuracies.append(_right(batch, guess_BT))
        distances.append(_distances(batch, guess_BT, decode))
    losses = [row_losses(model, batch, "row") for batch in _batches(model, text)] if len(text) else [torch.zeros(0, device=rows.ids.device)]
    return State(torch.cat(accuracies), torch.cat(distances), torch.cat(losses))


def _batches(model: nn.Module, rows: Rows) -> Iterator[Rows]:
    yield from rows.batches(max(1, min(128, MAXIMUM_LOGITS // (rows.ids.shape[1] * vocabulary_of(model)))))


def _distances(rows: Rows, guess_BT: Tensor, decode: Decode | None) -> Tensor:
    if decode is None:
        return torch.full((len(rows),), math.nan, device=rows.ids.device)
    from rapidfuzz.distance import Levenshtein

    said = torch.where(rows.window()[:, 1:], guess_BT, rows.ids[:, 1:])
    found = []
    for ids, guess, end in zip(rows.ids.tolist(), said.tolist(), rows.end.tolist(), strict=True):
        written, true = [ids[0], *guess][:end], ids[:end]
        found.append(0 if written == true else Levenshtein.distance(decode(written), decode(true)))
    return torch.tensor(found, dtype=torch.float32, device=rows.ids.device)


def located(scores_SLF: Tensor, ratio: float, *, skip_bottom: bool = True) -> Tensor:
    """Mask [S, L, F] of the int(F * ratio) highest scores of each layer that has any, by default without the bottom one, as published.

    Raises:
        UserError: a ratio of less than one neuron a layer, or a model of one layer with `skip_bottom`.
    """
    width, layers = scores_SLF.shape[2], scores_SLF.shape[1]
    check_ratio(ratio, width)
    count = int(width * ratio + 1e-6)
    if skip_bottom and layers < 2:
        raise UserError("expected a model of at least 2 layers, got 1, since the bottom layer is not edited; use skip_bottom: false")
    chosen = torch.zeros_like(scores_SLF, dtype=torch.bool)
    chosen.scatter_(2, torch.sort(scores_SLF, dim=2, descending=True, stable=True).indices[..., :count], True)
    if skip_bottom:
        chosen[:, 0] = False
    return chosen & scored(scores_SLF)
