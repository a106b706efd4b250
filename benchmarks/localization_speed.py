"""Seconds of a whole INJ benchmark, scorer by scorer, at the shape of GPT-2 124M with random weights, beside plain loops; made for one GPU.

    python benchmarks/localization_speed.py [--tf32] [--plain] [--device cuda] [--sequences 20] [--tokens 40]
    python benchmarks/localization_speed.py --unit weight --methods durable,sou,random-weights
    python benchmarks/localization_speed.py --device cpu --sizes 2,64,4 --vocabulary 100 --sequences 2 --ratios 0.05 --steps 30 --plain

A line a scorer and ratio as JSON: seconds of all sequences, seconds a sequence, recall per layer (of weights per matrix). The last line has
the injections' and all seconds: the aim on one H100 is 7 minutes for 20 sequences, two ratios and all scorers of neurons, whose options are
those of recipes/paper/inj-gpt2.yaml. `--tf32` lets Zero alone take short products (ten bits of mantissa), and says how much of its choice
stays. `--plain` times, in fp32 on one sequence, IG and Zero beside loops as published: IG a token, layer and batch of 20 steps at a time
behind a growing prefix, Zero one neuron a pass and 128 neurons a pass; of each loop a part is timed and the whole projected.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tinymem.data.rows import Rows
from tinymem.localization.benchmark import Benchmark, random_sequences
from tinymem.localization.calls import calls_at, parsed_calls
from tinymem.localization.recall import highest
from tinymem.localization.scoring import scores_by_sequence
from tinymem.mitigation.method import MitigationData, parse_call
from tinymem.mitigation.methods.losses import row_losses
from tinymem.models.adapters import NeuronLayer, captured_neurons, logits, neuron_layers
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.localization import LocalizationRecipe, load_localization, parse_localization
from tinymem.results.row import Identity

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor, nn  # isort: skip

RECIPE = Path(__file__).parents[1] / "recipes" / "paper" / "inj-gpt2.yaml"
IG_STEPS = 20


@contextmanager
def short_products(wanted: bool) -> Iterator[None]:
    """Inside the context products of fp32 matrices on a GPU are TF32's, if wanted."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if wanted else "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def wall(function: Callable[[], Tensor], device: str) -> tuple[float, Tensor]:
    """Seconds of a call, once the device is done, and its result."""
    began, found = time.perf_counter(), function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def recipe_of(given: argparse.Namespace) -> LocalizationRecipe:
    values = load_localization(RECIPE).model_dump(mode="json") if given.unit == "neuron" else {"benchmark": "inj"}
    known = [*values.get("methods", []), {"name": "nemo", "options": {"refine": False}}]
    names = given.methods.split(",") if given.methods else [method["name"] for method in known]
    kept = [method for method in known if method["name"] in names] if given.unit == "neuron" else names
    if given.steps:
        kept = [{**m, "options": {**m["options"], **({"epochs": given.steps} if "epochs" in m["options"] else {})}} for m in kept]
    return parse_localization({**values, "unit": given.unit, "methods": kept, "ratios": [float(r) for r in given.ratios.split(",")]})


def whole(benchmark: Benchmark, given: argparse.Namespace) -> None:
    """The benchmark, a line a scorer and ratio."""
    calls, began, scored = parsed_calls(benchmark.recipe), time.perf_counter(), 0.0
    ratios = benchmark.recipe.wanted_ratios
    for ratio in ratios:
        named = calls if any(at == ratio for _, at in calls) else [(call, None) for call, _ in calls]  # a ratio that no option names: all
        for call in calls_at(named, ratio):
            with short_products(given.tf32 and call.name == "zero"):
                row = benchmark.score(call, ratio, "")[0]
            scored += row.seconds or 0.0
            line = {"method": call.name, "ratio": ratio, "seconds": row.seconds, "a_sequence": (row.seconds or 0.0) / len(benchmark.rows)}
            print(json.dumps({**line, "recall": row.score, "reached": row.reached, "steps": row.steps}), flush=True)
    seconds = time.perf_counter() - began
    line = {"all": seconds, "injections_and_recall": seconds - scored, "sequences": len(benchmark.rows), "zero_tf32": given.tf32}
    print(json.dumps(line), flush=True)


def one_at_a_time(model: GPT, row: Rows, name: str, device: str) -> tuple[float, Tensor]:
    """Seconds and scores [1, L, F] of a scorer on one row, after a run of a short row that loads what it needs."""
    call = parse_call(name, {"rule": "ends"} if name == "ig" else {})
    scores_by_sequence(call, model, MitigationData(Rows.of(row.ids[:, :4]), row))
    return wall(lambda: scores_by_sequence(call, model, MitigationData(row, row)), device)


@torch.no_grad()
def plain_zero(model: nn.Module, row: Rows, layer: NeuronLayer, neurons_N: Tensor, at_once: int) -> Tensor:
    """Rise of the loss [N] without each neuron: a whole pass over copies of the row, in each of which another neuron is 0."""
    clean, found = row_losses(model, row, "suffix"), []
    for neurons_n in neurons_N.split(at_once):

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], neurons_n: Tensor = neurons_n) -> tuple[Tensor, ...]:
            h_nTF = inputs[0].clone()
            h_nTF[torch.arange(len(neurons_n), device=h_nTF.device), :, neurons_n] = 0
            return (h_nTF,)

        handle = layer.module.register_forward_pre_hook(hook)
        found.append(row_losses(model, row.take(torch.zeros_like(neurons_n)), "suffix") - clean)
        handle.remove()
    return torch.cat(found)


def plain_ig(model: nn.Module, row: Rows, layer: NeuronLayer, positions: range) -> Tensor:
    """Sum over positions of IG [F] of one layer: the next token's probability, along scaled activations of the last position."""
    found_F = torch.zeros(layer.neurons, device=row.ids.device)
    for position in positions:
        prefix_1T = row.ids[:, : position + 1]
        with torch.no_grad(), captured_neurons(model) as activations:
            logits(model, prefix_1T)
            h_F = activations[layer.index][0, -1].clone()
        scales_M1 = torch.arange(IG_STEPS, device=h_F.device)[:, None] / (IG_STEPS - 1)
        patch_MF = (scales_M1 * h_F).requires_grad_()

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], patch_MF: Tensor = patch_MF) -> tuple[Tensor, ...]:
            x_MTF = inputs[0].clone()
            x_MTF[:, -1] = patch_MF
            return (x_MTF,)

        handle = layer.module.register_forward_pre_hook(hook)
        chance_M = logits(model, prefix_1T.expand(IG_STEPS, -1))[:, -1].softmax(-1)[:, row.ids[0, position + 1]]
        handle.remove()
        found_F += h_F * torch.autograd.grad(chance_M.sum(), patch_MF)[0].sum(0) / IG_STEPS
    return found_F


def beside_plain(model: GPT, row: Rows, device: str) -> None:
    """IG and Zero beside plain loops, whose parts are projected to all neurons, layers and positions; parts agree with ours."""
    layers, predicted = neuron_layers(model), row.ids.shape[1] - 1
    layer, width = layers[len(layers) // 2], layers[0].neurons
    ours, scores_1LF = one_at_a_time(model, row, "zero", device)
    for at_once, count in ((1, min(width, 200)), (128, width)):
        neurons_N = torch.arange(count, device=row.ids.device)
        plain_zero(model, row, layer, neurons_N[:at_once], at_once)
        seconds, found_N = wall(lambda: plain_zero(model, row, layer, neurons_N, at_once), device)  # noqa: B023
        projected, gap = seconds / count * width * len(layers), float((found_N - scores_1LF[0, layer.index, :count]).abs().max())
        print(json.dumps({"zero": ours, "at_once": at_once, "plain": projected, "times": projected / ours, "gap": gap}), flush=True)
    ours, scores_1LF = one_at_a_time(model, row, "ig", device)
    plain_ig(model, row, layer, range(1))
    seconds, found_F = wall(lambda: plain_ig(model, row, layer, range(predicted)), device)
    gap = float((found_F / predicted - scores_1LF[0, layer.index]).abs().max())
    line = {"ig": ours, "plain": seconds * len(layers), "times": seconds * len(layers) / ours, "gap": gap}
    print(json.dumps({**line, "highest": float(scores_1LF.max())}), flush=True)


def agreement(model: GPT, row: Rows, ratio: float, device: str) -> None:
    """How much of Zero's choice of a layer stays with short products."""
    chosen, seconds = [], []
    for short in (False, True):
        with short_products(short):
            took, scores_1LF = one_at_a_time(model, row, "zero", device)
        seconds.append(took)
        chosen.append(highest(scores_1LF, ratio, "layer"))
    kept = float((chosen[0] & chosen[1]).sum() / chosen[0].sum())
    print(json.dumps({"zero_top_kept_by_tf32": kept, "ratio": ratio, "fp32": seconds[0], "tf32": seconds[1]}), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--unit", default="neuron", choices=("neuron", "weight"))
    parser.add_argument("--methods", help="names with commas between; default: all of the unit")
    parser.add_argument("--ratios", default="0.01,0.001")
    parser.add_argument("--sequences", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--sizes", default="12,768,12", help="layers, width, heads")
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--steps", type=int, help="of Slim and Hard Concrete, in place of the recipe's")
    parser.add_argument("--tf32", action="store_true", help="short products for Zero alone, and how much of its choice stays")
    parser.add_argument("--plain", action="store_true", help="IG and Zero beside plain loops, in fp32")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.manual_seed(0)
    layers, width, heads = map(int, given.sizes.split(","))
    config = GPTConfig(vocab_size=given.vocabulary, n_positions=max(64, given.tokens), n_layer=layers, n_embd=width, n_head=heads)
    model = GPT(config).to(given.device).eval()
    rows = random_sequences(given.vocabulary, given.sequences, given.tokens).to(given.device)
    ordinary = random_sequences(given.vocabulary, 2000, given.tokens, seed=1).to(given.device)
    benchmark = Benchmark(model, recipe_of(given), rows, ordinary, ordinary.take(torch.arange(0, device=rows.ids.device)), Identity())
    first = rows.take(torch.tensor([0], device=rows.ids.device))
    if given.tf32:
        agreement(model, first, benchmark.recipe.wanted_ratios[0], given.device)
    if given.plain:
        beside_plain(model, first, given.device)
    whole(benchmark, given)


if __name__ == "__main__":
    main()
