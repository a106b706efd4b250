"""The training loop: one permutation of the rows per epoch, with resume points, measurements and checkpoints on the way.

The rows are on the device, and within an epoch nothing is read back from it (`step`). Under `torchrun` every process takes its
part of each batch (`parallel`).

After a stop signal (`signals`) the run finishes its step, writes a resume point in the middle of the epoch, and raises `Stopped`.
Not at the epoch's end: an epoch of the language models may take longer than the half a minute that schedulers give. For the same reason
a resume point is written every five minutes, besides those after the epochs that the recipe names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.data.rows import compact_rows
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.models.checkpoint import not_finite
from tinymem.models.gpt2 import GPT
from tinymem.recipe.recipe import Recipe
from tinymem.results.curve import CurvePoint, read_curve, write_curve
from tinymem.runtime.progress import Progress, progress_of
from tinymem.runtime.signals import StopFlag, stop_signals
from tinymem.runtime.words import duration
from tinymem.training.curve import point
from tinymem.training.energy import Meter, estimate_here
from tinymem.training.loss import LossModel, batch_loss
from tinymem.training.optimizer import learning_rate, make_optimizer, optimizer_tensors
from tinymem.training.parallel import OneProcess, any_process, make_processes, mean_over_processes
from tinymem.training.precision import precision_context, resolve_precision, worth_compiling
from tinymem.training.regularizer_section import TrainingRows, make_regularizers
from tinymem.training.snapshot import Keeper, Snapshot, Trained, TrainingFacts
from tinymem.training.start import epoch_order, fresh_model, refuse_training_beyond_memory
from tinymem.training.state import TrainingState, load_state, next_step, restore, save_state
from tinymem.training.step import GraphedStep, Step
from tinymem.training.tensorboard import make_logger, scalars
from tinymem.training.threads import training_threads
from tinymem.training.whole_step import choice

if TYPE_CHECKING:
    from lightning.fabric import Fabric

METRICS, STATE = "metrics.jsonl", "state"
STOP_TOGETHER = 32  # several processes agree to stop every so many steps: asking waits for the device
SAVE_SECONDS = 300.0
"""Longest time between two resume points."""


def train(
    recipe: Recipe,
    corpus: Corpus,
    directory: Path,
    *,
    device: str = "cpu",
    progress: Progress | bool = True,
    keeper: Keeper | None = None,
) -> Trained:
    """Train a recipe's model on its corpus, continuing from the newest resume point in `directory`.

    Writes `directory/metrics.jsonl` (a line for each measurement) and resume points under `directory/state`; a keeper gets a snapshot
    after each of the recipe's `keep_epochs` but the last, which is returned, also where a signal came in its last step or later: then with
    the `Stopped` to raise. `progress`: as of `tinymem.run`.

    Raises:
        UserError: a loss that is no number, a full disk, a resume point of another precision.
        Stopped: a signal came; the resume point is written.
    """
    settings = recipe.training
    loggers = [make_logger(directory, next_step(directory / STATE))] if settings.tensorboard else []
    processes = make_processes(device, loggers)
    with stop_signals() as stop, training_threads(processes.device) as threads:
        shown = progress_of(progress if processes.global_rank == 0 else False)
        run = _Run(recipe, corpus, directory, processes, shown, stop, keeper, {threads} if threads else set())
        meter = Meter(settings.energy.country)
        try:
            run.all_epochs()
        finally:
            measured = meter.stop()
    last = run.snapshot(run.model, run.epoch, run.steps, run.busy)
    energy = last.facts.energy
    if measured:
        energy["codecarbon"] = measured
    run.progress.say(f"trained in {duration(run.busy)}: about {energy['kwh']:.3g} kWh and {energy['carbon_kg']:.2g} kg of CO2")
    stopped = stop.stopped(f" after epoch {run.epoch}, the last") if stop.name else None
    return Trained(**vars(last), curve=run.curve, stopped=stopped)


@dataclass
class _Run:
    """A training run under way. Shape suffixes: N distinct rows, E rows of an epoch (copies counted), T tokens."""

    recipe: Recipe
    corpus: Corpus
    directory: Path
    processes: Fabric | OneProcess
    progress: Progress
    stop: StopFlag
    keeper: Keeper | None = None
    threads: set[int] = field(default_factory=set)
    ways: set[str] = field(default_factory=set)
    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    saved: float = 0.0

    def __post_init__(self) -> None:
        config, device = self.recipe.training, self.processes.device
        self.saved = time.monotonic()
        rows, index = self.corpus.training_rows(counterfactual=self.recipe.is_counterfactual)
        self.index_E = torch.from_numpy(index).to(device)
        self.steps_per_epoch = -(-len(index) // config.batch_size)
        self.precision = resolve_precision(config.precision, str(device))
        refuse_training_beyond_memory(self.recipe, len(index), str(device))
        self.model = fresh_model(self.recipe, self.corpus.row_tokens, self.corpus).to(device)
        self.regularizers = make_regularizers(config.regularizers, TrainingRows(len(self.corpus.clean), len(rows)))
        self.regularizers.attach(self.model)
        self.process = (self.processes.global_rank, self.processes.world_size)
        self.evaluator = Evaluator.of_corpus(self.corpus, self.recipe.evaluation, self.recipe.protocol, device=device, process=self.process)
        self.optimizer = make_optimizer(self.model.parameters(), config, device=device)
        self.step = self._make_step(compact_rows(rows, device))

    def _make_step(self, rows_NT: Tensor) -> Step:
        """The fastest step for the device: on GPUs of whole-block kernels or else replayed graphs, eager on CPUs."""
        config, device, place = self.recipe.training, str(self.processes.device), self.processes.device
        names = tuple(section.kind for section in config.regularizers)
        sizes = self.precision, self.corpus.row_tokens, config.batch_size
        facts = choice.Training(self.model.config, place, *sizes, names, self.process[1], config.kernels)
        kind = choice.kernel_step(facts) or (GraphedStep if place.type == "cuda" else Step)
        step = kind(
            LossModel(self.model),
            self.optimizer,
            rows_NT,
            batch_loss,
            self.regularizers,
            precision=precision_context(self.precision, device),
            process=self.process,
        )
        if isinstance(step, GraphedStep):
            step.batch_size = config.batch_size
            step.compiling = worth_compiling(config.compile, device, self.total_steps)
        return step

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.recipe.training.epochs

    @property
    def midway(self) -> int | None:
        """Number of steps after which an epoch is measured within, for a curve of more than its ends; None at its ends alone."""
        return self.steps_per_epoch // 2 if self.recipe.training.measured_midway else None

    @property
    def in_epoch(self) -> int:
        """Number of steps done in the epoch under way."""
        return self.steps - self.epoch * self.steps_per_epoch

    def all_epochs(self) -> None:
        """Train from the newest resume point to the last epoch."""
        self.resume()
        if late := [epoch for epoch in self.recipe.training.keep_epochs if epoch > self.recipe.training.epochs]:
            self.progress.say(f"never reached, so not kept: epochs {late}; the last one is {self.recipe.training.epochs}")
        with self.progress.stage(f"train {self.recipe.name}", self.recipe.training.epochs, done=self.epoch) as bar:
            while self.epoch < self.recipe.training.epochs:
                self.one_epoch()
                bar.advance(1, self.curve[-1].note if self.curve else "")

    def resume(self) -> None:
        """Continue from the newest whole resume point, or measure the untrained model."""
        state = load_state(self.directory / STATE)
        if state:
            self._take_over(state)
        done = self.epoch + self.in_epoch / self.steps_per_epoch
        self.curve = [line for line in read_curve(self.directory / METRICS) if line.at <= done]
        self.processes.barrier()  # nobody writes before all have read
        if not state:
            self.curve = []
            self._measure(float("nan"), 0.0)
        self._keep_missing()

    def _take_over(self, state: TrainingState) -> None:
        if state.precision not in (None, self.precision):
            raise UserError(
                f"expected to go on in {state.precision}, in which {self.directory.parent} was begun, got {self.precision}; "
                "go on where it was begun, or train it anew: --set name=..."
            )
        restore(state, self.model, self.optimizer, self.regularizers)
        if state.loss_sum is not None:
            self.step.loss_sum.copy_(state.loss_sum)
        self.epoch, self.steps, self.seconds, self.busy = state.epoch, state.step, state.seconds, state.busy_seconds
        self.threads, self.ways = {*self.threads, *state.threads}, {*state.ways}
        where = f"step {state.in_epoch} of epoch {self.epoch + 1}" if state.in_epoch else f"epoch {self.epoch}"
        self.progress.say(f"resuming after {where} of {self.recipe.training.epochs}")

    def one_epoch(self) -> None:
        """Train on all rows once, then write the measurement, the resume point and the checkpoint that are due.

        Raises:
            UserError: the loss or a weight became NaN or infinite.
        """
        train_loss, speed = self._learn()
        self.epoch += 1
        if not train_loss < float("inf"):
            raise UserError(f"the training loss became {train_loss} in epoch {self.epoch}; lower training.learning_rate")
        config, last = self.recipe.training, self.epoch == self.recipe.training.epochs
        kept = self.epoch in config.keep_epochs
        if (last or kept) and (broken := not_finite(self.model)):  # by the epoch's last step, whose loss was of the weights before it
            raise UserError(f"weights became NaN or infinite in epoch {self.epoch}, '{broken[0]}' first; lower training.learning_rate")
        if last or kept or self.epoch % config.measured_every == 0:
            self._measure(train_loss, speed)
        stopped = any_process(self.stop.name is not None, self.processes.device)
        if last or kept or stopped or self.epoch % config.saved_every == 0 or any_process(self._is_late, self.processes.device):
            self._save()
        if kept:
            self._keep(self.model, self.epoch, self.steps, self.busy)
        self.processes.barrier()
        if stopped and not last:
            raise self.stop.stopped(f" after epoch {self.epoch}")

    def _learn(self) -> tuple[float, float]:
        """Finish a pass over the rows; returns the mean of all its steps' losses, and tokens a second."""
        config, device = self.recipe.training, self.index_E.device
        started, first = time.perf_counter(), self.in_epoch
        self.model.train()
        order_E = self.index_E[epoch_order(self.recipe.seed, self.epoch, len(self.index_E)).to(device)]
        if not first:
            self.step.loss_sum.zero_()
        for batch_B in order_E.split(config.batch_size)[first:]:
            self.step.set_rate(learning_rate(config, self.steps, self.total_steps))
            self.step(batch_B)
            self.ways.add(self.step.way)
            self.steps += 1
            if self.in_epoch == self.midway:
                started += self._measure_within(time.perf_counter() - started, first)
            if self._may_pause:
                self._pause(started)
        train_loss = float(mean_over_processes(self.step.loss_sum)) / self.steps_per_epoch  # the only time that the host waits
        spent = time.perf_counter() - started
        self.seconds, self.busy = self.seconds + spent, self.busy + spent
        return train_loss, (len(self.index_E) - first * config.batch_size) * self.corpus.row_tokens / spent

    def _measure_within(self, spent: float, first: int) -> float:
        """Measure in the middle of an epoch, `spent` seconds after its step `first`; returns the seconds of the measurement."""
        loss = float(mean_over_processes(self.step.loss_sum)) / self.in_epoch
        rows, before = (self.in_epoch - first) * self.recipe.training.batch_size, self.busy
        self._measure(loss, rows * self.corpus.row_tokens / spent, spent)
        self.model.train()
        return self.busy - before

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self.saved >= SAVE_SECONDS

    @property
    def _may_pause(self) -> bool:
        """Whether steps of this epoch are left, and all processes ask each other now."""
        return self.in_epoch < self.steps_per_epoch and (self.processes.world_size == 1 or self.steps % STOP_TOGETHER == 0)

    def _pause(self, started: float) -> None:
        """Write a resume point within the epoch if a process has had a stop signal, which ends the run, or none was written for long."""
        stop = self.stop.name is not None
        if not any_process(stop or self._is_late, self.processes.device):
            return
        float(self.step.loss_sum)  # the host was ahead: wait for the device, so that its time is counted
        self._save(time.perf_counter() - started)
        self.processes.barrier()
        if any_process(stop, self.processes.device):
            raise self.stop.stopped(f" after step {self.in_epoch} of epoch {self.epoch + 1}")

    def _save(self, spent: float = 0.0) -> None:
        """Write a resume point; `spent` seconds of the epoch under way are not counted yet."""
        loss_sum = mean_over_processes(self.step.loss_sum)  # each has its own; all take part
        if self.processes.global_rank == 0:
            state = TrainingState(
                epoch=self.epoch,
                step=self.steps,
                in_epoch=self.in_epoch,
                seconds=self.seconds + spent,
                busy_seconds=self.busy + spent,
                precision=self.precision,
                threads=sorted(self.threads),
                ways=sorted(self.ways),
                model=self.model.state_dict(),
                optimizer=optimizer_tensors(self.optimizer),
                regularizers=self.regularizers.state_dict(),
                loss_sum=loss_sum,
            )
            config = self.recipe.training
            save_state(self.directory / STATE, state, keep=config.keep_epochs, shard_bytes=config.shard_mib and config.shard_mib * 2**20)
        self.saved = time.monotonic()

    def _measure(self, train_loss: float, speed: float, spent: float = 0.0) -> None:
        """Add a point to the curve; `spent` seconds of the epoch under way are not counted yet."""
        started = time.perf_counter()
        measured, part = self.evaluator.measure(self.model), self.in_epoch / self.steps_per_epoch
        self.curve.append(point(self.evaluator, measured, self.epoch, self.steps, train_loss, self.seconds + spent, speed, part))
        if self.processes.global_rank == 0:
            write_curve(self.directory / METRICS, self.curve)
            self.processes.log_dict(scalars(self.curve[-1].as_dict()), step=self.steps)
        self.busy += time.perf_counter() - started

    def _keep(self, model: GPT, epoch: int, step: int, busy: float) -> None:
        if self.keeper is not None and self.processes.global_rank == 0 and epoch < self.recipe.training.epochs:
            self.keeper.save(self.snapshot(model, epoch, step, busy))

    def _keep_missing(self) -> None:
        """Write the checkpoints of `keep_epochs` that are missing because the run was killed after their resume point."""
        for epoch in self.recipe.training.keep_epochs:
            if self.keeper is None or epoch > self.epoch or epoch >= self.recipe.training.epochs or self.keeper.has(epoch):
                continue
            state = load_state(self.directory / STATE, epoch)
            if state is None:
                raise UserError(f"expected to keep epoch {epoch}, but {self.directory.parent} is past it; train it anew: --set name=...")
            model = GPT(self.model.config).to(self.processes.device)
            model.load_state_dict(state.model)
            self._keep(model, epoch, state.step, state.busy_seconds)

    def snapshot(self, model: GPT, epoch: int, step: int, busy: float) -> Snapshot:
        """The model with regularizers folded in, and its metrics and metadata.

        Raises:
            UserError: the curve has no line of the epoch.
        """
        metrics = next((line for line in self.curve if line.at == epoch), None)
        if metrics is None:
            raise UserError(f"expected a line of epoch {epoch} in {self.directory / METRICS}, found none; train it anew: --set name=...")
        device, energy = self.processes.device, self.recipe.training.energy
        facts = TrainingFacts(
            precision=self.precision,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            processes=self.processes.world_size,
            threads=sorted(self.threads) or None,
            ways=sorted(self.ways),
            torch=torch.__version__,
            energy=estimate_here(busy, energy, device, self.processes.world_size),
        )
        return Snapshot(self.regularizers.folded(model), epoch, step, metrics, metrics.seconds or 0.0, facts)
