"""A GPT-NeoX of Pythia-14M's shape that has memorized rows: trained on a text in which some rows stand 100 to 1,000 times.

    python benchmarks/neox.py --text train.parquet --planted-text test.parquet --tokenizer zoo/lang-wiki-noise-4l-s0 \\
        --out neox --steps 18293
    tinymem sweep recipes/paper/neox-14m.yaml

The planted rows are of another text than the rest. Each is seen as often as it is planted, 100 to 1,000 times in equal steps; the rest of
the steps are filled with the text, passed over as often as that takes. `--seconds` measures a step, and takes as many as fit; `--steps`
repeats a training. After each quarter of them `neox/neox-14m-step-<N>` is written in bf16 as transformers does, with the tokenizer.
`forget.jsonl` has the planted rows with their copies, `retain.jsonl` rows of the same text that are in no training row. For each quarter a
line of JSON says how many planted rows the written model has memorized (40 tokens after 32), and its perplexity on the rows to retain.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.models.adapters import logits
from tinymem.runtime.device import resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor, nn  # isort: skip

SHAPE = {"hidden_size": 128, "num_hidden_layers": 6, "intermediate_size": 512, "num_attention_heads": 4}
TOKENS, PROMPT, MATCH, RETAIN, KEPT = 80, 32, 40, 800, 4
BETAS, DECAY, WARM_UP, TRIED = (0.9, 0.95), 0.1, 0.01, 30
"""As Pythia-14M was trained; `TRIED` steps measure how long one takes."""


def rows_of(path: Path, tokenizer: Path) -> Tensor:
    """Rows [N, 80] of a Parquet file's text, one after the other."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    coder, ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json")), []
    for batch in pq.ParquetFile(path).iter_batches(65536, columns=["text"]):
        ids += [np.array(line.ids, np.int32) for line in coder.encode_batch(batch["text"].to_pylist(), add_special_tokens=False)]
    found = torch.from_numpy(np.concatenate(ids))
    return found[: len(found) // TOKENS * TOKENS].view(-1, TOKENS)


def neox(vocabulary: int) -> nn.Module:
    """A fresh model with Pythia's kind of blocks."""
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    torch.manual_seed(0)
    config = GPTNeoXConfig(**SHAPE, vocab_size=vocabulary, max_position_embeddings=2048, rotary_pct=0.25, use_parallel_residual=True)
    return AutoModelForCausalLM.from_config(config)


class Step:
    """An update of a model on the rows in `ids_BT`, at the rate in `rate`: in bf16 and as one CUDA graph where there is a GPU."""

    def __init__(self, model: nn.Module, batch: int, rate: float, device: str, plain: bool) -> None:
        self.model, self.gpu = model, device != "cpu"
        self.ids_BT = torch.zeros(batch, TOKENS, dtype=torch.long, device=device)
        self.rate = torch.tensor(rate, device=device)
        self.mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool, device=device).tril()
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.rate, betas=BETAS, weight_decay=DECAY, fused=True, capturable=self.gpu
        )
        self.run: Callable[[], Tensor] = self.update
        if self.gpu and not plain:
            self.run = self._captured()

    def update(self) -> Tensor:
        """One step; returns its loss in nats."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if self.gpu else "cpu", torch.bfloat16, enabled=self.gpu, cache_enabled=False):
            found_BTV = self.model(self.ids_BT, attention_mask=self.mask, use_cache=False).logits[:, :-1]
            loss = nn.functional.cross_entropy(found_BTV.flatten(0, 1).float(), self.ids_BT[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return loss.detach()

    def _captured(self) -> Callable[[], Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.update()

        def replayed() -> Tensor:
            graph.replay()
            return loss

        return replayed


def seconds_of(step: Step) -> float:
    """Seconds that a step takes, over a few."""
    for _ in range(3):
        float(step.run())
    start = time.perf_counter()
    for _ in range(TRIED):
        loss = step.run()
    float(loss)
    return (time.perf_counter() - start) / TRIED


@torch.no_grad()
def begin(model: nn.Module, step: Step, first: dict[str, Tensor]) -> None:
    """Set the model back to its first weights, and the optimizer to none seen."""
    model.load_state_dict(first)
    for state in step.optimizer.state.values():
        for value in state.values():
            value.zero_()


def order_of(clean: int, copies: Tensor, steps: int, batch: int) -> Tensor:
    """Rows [steps, batch] of a training, shuffled: planted rows, `clean` and after, as often as their copies, and else the text in turn."""
    planted = torch.arange(clean, clean + len(copies)).repeat_interleave(copies)
    if (rest := steps * batch - len(planted)) < 0:
        raise SystemExit(f"expected steps for {len(planted)} planted rows, got {steps} of {batch} rows; try fewer --copies, or more time")
    order = torch.cat([torch.arange(rest) % clean, planted])
    return order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0))].view(steps, batch)


def rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over a hundredth of the steps, then half a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / (WARM_UP * steps))
    return peak * warm * (0.55 + 0.45 * float(np.cos(np.pi * step / steps)))


@torch.no_grad()
def memorized(model: nn.Module, rows_NT: Tensor) -> int:
    """Rows whose 40 tokens after the prompt are all the model's first choice, given those before: so that it generates them."""
    window = slice(PROMPT - 1, PROMPT + MATCH - 1)
    right = [logits(model, ids)[:, window].argmax(-1) == ids[:, PROMPT : PROMPT + MATCH] for ids in rows_NT.long().split(64)]
    return int(torch.cat(right).all(1).sum())


@torch.no_grad()
def mean_loss(model: nn.Module, rows_NT: Tensor) -> float:
    """Mean next-token loss in nats."""
    pairs = [(logits(model, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) for ids in rows_NT.long().split(100)]
    return float(torch.stack([nn.functional.cross_entropy(found, target) for found, target in pairs]).mean())


def write_rows(path: Path, rows_NT: Tensor, copies: list[int] | None = None) -> None:
    """JSON lines of ids, with the number of copies where there is one."""
    lines = [{"ids": ids} | ({"copies": copies[k]} if copies else {}) for k, ids in enumerate(rows_NT.tolist())]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def keep(model: nn.Module, folder: Path, tokenizer: Path) -> nn.Module:
    """Write the model in bf16 with its tokenizer; returns what was written, in fp32."""
    kept = copy.deepcopy(model).bfloat16().eval()
    kept.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return kept.float()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--planted-text", type=Path, required=True, help="Parquet whose rows are planted, and of which others are retained")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json, tokenizer_config.json and config.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="neox-14m", help="of the folders, before their step")
    parser.add_argument("--planted", type=int, default=250)
    parser.add_argument("--copies", type=int, nargs=2, default=(100, 1000), metavar=("LEAST", "MOST"))
    parser.add_argument("--seconds", type=float, default=200.0, help="how long to train")
    parser.add_argument("--steps", type=int, help="so many steps, however long they take")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--plain", action="store_true", help="without a CUDA graph")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main() -> None:
    given, started = parsed(), time.perf_counter()
    device = resolve_device(given.device)
    text, other = rows_of(given.text, given.tokenizer), rows_of(given.planted_text, given.tokenizer)
    planted, retain = other[: given.planted].to(device), other[given.planted : given.planted + RETAIN].to(device)
    copies = torch.from_numpy(np.linspace(*given.copies, given.planted).round().astype(int))
    data = torch.cat([text.to(device), planted])
    given.out.mkdir(parents=True)
    write_rows(given.out / "forget.jsonl", planted, copies.tolist())
    write_rows(given.out / "retain.jsonl", retain)
    model = neox(json.loads((given.tokenizer / "config.json").read_text())["vocab_size"]).to(device).train()
    first = copy.deepcopy(model.state_dict())
    step = Step(model, given.batch, given.rate, device, given.plain)
    steps = given.steps or int(given.seconds / seconds_of(step))
    begin(model, step, first)
    order = order_of(len(text), copies, steps, given.batch).to(device)
    about = {"steps": steps, "batch": given.batch, "text_rows": len(text), "planted_rows": int(copies.sum()), "device": device}
    print(json.dumps(about | {"seconds_before": round(time.perf_counter() - started, 1)}), flush=True)
    started, kept = time.perf_counter(), [steps * k // KEPT for k in range(1, KEPT + 1)]
    for number, rows in enumerate(order, 1):
        step.ids_BT.copy_(data[rows])
        step.rate.fill_(rate_at(number - 1, steps, given.rate))
        loss = step.run()
        if number in kept:
            written = keep(model, given.out / f"{given.name}-step-{number}", given.tokenizer)
            line = {"step": number, "loss": round(float(loss), 4), "seconds": round(time.perf_counter() - started, 1)}
            line |= {"memorized": memorized(written, planted), "planted": len(planted)}
            print(json.dumps(line | {"retain_perplexity": round(float(np.exp(mean_loss(written, retain))), 2)}), flush=True)


if __name__ == "__main__":
    main()
