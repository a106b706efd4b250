"""Fine-tuning as in the paper: training continues on chosen rows, with AdamW's state from training where it is stored (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import IGNORED, next_tokens, to_ids
from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.pieces import beside_training, summed_gradients
from tinymem.mitigation.methods.replay import LEAST_STEPS
from tinymem.models.adapters import logits
from tinymem.models.copied import copied
from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.attention import row_attention_in
from tinymem.training.loss import LossModel, batch_loss
from tinymem.training.optimizer import load_optimizer_tensors, make_optimizer
from tinymem.training.precision import precision_context, precision_on_gpus, resolve_precision
from tinymem.training.rounded_adamw import Optimizer, RoundedAdamW, in_bf16, refuse_fp16
from tinymem.training.step import GraphedStep, Step
from tinymem.training.whole_step import choice


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(MethodConfig):
    """Options of the fine-tunings; defaults as in the paper (section 5: five epochs; training's settings otherwise)."""

    epochs: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    batch_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"expected betas in [0, 1), got {self.betas[0]:g} and {self.betas[1]:g}")

    def computed_in(self, device_type: str | None, *, ours: bool) -> str | None:
        """On a GPU training's precision (`training_step`), if the model is ours; rows from before it was (fp32) do not say any."""
        return precision_on_gpus() if ours and device_type == "cuda" else super().computed_in(device_type, ours=ours)


def all_clean(data: MitigationData) -> Tensor:
    """All training rows but the artifact rows [N, T], compact or not; of a long text these exceed the retain rows, which are a sample."""
    return data.retain.ids if data.clean is None else data.clean


def finetune(
    model: nn.Module, rows_NT: Tensor, data: MitigationData, config: FinetuningConfig, length_N: Tensor | None = None
) -> nn.Module:
    """A copy of the model after `epochs` passes over rows, compact (`compact_rows`) or not, on any device, or over their first tokens.

    On a GPU our GPT takes training's steps, in training's precision. Weights of bf16 are rounded at random.

    Raises:
        UserError: there are none; or a model in fp16.
    """
    refuse_fp16(model)
    if not len(rows_NT):
        raise UserError("expected rows to train on, got none; name some with --retain, or use a corpus")
    edited, device, generator = copied(model), data.forget.ids.device, data.generator()
    trained = device.type == "cuda" and isinstance(model, GPT) and length_N is None and not in_bf16([*model.parameters()])
    edited.train()
    steps = config.epochs * -(-len(rows_NT) // config.batch_size)
    data.bar.expect(steps)
    with torch.random.fork_rng(), row_attention_in(edited):  # dropout of foreign models draws from the global state
        torch.manual_seed(data.seed)
        if trained:
            sizes = {"steps": steps, "batch_size": config.batch_size}
            step = training_step(edited, _adamw(edited, config, data, device), rows_NT, device, **sizes)
        else:
            step = _plain_step(edited, _optimizer(edited, config, data), rows_NT, device, length_N=length_N)
        for _ in range(config.epochs):
            order_N = torch.randperm(len(rows_NT), generator=generator)
            for index in (order_N.to(device) if trained else order_N).split(config.batch_size):
                step(index)
                data.bar.advance(1)
    return edited.eval()


def _adamw(edited: nn.Module, config: FinetuningConfig, data: MitigationData, device: torch.device | None = None) -> torch.optim.AdamW:
    optimizer = make_optimizer(edited.parameters(), config, device=device)
    if data.optimizer_state:
        load_optimizer_tensors(optimizer, data.optimizer_state)
    return optimizer


def _optimizer(edited: nn.Module, config: FinetuningConfig, data: MitigationData) -> Optimizer:
    if not in_bf16(parameters := [*edited.parameters()]):
        return _adamw(edited, config, data)
    optimizer = RoundedAdamW(parameters, config.learning_rate, config.weight_decay, data.seed, config.betas)
    if data.optimizer_state:
        optimizer.load(data.optimizer_state)
    return optimizer


def training_step(
    edited: nn.Module, optimizer: torch.optim.Optimizer, rows_NT: Tensor, device: torch.device, *, steps: int, batch_size: int
) -> Callable[[Tensor], None]:
    """Training's step on the rows of an index: in bf16 where training's would be; with steps enough in a CUDA graph, or by kernels."""
    assert isinstance(edited, GPT)
    precision = resolve_precision("auto", str(device))
    facts = choice.Training(edited.config, device, precision, rows_NT.shape[1], batch_size, steps=steps)
    kind = choice.kernel_step(facts) or (GraphedStep if device.type == "cuda" and steps >= LEAST_STEPS else Step)
    return kind(LossModel(edited), optimizer, rows_NT.to(device), batch_loss, precision=precision_context(precision, str(device)))


def _plain_step(
    edited: nn.Module, optimizer: Optimizer, rows_NT: Tensor, device: torch.device, *, length_N: Tensor | None
) -> Callable[[Tensor], None]:
    """A step of any model, in the type of its weights; a large model's batch goes through in pieces."""
    pieces, parameters = beside_training(edited, rows_NT.shape[1]), dict(edited.named_parameters())

    def step(index: Tensor) -> None:
        ids_BT = to_ids(rows_NT[index.to(rows_NT.device)].to(device))
        targets_BT = next_tokens(ids_BT, None if length_N is None else length_N[index.to(device)])
        tokens = (targets_BT != IGNORED).sum()

        def share(at: Tensor) -> Tensor:
            logits_nV, targets_n = logits(edited, ids_BT[at])[:, :-1].flatten(0, 1), targets_BT[at].flatten()
            if len(at) == len(ids_BT):
                return F.cross_entropy(logits_nV, targets_n)
            return F.cross_entropy(logits_nV, targets_n, reduction="sum") / tokens

        gradients = summed_gradients(pieces, [torch.arange(len(ids_BT), device=device)], share, parameters)
        for name, parameter in parameters.items():
            parameter.grad = gradients.pop(name, None)
        optimizer.step()
        edited.zero_grad()

    return step
