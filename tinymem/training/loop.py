"""The training loop: one permutation of the rows per epoch, with resume points and measurements on the way.

The rows lie on the device, and within an epoch nothing is read back from it (`step`). Lightning Fabric provides devices, launching and
data-parallel training; under `torchrun` every process takes its part of each batch.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.data.rows import compact_rows
from tinymem.errors import UserError
from tinymem.evaluation.measure import Evaluator, Measurement
from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.progress import Progress
from tinymem.recipe import Recipe
from tinymem.training.curve import note, point, read_curve, write_curve
from tinymem.training.loss import LossModel, batch_loss
from tinymem.training.optimizer import learning_rate, make_optimizer
from tinymem.training.precision import precision_context, resolve_precision, worth_compiling
from tinymem.training.regularizers.base import Regularizers
from tinymem.training.regularizers.catalogue import make_regularizers
from tinymem.training.state import load_state, restore, save_state
from tinymem.training.step import GraphedStep, Step, compiled

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


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Row order [count] of an epoch: a function of seed and epoch alone, so that resuming needs no random state."""
    mixed = (seed * 0x9E3779B1 + epoch) % 2**32  # the generator reads 32 bits only; this factor keeps different seeds apart
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def fresh_model(recipe: Recipe, row_tokens: int, corpus: Corpus | None = None) -> GPT:
    """The untrained model of a recipe; its vocabulary and special tokens are those of the corpus, or of math."""
    sizes: dict[str, Any] = {"n_positions": row_tokens, **recipe.model.model_dump()}
    if corpus is None:
        return GPT(math_config(**sizes), seed=recipe.seed)
    tokens: dict[str, Any] = {"bos_token_id": corpus.bos, "eos_token_id": corpus.eos, "pad_token_id": corpus.pad}
    return GPT(GPTConfig(vocab_size=corpus.vocab_size, **tokens, **sizes), seed=recipe.seed)


def train(recipe: Recipe, corpus: Corpus, directory: Path, *, device: str = "cpu", progress: Progress | None = None) -> Trained:
    """Train a recipe's model on its corpus, continuing from the newest resume point in `directory`.

    Writes `directory/metrics.jsonl` (one line per measured epoch) and resume points under `directory/state`. What regularisers need
    outside training is folded into the weights of the model that is returned.
    """
    run = _Run(recipe, corpus, directory, _fabric(device), progress or Progress())
    run.resume()
    with run.progress.stage(f"train {recipe.name}", recipe.training.epochs) as bar:
        bar.advance(run.epoch)
        while run.epoch < recipe.training.epochs:
            run.one_epoch()
            bar.advance(1, note(run.curve[-1]) if run.curve else "")
    run.regularizers.fold(run.model)
    run.model.eval()
    return Trained(run.model, run.evaluator.measure(run.model), run.curve, run.seconds)


@dataclass
class _Run:
    """A training run under way. Shape suffixes: N distinct rows, E rows of an epoch (copies counted), T tokens."""

    recipe: Recipe
    corpus: Corpus
    directory: Path
    fabric: Fabric
    progress: Progress
    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config, device = self.recipe.training, self.fabric.device
        rows, index = self.corpus.training_rows()
        self.index_E = torch.from_numpy(index).to(device)
        self.steps_per_epoch = -(-len(index) // config.batch_size)
        self.model = fresh_model(self.recipe, self.corpus.row_tokens, self.corpus).to(device)
        self.regularizers = make_regularizers([r.model_dump(mode="json") for r in config.regularizers], clean_rows=len(self.corpus.clean))
        self.regularizers.attach(self.model)
        self.evaluator = Evaluator.of_corpus(self.corpus, self.recipe.evaluation, self.recipe.protocol, device=device)
        graphed = device if self.fabric.world_size == 1 else None
        optimizer = make_optimizer(self.model.parameters(), config, device=graphed)
        self.optimizer = optimizer
        self.step = _step(self.fabric, self.recipe, self.model, optimizer, compact_rows(rows, device), self.regularizers, self.total_steps)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.recipe.training.epochs

    def resume(self) -> None:
        """Continue from the newest whole resume point, or measure the untrained model."""
        state = load_state(self.directory / STATE)
        if state:
            restore(state, self.model, self.optimizer, self.regularizers)
            self.epoch, self.steps, self.seconds = state.epoch, state.step, state.seconds
            self.progress.say(f"resuming after epoch {self.epoch} of {self.recipe.training.epochs}")
        self.curve = [line for line in read_curve(self.directory / METRICS) if line["epoch"] <= self.epoch]
        self.fabric.barrier()  # nobody writes before all have read
        if not state:
            self.curve = []
            self._measure(float("nan"), 0.0)

    def one_epoch(self) -> None:
        """All rows once, then a measurement and a resume point where they are due."""
        started = time.perf_counter()
        train_loss = self._learn()
        self.epoch += 1
        if not train_loss < float("inf"):
            raise UserError(f"the training loss became {train_loss} in epoch {self.epoch}; lower training.learning_rate")
        spent = time.perf_counter() - started
        self.seconds += spent
        config, last = self.recipe.training, self.epoch == self.recipe.training.epochs
        if last or self.epoch % config.evaluate_every == 0:
            self._measure(train_loss, len(self.index_E) * self.corpus.row_tokens / spent)
        if self.fabric.global_rank == 0 and (last or self.epoch % config.checkpoint_every == 0):
            save_state(
                self.directory / STATE,
                self.model,
                self.optimizer,
                self.regularizers,
                epoch=self.epoch,
                step=self.steps,
                seconds=self.seconds,
            )
        self.fabric.barrier()

    def _learn(self) -> float:
        """One pass over the rows; the mean of the steps' losses."""
        config, device = self.recipe.training, self.index_E.device
        self.model.train()
        order_E = self.index_E[epoch_order(self.recipe.seed, self.epoch, len(self.index_E)).to(device)]
        self.step.loss_sum.zero_()
        for batch_B in order_E.split(config.batch_size):
            self.step.set_rate(learning_rate(config, self.steps, self.total_steps))
            self.step(batch_B)
            self.steps += 1
        loss_sum: Any = self.fabric.all_reduce(self.step.loss_sum, reduce_op="mean")
        return float(loss_sum) / self.steps_per_epoch  # the only time that the host waits for the device

    def _measure(self, train_loss: float, speed: float) -> None:
        measured = self.evaluator.measure(self.model)
        self.curve.append(point(self.evaluator, measured, self.epoch, self.steps, train_loss, self.seconds, speed))
        if self.fabric.global_rank == 0:
            write_curve(self.directory / METRICS, self.curve)


def _step(
    fabric: Fabric,
    recipe: Recipe,
    model: GPT,
    optimizer: torch.optim.AdamW,
    rows_NT: Tensor,
    regularizers: Regularizers,
    steps: int,
) -> Step:
    """The fastest step for the device: replayed graphs on one GPU, eager on CPUs and in several processes."""
    config, device = recipe.training, str(fabric.device)
    losses = LossModel(model)
    options: dict[str, Any] = {"precision": precision_context(resolve_precision(config.precision, device), device)}
    if fabric.device.type == "cuda" and fabric.world_size == 1:
        step = GraphedStep(losses, optimizer, rows_NT, batch_loss, regularizers, **options)
        step.batch_size = config.batch_size
        step.compiled = compiled(losses) if worth_compiling(config.compile, device, steps) else None
        return step
    wrapped, wrapped_optimizer = fabric.setup(losses, optimizer)
    process = (fabric.global_rank, fabric.world_size)
    return Step(wrapped, wrapped_optimizer, rows_NT, batch_loss, regularizers, backward=fabric.backward, process=process, **options)


def _fabric(device: str) -> Fabric:
    """Lightning Fabric in fp32 (precision is the step's business): one device, or under `torchrun` one for each process."""
    from lightning.fabric import Fabric  # takes seconds: only training pays for it

    accelerator = "cuda" if device.startswith("cuda") else "cpu"
    processes, here = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > 1:
        fabric = Fabric(accelerator=accelerator, devices=here, num_nodes=processes // here, strategy="ddp", precision="32-true")
        fabric.launch()
        return fabric
    devices = 1 if accelerator == "cpu" else [torch.device(device).index or 0]
    return Fabric(accelerator=accelerator, devices=devices, precision="32-true")
