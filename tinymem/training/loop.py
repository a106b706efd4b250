"""The training loop: rows resident on the device, one permutation per epoch, resume points and measurements on the way.

The loss is the mean cross-entropy of all positions after the first, padding included, as in the published runs: a model that is
prompted past the end of a sequence has learnt to pad.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.corpus import Corpus
from tinymem.errors import UserError
from tinymem.evaluation.measure import Evaluator, Measurement
from tinymem.files import write_text
from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT
from tinymem.progress import Progress
from tinymem.recipe import Recipe
from tinymem.training.optimizer import learning_rate, make_optimizer
from tinymem.training.state import load_state, restore, save_state

if TYPE_CHECKING:
    from lightning.fabric import Fabric

METRICS, STATE = "metrics.jsonl", "state"


@dataclass(frozen=True)
class Trained:
    """A trained model, its last measurement and the seconds spent in steps (over all resumed parts)."""

    model: GPT
    measurement: Measurement
    curve: list[dict[str, Any]]
    seconds: float


def batch_loss(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Mean next-token loss of a batch of rows."""
    logits_BTV: Tensor = model(ids_BT)
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Row order [count] of an epoch: a function of seed and epoch alone, so that resuming needs no random state."""
    mixed = (seed * 0x9E3779B1 + epoch) % 2**32  # the generator reads 32 bits only; this factor keeps different seeds apart
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def fresh_model(recipe: Recipe, row_tokens: int) -> GPT:
    """The untrained model of a recipe."""
    return GPT(math_config(n_positions=row_tokens, **recipe.model.model_dump()), seed=recipe.seed)


def train(recipe: Recipe, corpus: Corpus, directory: Path, *, device: str = "cpu", progress: Progress | None = None) -> Trained:
    """Train a recipe's model on its corpus, continuing from the newest resume point in `directory`.

    Writes `directory/metrics.jsonl` (one line per measured epoch) and resume points under `directory/state`.
    """
    config, progress = recipe.training, progress or Progress()
    fabric = _fabric(device)
    model = fresh_model(recipe, corpus.row_tokens).to(fabric.device)
    fabric_model, optimizer = fabric.setup(model, make_optimizer(model.parameters(), config))
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=fabric.device)
    rows, index = corpus.training_rows()
    rows_NT, index_E = torch.from_numpy(rows).to(fabric.device), torch.from_numpy(index).to(fabric.device)
    steps_per_epoch = -(-len(index_E) // config.batch_size)
    total_steps = steps_per_epoch * config.epochs

    state = load_state(directory / STATE)
    epoch, step, seconds = (state.epoch, state.step, state.seconds) if state else (0, 0, 0.0)
    if state:
        restore(state, model, optimizer.optimizer)
        progress.say(f"resuming after epoch {epoch} of {config.epochs}")
    curve = [point for point in _read_curve(directory / METRICS) if point["epoch"] <= epoch]
    if not state:
        curve = [_point(evaluator, evaluator.measure(model), 0, 0, float("nan"), 0.0, 0.0)]
        _write_curve(directory / METRICS, curve)

    with progress.stage(f"train {recipe.name}", config.epochs) as bar:
        bar.advance(epoch)
        while epoch < config.epochs:
            started = time.perf_counter()
            model.train()
            order = index_E[epoch_order(recipe.seed, epoch, len(index_E)).to(index_E.device)]
            loss_sum = torch.zeros((), device=fabric.device)
            for batch in order.split(config.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, total_steps)
                loss = batch_loss(fabric_model, rows_NT[batch].long())
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                loss_sum += loss.detach()  # stays on the device: no synchronisation inside an epoch
                step += 1
            epoch += 1
            train_loss = float(loss_sum) / steps_per_epoch
            if not train_loss < float("inf"):
                raise UserError(f"the training loss became {train_loss} in epoch {epoch}; lower training.learning_rate")
            spent = time.perf_counter() - started
            seconds += spent
            if epoch % config.evaluate_every == 0 or epoch == config.epochs:
                speed = len(index_E) * corpus.row_tokens / spent
                curve.append(_point(evaluator, evaluator.measure(model), epoch, step, train_loss, seconds, speed))
                _write_curve(directory / METRICS, curve)
            if epoch % config.checkpoint_every == 0 or epoch == config.epochs:
                save_state(directory / STATE, model, optimizer.optimizer, epoch=epoch, step=step, seconds=seconds)
            bar.advance(1, _note(curve[-1]) if curve else "")
    model.eval()
    return Trained(model, evaluator.measure(model), curve, seconds)


def _fabric(device: str) -> Fabric:
    """Lightning Fabric on one device, in fp32."""
    from lightning.fabric import Fabric  # takes seconds: only training pays for it

    if not device.startswith("cuda"):
        return Fabric(accelerator="cpu", devices=1, precision="32-true")
    return Fabric(accelerator="cuda", devices=[torch.device(device).index or 0], precision="32-true")


def _point(evaluator: Evaluator, measured: Measurement, epoch: int, step: int, loss: float, seconds: float, speed: float) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": None if loss != loss else loss,
        "accuracy": measured.accuracy.share,
        "accuracy_ceiling": evaluator.ceiling.share if evaluator.ceiling else None,
        "accuracy_by_task": {name: share.share for name, share in measured.accuracy_by_task.items()},
        "perplexity": measured.perplexity,
        "memorised": {kind: measured.memorised(kind).as_dict() for kind in measured.elicited},
        "seconds": seconds,
        "tokens_per_second": speed,
    }


def _note(point: dict[str, Any]) -> str:
    parts = [f"accuracy {100 * point['accuracy']:.1f} %"]
    parts += [f"{kind} {100 * (m['share'] or 0):.0f} % memorised" for kind, m in point["memorised"].items()]
    return ", ".join(parts)


def _read_curve(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(point) + "\n" for point in curve))
