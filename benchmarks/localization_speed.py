"""Seconds of a whole INJ benchmark, scorer by scorer, at the shape of GPT-2 124M with random weights; made for one GPU.

    python benchmarks/localization_speed.py [--device cuda] [--sequences 20] [--tokens 40] [--ratios 0.01,0.001] [--tf32]
    python benchmarks/localization_speed.py --unit weight --methods durable,sou,random-weights

A line a scorer and ratio as JSON: seconds of all sequences, seconds a sequence, recall per layer (of weights per matrix). The last line has
the injections' and all seconds: the aim on one H100 is 7 minutes for 20 sequences, two ratios and all scorers of neurons. `--tf32` takes
short products (ten bits of mantissa) in everything; `--agree` then says how much of Zero's choice stays. On a CPU try
`--sizes 2,64,4 --vocabulary 100 --sequences 2 --ratios 0.05`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch

from tinymem.data.rows import Rows
from tinymem.localization.benchmark import Benchmark, random_sequences
from tinymem.localization.recall import highest
from tinymem.localization.scoring import scores_by_sequence
from tinymem.mitigation.method import MitigationData, parse_call
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.localization import parse_localization
from tinymem.results.row import Identity
from tinymem.runs.localization import parsed_calls

STEPS = {"slim": {"epochs": 1000}, "hard-concrete": {"epochs": 1000}}


def precision(short: bool) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32" if short else "ieee"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--unit", default="neuron", choices=("neuron", "weight"))
    parser.add_argument("--methods", default="random-neurons,act,ig,zero,slim,hard-concrete")
    parser.add_argument("--ratios", default="0.01,0.001")
    parser.add_argument("--sequences", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--sizes", default="12,768,12", help="layers, width, heads")
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--agree", action="store_true", help="compare Zero's choice with and without TF32, on one sequence")
    given = parser.parse_args()
    precision(given.tf32)
    torch.manual_seed(0)
    layers, width, heads = map(int, given.sizes.split(","))
    config = GPTConfig(vocab_size=given.vocabulary, n_positions=max(64, given.tokens), n_layer=layers, n_embd=width, n_head=heads)
    model = GPT(config).to(given.device).eval()
    rows = random_sequences(given.vocabulary, given.sequences, given.tokens).to(given.device)
    methods = [{name: STEPS[name]} if name in STEPS else name for name in given.methods.split(",")]
    ratios = [float(ratio) for ratio in given.ratios.split(",")]
    recipe = parse_localization({"benchmark": "inj", "unit": given.unit, "methods": methods, "ratios": ratios})
    nothing = Rows.of(torch.zeros(0, 2, dtype=torch.int64, device=given.device))
    benchmark, began, scored = Benchmark(model, recipe, rows, nothing, nothing, Identity()), time.perf_counter(), 0.0
    for ratio in ratios:
        for call, _ in parsed_calls(recipe):
            row = benchmark.score(call, ratio, "")[0]
            scored += row.seconds or 0.0
            line = {"method": call.name, "ratio": ratio, "seconds": row.seconds, "a_sequence": (row.seconds or 0.0) / len(rows)}
            print(json.dumps({**line, "recall": row.score, "reached": row.reached}), flush=True)
    whole = time.perf_counter() - began
    print(json.dumps({"all": whole, "injections_and_recall": whole - scored, "sequences": len(rows), "tf32": given.tf32}), flush=True)
    if given.agree:
        data, chosen = MitigationData(rows.take(torch.tensor([0], device=rows.ids.device)), nothing), []
        for short in (False, True):
            precision(short)
            chosen.append(highest(scores_by_sequence(parse_call("zero", {}), model, data), ratios[0], "layer"))
        print(json.dumps({"zero_top_kept_by_tf32": float((chosen[0] & chosen[1]).sum() / chosen[0].sum())}))


if __name__ == "__main__":
    main()
