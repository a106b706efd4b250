"""A GPT-NeoX of Pythia-14M's shape that has memorized rows: trained in one pass over a text in which some rows stand 100 to 1,000 times.

    python benchmarks/neox.py --text train.parquet --planted-text test.parquet --tokenizer zoo/lang-wiki-noise-4l-s0 --out neox
    tinymem sweep recipes/paper/neox-14m.yaml

The planted rows are of another text than the rest. The pass over the data is the only one, as Pythia's, so that a row is seen as often
as it stands there. After each quarter of the steps `neox/quarter<N>` is written as transformers does, with the tokenizer. `forget.jsonl`
has the planted rows with their copies, `retain.jsonl` rows of the same text that are in no training row. For each quarter a line of JSON
says how many planted rows are memorized (40 tokens after 32), and the loss on the rows to retain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.models.adapters import logits
from tinymem.runtime.device import resolve_device

SHAPE = {"hidden_size": 128, "num_hidden_layers": 6, "intermediate_size": 512, "num_attention_heads": 4}
TOKENS, PROMPT, MATCH, RETAIN, KEPT = 80, 32, 40, 800, 4
RATE, BETAS, DECAY, WARM_UP = 1e-3, (0.9, 0.95), 0.1, 0.01
"""As Pythia-14M was trained, of which a tenth of the rate is left at the end."""


def rows_of(path: Path, tokenizer: Path) -> Tensor:
    """Rows [N, 80] of a Parquet file's text, one after the other."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    coder, ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json")), []
    for batch in pq.ParquetFile(path).iter_batches(4096, columns=["text"]):
        ids += [token for line in coder.encode_batch(batch["text"].to_pylist(), add_special_tokens=False) for token in line.ids]
    return torch.tensor(ids[: len(ids) // TOKENS * TOKENS]).view(-1, TOKENS)


def neox(vocabulary: int) -> nn.Module:
    """A fresh model with Pythia's kind of blocks."""
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    torch.manual_seed(0)
    config = GPTNeoXConfig(**SHAPE, vocab_size=vocabulary, max_position_embeddings=2048, rotary_pct=0.25, use_parallel_residual=True)
    return AutoModelForCausalLM.from_config(config)


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up over a hundredth of the steps, then half a cosine."""
    warm = min(1.0, (step + 1) / (WARM_UP * steps))
    return RATE * warm * (0.55 + 0.45 * float(np.cos(np.pi * step / steps)))


def trained(model: nn.Module, data_NT: Tensor, batch: int, device: str) -> Iterator[int]:
    """Train in one pass over the rows, in bf16 where there is a GPU; yields the number of steps done."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    batches = data_NT[torch.randperm(len(data_NT), generator=torch.Generator().manual_seed(0))].split(batch)
    for step, rows in enumerate(batches):
        ids_BT = rows.to(device).long()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, len(batches))
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=device != "cpu"):
            found_BTV = logits(model, ids_BT)[:, :-1]
        loss = nn.functional.cross_entropy(found_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        yield step + 1


@torch.no_grad()
def memorized(model: nn.Module, rows_NT: Tensor) -> int:
    """Rows whose 40 tokens after the prompt are all the model's first choice, given those before: so that it generates them."""
    window = slice(PROMPT - 1, PROMPT + MATCH - 1)
    right = [logits(model, ids)[:, window].argmax(-1) == ids[:, PROMPT : PROMPT + MATCH] for ids in rows_NT.split(64)]
    return int(torch.cat(right).all(1).sum())


@torch.no_grad()
def mean_loss(model: nn.Module, rows_NT: Tensor) -> float:
    """Mean next-token loss in nats."""
    found = [nn.functional.cross_entropy(logits(model, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) for ids in rows_NT.split(64)]
    return float(torch.stack(found).mean())


def write_rows(path: Path, rows_NT: Tensor, copies: list[int] | None = None) -> None:
    """JSON lines of ids, with the number of copies where there is one."""
    lines = [{"ids": ids} | ({"copies": copies[k]} if copies else {}) for k, ids in enumerate(rows_NT.tolist())]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--planted-text", type=Path, required=True, help="Parquet whose rows are planted, and of which others are retained")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--planted", type=int, default=250)
    parser.add_argument("--copies", type=int, nargs=2, default=(100, 1000), metavar=("LEAST", "MOST"))
    parser.add_argument("--rows", type=int, help="at most so many rows of the text")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = resolve_device(given.device)
    clean, other = rows_of(given.text, given.tokenizer)[: given.rows], rows_of(given.planted_text, given.tokenizer)
    planted, retain = other[: given.planted], other[given.planted : given.planted + RETAIN]
    copies = np.geomspace(*given.copies, given.planted).round().astype(int)
    data = torch.cat([clean, planted.repeat_interleave(torch.from_numpy(copies), 0)]).to(torch.int32)
    given.out.mkdir(parents=True)
    write_rows(given.out / "forget.jsonl", planted, copies.tolist())
    write_rows(given.out / "retain.jsonl", retain)
    vocabulary = json.loads((given.tokenizer / "config.json").read_text())["vocab_size"]
    model, steps, started = neox(vocabulary).to(device).train(), -(-len(data) // given.batch), time.perf_counter()
    kept = [steps * k // KEPT for k in range(1, KEPT + 1)]
    for step in trained(model, data, given.batch, device):
        if step in kept:
            folder, model = given.out / f"quarter{kept.index(step) + 1}", model.eval()
            model.save_pretrained(folder)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(given.tokenizer / name, folder / name)
            line = {"step": step, "of": steps, "rows": [len(clean), int(copies.sum())], "seconds": round(time.perf_counter() - started, 1)}
            line |= {"memorized": memorized(model, planted.to(device)), "planted": len(planted)}
            print(json.dumps(line | {"retain_loss": round(mean_loss(model, retain.to(device)), 4)}), flush=True)
            model.train()


if __name__ == "__main__":
    main()
