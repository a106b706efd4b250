"""Detectors of memorized rows on a model of any family: rows of files that it knows by heart, or not, against clean ones.

    python benchmarks/curvature_rows.py MODEL --rows planted/forget.jsonl --clean wiki.jsonl --prompt 16

As `tinymem curvature` for checkpoints with a corpus: half of the clean rows give the spectrum, the first so many of the others are the ones
that memorized rows are compared with. `--others` are rows like the planted ones that were never shown. Prints a line of JSON for each
detector: the mean over memorized rows by that over clean ones, and the AUC of memorized over clean and over other rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.rows import Rows
from tinymem.evaluation.probes import memorized_rows
from tinymem.evaluation.roc import auc
from tinymem.mitigation.detectors import EDGES, scores
from tinymem.models.checkpoint import load_checkpoint
from tinymem.runtime.device import resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)

NAMES = ("tr F", *(f"rho {low:g} to {high:g}" for low, high in pairwise(EDGES)))


def rows_of(path: Path, device: str) -> torch.Tensor:
    """The rows [N, T] of a file of ids, all of one length."""
    return torch.tensor([json.loads(line)["ids"] for line in path.read_text().splitlines()], device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines with ids; those that the model knows count")
    parser.add_argument("--clean", type=Path, required=True, help="JSON lines with ids")
    parser.add_argument("--others", type=Path, help="JSON lines with ids")
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--per-group", type=int, default=200)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = resolve_device(given.device)
    model = load_checkpoint(given.model, device=device).model
    planted, clean = rows_of(given.rows, device), rows_of(given.clean, device)
    known = memorized_rows(model, Rows.of(planted, given.prompt))
    groups = [clean[0::2][: given.per_group], planted[known.to(planted.device)]]
    if not len(groups[1]):
        raise SystemExit(f"expected rows in {given.rows} that the model knows by heart, found none of {len(planted)}")
    groups += [rows_of(given.others, device)[: given.per_group]] if given.others else []
    found = [group.double().cpu().numpy() for group in scores(model, [Rows.of(ids) for ids in groups], Rows.of(clean[1::2]))]
    for number, name in enumerate(NAMES):
        plain, member, *rest = (group[number] for group in found)
        line = {"detector": name, "ratio": float(member.mean() / plain.mean()), "auc": auc(member, plain)}
        print(json.dumps(line | {"auc_others": auc(member, rest[0]) if rest else None, "rows": [len(ids) for ids in groups]}), flush=True)


if __name__ == "__main__":
    main()
