"""Seconds and GPU memory of every method's edit on models of Pythia's full size, with random weights in bf16.

    python benchmarks/full_size.py 2.8b act durable npo --forget pile_bs0-100-dedup.pt --text train.parquet --tokenizer tokenizer.json

The rows to forget are those of the file [N, 80] (MemPi's: prompt 32, suffix 48); the text gives 1,632 rows of 80 tokens to retain and 1,632
to test. The model is made on the device. Each method warms up on 64 rows of each kind, for one epoch, is then timed, and prints a line of
JSON: seconds, and GiB of torch.cuda.max_memory_allocated, the model and its edited copy included. A method that fails says so in its line,
and the next one runs. `--memory-gib 79` refuses more than a card of 80 GB has, on a larger one.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.rows import Rows
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply, parse_config
from tinymem.mitigation.methods.losses import row_losses
from tinymem.models.adapters import mlp_parameters
from tinymem.models.spread import spread
from tinymem.runtime.cost import measured
from tinymem.runtime.device import describe_device, resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import nn  # isort: skip

SHAPES = {
    "14m": {"hidden_size": 128, "num_hidden_layers": 6, "intermediate_size": 512, "num_attention_heads": 4, "vocab_size": 50304},
    "2.8b": {"hidden_size": 2560, "num_hidden_layers": 32, "intermediate_size": 10240, "num_attention_heads": 32, "vocab_size": 50304},
    "6.9b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 16384, "num_attention_heads": 32, "vocab_size": 50432},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 50304},
}
TOKENS, PROMPT, ROWS, WARM_UP = 80, 32, 1632, 64
OPTIONS: dict[str, dict[str, Any]] = {
    "slim": {"epochs": 1},
    "hard-concrete": {"epochs": 10},
    "subnet": {"epochs": 1},
    "balanced-subnet": {"epochs": 1},
    "npo": {"epochs": 1},
    "simnpo": {"epochs": 1},
    "gradient-difference": {"epochs": 1},
    "rmu": {"epochs": 1},
}
METHODS = ("act", "durable", "durable-agg", *OPTIONS, "greedy")


def neox(shape: str, device: str) -> nn.Module:
    """A GPT-NeoX with random weights in bf16, made on the device."""
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    torch.manual_seed(0)
    config = GPTNeoXConfig(**SHAPES[shape], max_position_embeddings=2048, rotary_pct=0.25, use_parallel_residual=True)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(device).eval()


def text_rows(path: Path, tokenizer: Path, count: int) -> torch.Tensor:
    """The first rows [count, 80] of a text's tokens, one after the other."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    coder, ids = Tokenizer.from_file(str(tokenizer)), []
    for batch in pq.ParquetFile(path).iter_batches(512, columns=["text"]):
        ids += [token for line in coder.encode_batch(batch["text"].to_pylist()) for token in line.ids]
        if len(ids) >= count * TOKENS:
            return torch.tensor(ids[: count * TOKENS]).view(count, TOKENS)
    raise SystemExit(f"expected {count * TOKENS} tokens in {path}, got {len(ids)}")


def part_of(data: MitigationData, rows: int) -> MitigationData:
    """The first rows of each kind."""
    index = torch.arange(rows, device=data.forget.ids.device)
    return replace(data, forget=data.forget.take(index[: len(data.forget)]), retain=data.retain.take(index[: len(data.retain)]))


def options_of(name: str, model: nn.Module, given: argparse.Namespace, *, warm_up: bool = False) -> dict[str, Any]:
    """The options at which a method runs; Greedy's ratio follows from the number of steps."""
    options = dict(OPTIONS.get(name, {}))
    if "epochs" in options and warm_up:
        options["epochs"] = 1
    if name == "greedy":
        eligible = sum(p.numel() for p in mlp_parameters(model).values())
        steps = 3 if warm_up else given.steps
        options |= {"per_step": given.per_step, "ratio": steps * given.per_step / eligible}
    return options | {k: json.loads(v) for k, _, v in (word.partition("=") for word in given.option)}


def timed(name: str, model: nn.Module, data: MitigationData, given: argparse.Namespace) -> dict[str, Any]:
    """Run a method's edit after a warm-up; seconds, GiB and what follows from them."""
    method = UNLEARNERS.get(name)
    for warm_up in (True, False):
        options = options_of(name, model, given, warm_up=warm_up)
        for gpu in range(given.gpus if given.device != "cpu" else 0):
            torch.cuda.reset_peak_memory_stats(gpu)
        with measured(data.forget.ids.device) as cost:
            apply(method, model, part_of(data, WARM_UP) if warm_up else data, parse_config(method, options))
    found = {"options": options, "seconds": round(cost.seconds, 3), "gib": round(cost.peak_mb / 1024, 2)}
    if given.gpus > 1:
        found["gib"] = [round(torch.cuda.max_memory_allocated(gpu) / 2**30, 2) for gpu in range(given.gpus)]
    return found | ({"seconds_a_step": round(cost.seconds / given.steps, 4)} if name == "greedy" else {})


def run(model: nn.Module, data: MitigationData, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record of each method, its failure included."""
    for name in given.methods:
        record = {"shape": given.shape, "method": name, "device": describe_device(given.device), "torch": torch.__version__}
        try:
            yield record | {"status": "ok"} | timed(name, model, data, given)
        except Exception as error:  # one method out of memory leaves the others
            yield record | {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        gc.collect()
        if given.device != "cpu":
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--forget", type=Path, required=True, help="rows to forget, a tensor [N, 80] of token ids (.pt)")
    parser.add_argument("--text", type=Path, required=True, help="a Parquet file with a column text")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows to retain, and as many to test")
    parser.add_argument("--forget-rows", type=int, help="the first so many of the file (all)")
    parser.add_argument("--steps", type=int, default=20, help="of Greedy")
    parser.add_argument("--per-step", type=int, default=1, help="weights that Greedy zeroes a step")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=JSON", help="an option of every method named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", type=int, default=1, help="spread the model over so many; GiB are then of each")
    parser.add_argument("--memory-gib", type=float, help="most memory that the process may take on the GPU")
    given = parser.parse_intermixed_args()
    given.device = resolve_device(given.device)
    if given.memory_gib and given.device != "cpu":
        torch.cuda.set_per_process_memory_fraction(given.memory_gib * 2**30 / torch.cuda.mem_get_info()[1])
    started = time.perf_counter()
    forget = torch.load(given.forget, weights_only=True)[: given.forget_rows]
    kept, test = text_rows(given.text, given.tokenizer, 2 * given.rows).split(given.rows)
    model = neox(given.shape, given.device)
    if given.gpus > 1:
        model = spread(model, [f"cuda:{gpu}" for gpu in range(given.gpus)])
    data = MitigationData(forget=Rows.of(forget, PROMPT).to(given.device), retain=Rows.of(kept).to(given.device))
    with torch.no_grad():
        loss = torch.cat([row_losses(model, rows) for rows in Rows.of(test).to(given.device).batches(16)]).mean()
    size = sum(p.numel() for p in model.parameters())
    first = {"shape": given.shape, "parameters": size, "rows": [len(forget), len(kept), len(test)], "test_loss": float(loss)}
    print(json.dumps(first | {"seconds_to_start": round(time.perf_counter() - started, 1)}), flush=True)
    for record in run(model, data, given):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
