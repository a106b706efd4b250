"""Probing: from which layer on do states tell that a decision was planted, and which target they lead to (Dankers and Titov 2024).

Noise probes (section 3.1) tell noised decisions from clean ones; how much the F1 score rises from a layer to the next is that layer's
weight, where the first is compared with the first layer of the model that training began with. Label probes (section 5) predict the target,
one the original and one the planted one: memorization has overtaken generalization at the first layer where the second's F1 on
noised decisions is 0.10 above the first's, and classification begins at the first layer where the F1 on clean decisions has come 90 % of
the way from guessing to its best. All F1 scores are means over classes, of the test part, and over seeds.

Shape suffixes: S seeds, L blocks, P probes (the embedding, then each block), n decisions, D embedding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tinymem.errors import UserError
from tinymem.localization.layers.findings import Finding, summary
from tinymem.localization.layers.probe import ProbeOptions, Split, macro_f1, probed, split_by_group
from tinymem.localization.layers.subject import Decisions, LayerSubject, states
from tinymem.runtime.progress import Bar

CLASS_WEIGHTS = (0.33, 0.67)  # clean, noised
LEAD, REACHED = 0.10, 0.9
MOST_CLASSES, LEAST = 16, 10


def noise_probes(subject: LayerSubject, options: ProbeOptions, bar: Bar) -> list[Finding]:
    """F1 of telling noised from clean decisions behind each layer, and the weights that follow."""
    own_PnD = _states_of(subject)
    first_1nD = torch.cat([states(subject.start, part)[1:2] for part in (subject.noised, subject.clean)], 1)
    labels_n, groups_n = _is_noised(subject), _groups(subject.noised, subject.clean)
    weights_C = torch.tensor(CLASS_WEIGHTS, device=labels_n.device)
    bar.expect(options.seeds)
    scores = []
    for seed, split in _splits(groups_n, options):
        guess_Pn = probed(torch.cat([own_PnD, first_1nD]), labels_n, 2, split, replace(options, seed=seed), weights_C)
        scores.append(macro_f1(guess_Pn[:, split.test], labels_n[split.test], 2))
        bar.advance(1)
    f1_SP = torch.stack(scores).double().cpu()
    means = f1_SP.mean(0)
    before_L = torch.cat([means[-1:], means[1:-2]])
    return _curve("f1", f1_SP[:, :-1]) + summary((means[1:-1] - before_L).clamp(min=0), subject.control)


def label_probes(subject: LayerSubject, options: ProbeOptions, bar: Bar) -> list[Finding]:
    """F1 of both targets behind each layer, and the layers of the two events, from 1; None where one never happens.

    Raises:
        UserError: too few decisions between common targets.
    """
    noised, clean, names = common_targets(subject.noised, subject.clean)
    states_PnD = torch.cat([states(subject.model, part) for part in (noised, clean)], 1)
    original_n, planted_n = (
        torch.searchsorted(names, torch.cat([getattr(p, of) for p in (noised, clean)])) for of in ("original_n", "planted_n")
    )
    is_noised_n = torch.arange(len(original_n), device=names.device) < len(noised)
    bar.expect(2 * options.seeds)
    scores: dict[str, list[Tensor]] = {"f1_planted": [], "f1_original": [], "f1_clean": []}
    for seed, split in _splits(_groups(noised, clean), options):
        tests = {True: split.test[is_noised_n[split.test]], False: split.test[~is_noised_n[split.test]]}
        for name, labels_n in (("planted", planted_n), ("original", original_n)):
            guess_Pn = probed(states_PnD, labels_n, len(names), split, replace(options, seed=seed))
            scores[f"f1_{name}"].append(macro_f1(guess_Pn[:, tests[True]], labels_n[tests[True]], len(names)))
            if name == "original":
                scores["f1_clean"].append(macro_f1(guess_Pn[:, tests[False]], labels_n[tests[False]], len(names)))
            bar.advance(1)
    f1 = {name: torch.stack(values).double().cpu() for name, values in scores.items()}
    found = [finding for name, f1_SP in f1.items() for finding in _curve(name, f1_SP)]
    overtaken = overtaking(f1["f1_planted"].mean(0)[1:], f1["f1_original"].mean(0)[1:])
    begun = initiation(f1["f1_clean"].mean(0)[1:], 1 / len(names))
    return [*found, Finding("overtaking", overtaken), Finding("initiation", begun)]


def overtaking(planted_L: Tensor, original_L: Tensor) -> int | None:
    """First layer, from 1, where the F1 of planted targets is 0.10 above that of original ones (memorization over generalization)."""
    return _first(planted_L > original_L + LEAD)


def initiation(clean_L: Tensor, chance: float) -> int | None:
    """First layer, from 1, where the F1 of clean targets has come more than 90 % of the way from chance to its best layer's."""
    best = float(clean_L.max())
    return _first((clean_L - chance) / (best - chance) > REACHED) if best > chance else None


def common_targets(noised: Decisions, clean: Decisions) -> tuple[Decisions, Decisions, Tensor]:
    """Decisions whose planted and original target are among the noised ones' most frequent (at most 16), and these targets, rising.

    Raises:
        UserError: fewer than 10 such decisions, noised or clean.
    """
    counted, counts = torch.cat([noised.planted_n, noised.original_n]).unique(return_counts=True)
    names = counted[counts.argsort(descending=True, stable=True)[:MOST_CLASSES]].sort().values
    kept = [
        part.take((torch.isin(part.planted_n, names) & torch.isin(part.original_n, names)).nonzero().flatten()) for part in (noised, clean)
    ]
    if min(map(len, kept)) < LEAST:
        raise UserError(
            f"expected at least {LEAST} noised and as many clean decisions between common targets, got {len(kept[0])} and {len(kept[1])}; "
            "leave label-probes out, or plant more rows"
        )
    return kept[0], kept[1], names


def _first(holds_L: Tensor) -> int | None:
    index = holds_L.nonzero().flatten()
    return int(index[0]) + 1 if len(index) else None


def _states_of(subject: LayerSubject) -> Tensor:
    return torch.cat([states(subject.model, part) for part in (subject.noised, subject.clean)], 1)


def _is_noised(subject: LayerSubject) -> Tensor:
    count = len(subject.noised) + len(subject.clean)
    return (torch.arange(count, device=subject.noised.row_n.device) < len(subject.noised)).long()


def _groups(noised: Decisions, clean: Decisions) -> Tensor:
    """The row of each decision, so that no row is in two parts of a split."""
    return torch.cat([noised.row_n, clean.row_n + len(noised.ids_RT)])


def _splits(groups_n: Tensor, options: ProbeOptions) -> list[tuple[int, Split]]:
    return [(options.seed + k, split_by_group(groups_n, options.seed + k)) for k in range(options.seeds)]


def _curve(name: str, f1_SP: Tensor) -> list[Finding]:
    """A mean over seeds for the embedding (layer -1) and each block, with the least and greatest seed."""
    return [Finding(name, float(s.mean()), layer, low=float(s.min()), high=float(s.max())) for layer, s in enumerate(f1_SP.T, -1)]
