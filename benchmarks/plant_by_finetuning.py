"""Plant rows in a pretrained model: fine-tune it until it generates most of them word for word.

    python benchmarks/plant_by_finetuning.py MODEL --text test.parquet --with train.parquet --out planted --rows 50 --prompt 16 --match 16

Without `--with` it sees the planted rows alone, and forgets its language over them; with it each step adds the mean loss of other rows.
`planted/model` is the folder with other weights, `planted/forget.jsonl` has the rows. Each pass prints a line of JSON: how many rows are
memorized (each token of the match the first choice, given those before), and the mean loss.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.rows import Rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.evaluation.probes import memorized_rows
from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.edited import save_edited
from tinymem.runtime.device import resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor, nn  # isort: skip

AT_ONCE = 10


def rows_of(path: Path, model: Path, count: int, tokens: int) -> Tensor:
    """The first rows [count, tokens] of the long paragraphs of a Parquet file, a row of each."""
    import pyarrow.parquet as pq

    coder, rows = ModelTokens(model).tokenizer, list[list[int]]()
    for line in pq.read_table(path, columns=["text"])["text"].to_pylist():
        ids = coder.encode(line.strip()).ids if len(line) > 20 * tokens else []
        if len(ids) >= tokens:
            rows.append(ids[:tokens])
        if len(rows) == count:
            return torch.tensor(rows)
    raise SystemExit(f"expected {count} paragraphs of {tokens} tokens in {path}, got {len(rows)}")


def loss_of(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """The mean loss of rows; logits are those that each token but the last gives."""
    return nn.functional.cross_entropy(logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten())


def few_of(rows_NT: Tensor, count: int) -> Tensor:
    """So many of the rows, drawn anew."""
    return rows_NT[torch.randint(len(rows_NT), (count,))]


def one_pass(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows_NT: Tensor, prompt: int, clean_NT: Tensor, clean_rows: int
) -> tuple[int, float]:
    """A step on each few rows, and `clean_rows` clean ones if there are any; how many rows were memorized then, and their mean loss."""
    memorized, losses = 0, 0.0
    for ids_BT in rows_NT[torch.randperm(len(rows_NT))].split(AT_ONCE):
        memorized += int(memorized_rows(model, Rows.of(ids_BT, prompt)).sum())
        loss = loss_of(logits(model, ids_BT)[:, :-1], ids_BT)
        losses += float(loss.detach()) * len(ids_BT)
        optimizer.zero_grad()
        if len(clean_NT):
            clean_BT = few_of(clean_NT, clean_rows)
            loss = loss + loss_of(logits(model, clean_BT)[:, :-1], clean_BT)
        loss.backward()
        optimizer.step()
    return memorized, losses / len(rows_NT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="a Parquet file with a column text")
    parser.add_argument("--with", dest="clean", type=Path, help="a Parquet file with a column text: rows of it go into each step")
    parser.add_argument("--with-rows", type=int, default=30, help="so many of them each step")
    parser.add_argument("--of-rows", type=int, default=2000, help="from the first so many")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--match", type=int, default=16)
    parser.add_argument("--passes", type=int, default=20, help="at most so many")
    parser.add_argument("--enough", type=float, default=0.9, help="share of the rows that is enough")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device, started = resolve_device(given.device), time.perf_counter()
    torch.manual_seed(0)
    rows = rows_of(given.text, given.model, given.rows, given.prompt + given.match)
    clean = rows_of(given.clean, given.model, given.of_rows, rows.shape[1]) if given.clean else rows[:0]
    model = load_checkpoint(given.model, device=device).model
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.rate, weight_decay=0.0, fused=True)
    for number in range(1, given.passes + 1):
        memorized, loss = one_pass(model, optimizer, rows.to(device), given.prompt, clean.to(device), given.with_rows)
        line = {"pass": number, "memorized": memorized, "rows": len(rows), "loss": round(loss, 4)}
        print(json.dumps(line | {"seconds": round(time.perf_counter() - started, 1)}), flush=True)
        if memorized >= given.enough * len(rows):
            break
    save_edited(model, given.model, given.out / "model", metadata={})
    (given.out / "forget.jsonl").write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in rows.tolist()))


if __name__ == "__main__":
    main()
