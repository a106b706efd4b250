"""Baselines against their formulas, and the fine-tunings' rows."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import equal_weights

from tinymem.data.rows import Rows, compact_rows
from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods import pieces
from tinymem.mitigation.methods.baselines import _common, dpo_clean, gradient_difference, npo, rmu, simnpo, task_vector
from tinymem.mitigation.methods.finetuning import _common as finetuning
from tinymem.mitigation.methods.losses import row_losses
from tinymem.models.adapters import family_of, layer_of, logits, mlp_parameters
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.testing import FAMILIES, config_of, tiny_case
from tinymem.training import rounded_adamw
from tinymem.training.optimizer import optimizer_tensors

DUAL = ("gradient-difference", "npo", "simnpo", "rmu")
ALL = (*DUAL, "gradient-ascent", "task-vector")


def test_npo_formula():
    ratio = torch.tensor([0.0, -3.0, 2.0])
    expected = sum(-(2 / 0.1) * math.log(1 / (1 + math.exp(0.1 * r))) for r in ratio.tolist()) / 3
    assert float(npo.npo_loss(ratio, 0.1, 3)) == pytest.approx(expected, rel=1e-5)
    ratio.requires_grad_()
    npo.npo_loss(ratio, 0.1, 3).backward()
    assert float(ratio.grad[0]) == pytest.approx(1 / 3, rel=1e-5), "at the original model the gradient is that of gradient ascent"


def test_simnpo_formula():
    losses = torch.tensor([0.1, 2.0])
    config = simnpo.SimNPOConfig(delta=0.5)
    expected = sum(-(2 / 4.5) * math.log(1 / (1 + math.exp(-4.5 * (x - 0.5)))) for x in losses.tolist()) / 2
    assert float(simnpo.simnpo_loss(losses, config, 2)) == pytest.approx(expected, rel=1e-5)


def test_dpo_formula():
    """-log sigmoid(beta (log p(w)/ref(w) - log p(l)/ref(l))), Rafailov et al., equation 7, with probabilities by hand."""
    chosen, rejected, chosen_before, rejected_before = ([0.3, 0.01], [0.2, 0.9], [0.1, 0.02], [0.4, 0.5])
    ratios = [math.log(w / w0) - math.log(x / x0) for w, w0, x, x0 in zip(chosen, chosen_before, rejected, rejected_before, strict=True)]
    expected = sum(-math.log(1 / (1 + math.exp(-0.1 * r))) for r in ratios) / 2
    assert float(dpo_clean.dpo_loss(torch.tensor(ratios), 0.1, 2)) == pytest.approx(expected, rel=1e-5)


def test_dpo_takes_its_steps_on_pairs_and_leaves_rows_without_a_clean_version_out():
    model, data = tiny_case("gpt")
    twins = data.twins.take(torch.tensor([0, 1, 2, 3, 4, 5]))
    twins.ids[2] = data.forget.ids[2]  # an artifact without clean counterparts
    data = replace(data, twins=twins)
    kept = torch.tensor([0, 1, 3, 4, 5])

    def margin(m):
        chosen, rejected = (-row_losses(m, rows.take(kept), "suffix") * 7 for rows in (twins, data.forget))
        return chosen - rejected

    expected = adam_step(model, lambda m: -F.logsigmoid(0.1 * (margin(m) - margin(model).detach())).mean())
    found = one_step("dpo-clean", model, data)
    apart = torch.cat([(p - q).abs().flatten() for p, q in zip(found.parameters(), expected.parameters(), strict=True)])
    assert (apart < 1e-4).double().mean() > 0.99  # a gradient near zero (key biases) may round to either sign
    alone = replace(data, forget=data.forget.take(kept), twins=twins.take(kept))
    assert equal_weights(one_step("dpo-clean", model, data), one_step("dpo-clean", model, alone))


def test_dpo_without_clean_versions_is_refused():
    model, data = tiny_case("gpt")
    for twins, words in ((None, "use a model with its corpus"), (data.forget, "these artifacts have none")):
        with pytest.raises(UserError, match=words):
            one_step("dpo-clean", model, replace(data, twins=twins))


@torch.no_grad()
def test_summed_log_probabilities():
    model, data = tiny_case("gpt")
    nll, count = _common.summed(model, data.forget, "suffix")
    log_p = logits(model, data.forget.ids).log_softmax(-1)
    expected = -sum(log_p[:, t - 1].gather(1, data.forget.ids[:, t : t + 1])[:, 0] for t in range(5, 12))
    torch.testing.assert_close(nll, expected)
    assert count.tolist() == [7] * 6


def one_step(name, model, data, **options):
    method = UNLEARNERS.get(name)
    return apply(method, model, data, config_of(method, epochs=1, batch_size=6, learning_rate=1e-3, **options))


def adam_step(model, objective, rate=1e-3):
    """A first AdamW step without weight decay, by hand."""
    edited = deepcopy(model)
    parameters = list(edited.parameters())
    gradients = torch.autograd.grad(objective(edited), parameters)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p -= rate * g / (g.abs() + 1e-8)
    return edited


def retain_of_first_step(data):
    generator = data.generator()
    torch.randperm(len(data.forget), generator=generator)
    return data.retain.take(torch.randperm(len(data.retain), generator=generator)[:6])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_first_steps_follow_the_formulas(family):
    model, data = tiny_case(family)
    kept = retain_of_first_step(data)

    def forget_loss(m):
        return row_losses(m, data.forget, "suffix")

    def keep(m):
        return row_losses(m, kept).mean()

    expected = {
        "gradient-ascent": lambda m: -forget_loss(m).mean(),
        "gradient-difference": lambda m: keep(m) - forget_loss(m).mean(),
        "npo": lambda m: keep(m) - 20 * F.logsigmoid(0.1 * 7 * (forget_loss(m) - forget_loss(model).detach())).mean(),
        "simnpo": lambda m: keep(m) - 2 / 4.5 * F.logsigmoid(4.5 * forget_loss(m)).mean(),
    }
    for name, objective in expected.items():
        found, by_hand = one_step(name, model, data), adam_step(model, objective)
        apart = torch.cat([(p - q).abs().flatten() for p, q in zip(found.parameters(), by_hand.parameters(), strict=True)])
        assert (apart < 1e-4).double().mean() > 0.99, name  # a gradient near zero (key biases) may round to either sign


def descended(model, data, objective, trained):
    """Steps of AdamW on an objective of the batches that the baselines draw."""
    edited = deepcopy(model)
    chosen = [p for name, p in edited.named_parameters() if name in trained]
    optimizer = torch.optim.AdamW(chosen, lr=1e-2, weight_decay=0.0)
    for batch in _common._batches(data, _common.BaselineConfig(epochs=2, batch_size=4)):
        edited.zero_grad()
        objective(edited, batch).backward()
        optimizer.step()
    return edited


def objectives(model, data):
    """What each dual baseline minimizes, row by row as its paper has it; forget weight 2, retain weight 3."""
    everything = {name for name, _ in model.named_parameters()}
    steered = rmu._unit_vector(model, data) * 5

    def log_p(m, ids):
        return sum(logits(m, ids[None])[0].log_softmax(-1)[t - 1, ids[t]] for t in range(5, 12))

    def state(m, ids):
        found = []
        handle = m.get_submodule(family_of(m).blocks)[1].register_forward_hook(lambda _m, _x, y: found.append(y))
        logits(m, ids[None])
        handle.remove()
        return (found[0] if isinstance(found[0], torch.Tensor) else found[0][0])[0]

    def keep(m, batch):
        return 3 * sum(F.cross_entropy(logits(m, ids[None])[0, :-1], ids[1:]) for ids in batch.retain.ids) / len(batch.retain)

    def npo_of(m, batch):
        ratios = [log_p(m, ids) - log_p(model, ids).detach() for ids in batch.forget.ids]
        return keep(m, batch) - 2 * sum(2 / 0.1 * F.logsigmoid(-0.1 * ratio) for ratio in ratios) / len(ratios)

    def simnpo_of(m, batch):
        return keep(m, batch) - 2 * sum(2 / 4.5 * F.logsigmoid(4.5 * -log_p(m, ids) / 7) for ids in batch.forget.ids) / len(batch.forget)

    def rmu_of(m, batch):
        forget = sum((state(m, ids)[4:11] - steered).square().mean() for ids in batch.forget.ids) / len(batch.forget)
        kept = sum((state(m, ids) - state(model, ids).detach()).square().mean() for ids in batch.retain.ids) / len(batch.retain)
        return 2 * forget + 3 * kept

    return {"npo": (npo_of, everything), "simnpo": (simnpo_of, everything), "rmu": (rmu_of, set(mlp_parameters(model)))}


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["npo", "simnpo", "rmu"])
def test_further_steps_follow_the_formulas_too(name, family):
    """After the first step the original's probabilities and states differ from the edited model's, and rows from each other."""
    model, data = tiny_case(family)
    objective, trained = objectives(model, data)[name]
    method = UNLEARNERS.get(name)
    options = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "forget_weight": 2.0, "retain_weight": 3.0}
    found, by_hand = method.function(model, data, config_of(method, **options)), descended(model, data, objective, trained)
    apart = torch.cat([(p - q).abs().flatten() for p, q in zip(found.parameters(), by_hand.parameters(), strict=True)])
    assert (apart < 2e-4).double().mean() > 0.98, name
    with torch.no_grad():
        torch.testing.assert_close(logits(found, data.forget.ids), logits(by_hand, data.forget.ids), atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_kl_to_the_original_is_zero_at_the_start_and_positive_after(family):
    model, data = tiny_case(family)
    moved = one_step("gradient-difference", model, data, retain_term="kl")
    with torch.no_grad():
        assert float(gradient_difference.divergence(model, model, data.retain, data.retain)) == pytest.approx(0, abs=1e-6)
        before, after = (torch.distributions.Categorical(logits=logits(m, data.retain.ids)[:, :-1]) for m in (model, moved))
        expected = torch.distributions.kl_divergence(before, after).mean()
        torch.testing.assert_close(gradient_difference.divergence(model, moved, data.retain, data.retain), expected, rtol=1e-3, atol=1e-7)
        assert expected > 0
    ascent = one_step("gradient-ascent", model, data)  # the divergence has no slope where it is 0
    apart = torch.cat([(p - q).abs().flatten() for p, q in zip(moved.parameters(), ascent.parameters(), strict=True)])
    assert (apart < 1e-4).double().mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_rmu_steers_the_layer_and_trains_no_other(family):
    model, data = tiny_case(family)
    config = rmu.RMUConfig(epochs=40, learning_rate=1e-2, steering=2.0, batch_size=6, depth=0.5, layers=1)
    edited = rmu.rmu(model, data, config)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, edited.get_parameter(n))}
    assert changed == {n for n in mlp_parameters(model) if layer_of(model, n) == 1}
    target = rmu._unit_vector(model, data) * 2
    assert float(target.norm()) == pytest.approx(2, rel=1e-5)
    with torch.no_grad():
        far, near = ((rmu.block_output(m, data.forget, 1)[:, 4:11] - target).square().mean() for m in (model, edited))
        drift = (rmu.block_output(model, data.retain, 1) - rmu.block_output(edited, data.retain, 1)).square().mean()
    assert near < 0.5 * far and drift < far


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_task_vector_is_minus_the_step_of_fine_tuning(family):
    model, data = tiny_case(family)
    config = task_vector.TaskVectorConfig(epochs=2, strength=1.0, batch_size=4)
    back, forward = task_vector.task_vector(model, data, config), task_vector.task_vector(model, data, replace(config, strength=-1.0))
    for old, minus, plus in zip(model.parameters(), back.parameters(), forward.parameters(), strict=True):
        torch.testing.assert_close(minus + plus, 2 * old, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        losses = [float(row_losses(m, data.forget, "suffix").mean()) for m in (forward, model, back)]
    assert losses == sorted(losses)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name != "rmu"])
def test_every_baseline_raises_the_forget_loss(name):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get(name)
    edited = apply(method, model, data, config_of(method, epochs=10, learning_rate=3e-3, retain_weight=0.0))
    with torch.no_grad():
        assert row_losses(edited, data.forget, "suffix").mean() > row_losses(model, data.forget, "suffix").mean()


@pytest.mark.parametrize("name", DUAL)
def test_dual_objectives_need_rows_to_keep(name):
    model, data = tiny_case("gpt")
    with pytest.raises(UserError, match="rows to keep"):
        one_step(name, model, replace(data, retain=data.retain.take(torch.arange(0))))


def test_fine_tunings_see_their_rows(monkeypatch):
    model, data = tiny_case("gpt")
    seen = {}
    for name in ("extra", "both", "clean"):
        module = UNLEARNERS.get(f"finetune-{name}").function.__globals__
        monkeypatch.setitem(module, "finetune", lambda model, rows, data, config, length=None, name=name: seen.update({name: rows}))
        UNLEARNERS.get(f"finetune-{name}").function(model, data, finetuning.FinetuningConfig())
    assert torch.equal(seen["extra"], data.retain.ids)
    assert torch.equal(seen["both"], torch.cat([data.retain.ids, data.clean_counterparts.ids]))
    assert torch.equal(seen["clean"], data.clean_counterparts.ids)


def test_extra_fine_tuning_without_rows_is_no_training():
    """AdamW would shrink all weights at each empty batch."""
    model, data = tiny_case("gpt")
    with pytest.raises(UserError, match="rows to train on, got none"):
        one_step("finetune-extra", model, replace(data, retain=data.retain.take(torch.arange(0))))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_fine_tunings_train_on_compact_rows_as_on_others(dtype):
    """A long text's clean rows are not copied into 64-bit ids; ids above 32,767 are negative where 16 bits are signed."""
    _, data = tiny_case("gpt")
    top = 40_000 if dtype == np.uint16 else 17
    model = GPT(GPTConfig(vocab_size=top, n_positions=12, n_layer=1, n_embd=4, n_head=1), seed=1).eval()
    high = replace(data, retain=Rows.of(data.retain.ids + top - 17), clean_counterparts=Rows.of(data.clean_counterparts.ids + top - 17))
    compact = replace(high, retain=high.retain.take(torch.arange(2)), clean=compact_rows(high.retain.ids.numpy().astype(dtype)))
    for name in ("finetune-extra", "finetune-both"):
        method = UNLEARNERS.get(name)
        one, other = (apply(method, model, d, config_of(method, epochs=1, batch_size=4)) for d in (high, compact))
        assert equal_weights(one, other) and not equal_weights(one, model)


@pytest.mark.parametrize("name", ALL)
def test_pieces_of_a_batch_make_the_same_step(name, monkeypatch):
    """Two rows of each kind at a time, as a large model's batch of six goes through, also where rows end apart."""
    model, data = tiny_case("gpt-neox")
    lengths = [6 + n % 7 for n in range(10)]
    retain = Rows.ragged(
        [ids[:n].tolist() for ids, n in zip(data.retain.ids, lengths, strict=True)], data.retain.prompt, torch.tensor(lengths), 12
    )
    data, edits = replace(data, retain=retain), []
    taken, piece = [], _common.Batch.piece
    monkeypatch.setattr(_common.Batch, "piece", lambda self, at: taken.append(piece(self, at)) or taken[-1])
    for rows in (None, 4):
        monkeypatch.setattr(pieces, "rows_at_once", lambda *_, rows=rows, **__: rows)
        edits.append(one_step(name, model, data))
    assert taken and not any(len(each.forget) and len(each.retain) for each in taken), "gradients of all weights would wait for others"
    apart = torch.cat([(p - q).abs().flatten() for p, q in zip(*(edited.parameters() for edited in edits), strict=True)])
    assert (apart < 1e-4).double().mean() > 0.99 and not equal_weights(model, edits[0])


def test_rounding_at_random_is_right_in_the_mean():
    values = torch.tensor([1.0, 1.001, -1.001, 3e-5, 0.0]).repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    found = rounded_adamw.rounded(values, generator).float()
    assert torch.equal(found[:, 0], values[:, 0]) and torch.equal(found[:, 4], values[:, 4]), "what bf16 holds stays"
    for k in (1, 2, 3):
        low, high = sorted(found[:, k].unique().tolist(), key=abs)
        assert abs(low) <= abs(float(values[0, k])) <= abs(high) and abs(high - low) <= 2**-7 * abs(high)
        error = abs(high - low) / 2 / 20_000**0.5
        assert abs(float(found[:, k].double().mean()) - float(values[0, k])) < 4 * error
    again = rounded_adamw.rounded(values, torch.Generator().manual_seed(0)).float()
    assert torch.equal(found, again) and not torch.equal(found, rounded_adamw.rounded(values, generator).float())


def test_bf16_follows_fp32_where_each_step_is_below_its_precision():
    """A hundred steps of 1e-5 on weights from 1 to 2, whose neighbors in bf16 are 0.0078 away."""
    start = 1 + torch.rand(4000, generator=torch.Generator().manual_seed(0))
    ways = {}
    for dtype in (torch.float32, torch.bfloat16):
        parameter = torch.nn.Parameter(start.bfloat16().to(dtype))
        optimizer = rounded_adamw.optimizer_of([parameter], 1e-5, 0.0, seed=1)
        for _ in range(100):
            parameter.grad = torch.full_like(parameter, 0.5)
            optimizer.step()
        ways[dtype] = float((parameter.detach().double() - start.bfloat16().double()).mean())
    assert ways[torch.float32] == pytest.approx(-1e-3, rel=0.01)
    assert ways[torch.bfloat16] == pytest.approx(-1e-3, rel=0.2), "rounded to nearest it would be 0"


TRAINED = [name for name in UNLEARNERS.names() if UNLEARNERS.get(name).properties.criterion == "optimization"]


@pytest.mark.parametrize("name", [*TRAINED, "slim", "hard-concrete"])
def test_fp16_is_refused(name):
    model, data = tiny_case("gpt-neox")
    method = UNLEARNERS.get(name)
    with pytest.raises(UserError, match="expected a model in bf16 or fp32"):
        apply(method, model.half(), data, config_of(method, epochs=1, ratio=0.25))


def test_a_finetuning_in_bf16_moves_weights_as_in_fp32():
    """Steps of 2e-5 on weights that are 0.001 apart and more: to the nearest, most of them would be lost."""
    model, data = tiny_case("gpt-neox")
    config = finetuning.FinetuningConfig(epochs=8, learning_rate=2e-5, weight_decay=0.0, batch_size=2)
    model = model.bfloat16()
    moved = []
    for placed in (model, deepcopy(model).float()):
        edited = finetuning.finetune(placed, data.retain.ids, data, config)
        changes = [(p.double() - q.double()).flatten() for p, q in zip(edited.parameters(), placed.parameters(), strict=True)]
        moved.append(torch.cat(changes).detach())
    assert float(moved[0] @ moved[1] / moved[1].square().sum()) == pytest.approx(1, abs=0.15)


def test_an_adamw_of_bf16_goes_on_from_a_stored_state():
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 2000).bfloat16())
    twin = torch.nn.Parameter(parameter.detach().float())
    adamw = torch.optim.AdamW([twin], lr=1e-3, betas=(0.9, 0.98))
    for _ in range(3):
        twin.grad = torch.full_like(twin, 0.3)
        adamw.step()
    rounding = rounded_adamw.RoundedAdamW([parameter], 1e-3, 0.01, 0, (0.9, 0.98))
    rounding.load(optimizer_tensors(adamw))
    with torch.no_grad():
        twin.copy_(parameter)
    for optimizer, weights in ((rounding, parameter), (adamw, twin)):
        weights.grad = torch.full_like(weights, -0.2)
        optimizer.step()
    before = torch.linspace(-1, 1, 2000).bfloat16().double()
    found, expected = (float((weights.detach().double() - before).mean()) for weights in (parameter, twin))
    assert found == pytest.approx(expected, rel=0.1)


def test_parameters_in_fp32_beside_bf16_ones_are_not_rounded():
    full, short, twin = (
        torch.nn.Parameter(torch.linspace(-1, 1, 50, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float32)
    )
    rounding = rounded_adamw.RoundedAdamW([full, short], 1e-3, 0.01, 0)
    adamw = torch.optim.AdamW([twin], lr=1e-3, weight_decay=0.01, betas=rounding.betas)
    for parameter in (full, short, twin):
        parameter.grad = torch.full_like(parameter, 0.3)
    rounding.step()
    adamw.step()
    assert full.dtype == torch.float32 and torch.allclose(full, twin, atol=1e-7, rtol=0)
