"""Checks that every registered method, metric, artifact kind and regularizer must pass, for our tests and for those of users.

Each check runs a method on a tiny random model of one family, or the other kinds on a tiny corpus or model, and raises AssertionError
with the reason, or unittest.SkipTest where the method lacks the option that is checked; pytest shows it as skipped. See `tinymem new`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from unittest import SkipTest

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.metric import FIELDS, METRICS
from tinymem.mitigation.ablation import AblationConfig, Refused
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.edit_size import change
from tinymem.mitigation.method import UNLEARNERS, MitigationData, Unlearner, apply
from tinymem.models.adapters import layer_of, logits, mlp_parameters, neuron_layers
from tinymem.models.families import FAMILIES as REGISTERED
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.kinds import RegularizerSection
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.runtime.json import Json, JsonObject
from tinymem.training.regularizer import Regularizers
from tinymem.training.regularizer_section import TrainingRows, make_regularizers

FAMILIES = ("gpt", "gpt2", "gpt-neox", "llama")
"""Families that tests of methods run on: one for each way to store a feed-forward block; any other registered name works too."""
VOCABULARY, LENGTH = 17, 12
# Small runs of any method; Greedy takes many weights a step here (its own tests take one).
QUICK: dict[str, float] = {"ratio": 0.25, "epochs": 1, "per_step": 64}


def tiny_model(family: str) -> nn.Module:
    """A random model of 2 layers of a registered family; those other than `gpt` need transformers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return REGISTERED.get(family).tiny(VOCABULARY, LENGTH).eval()


def tiny_case(family: str) -> tuple[nn.Module, MitigationData]:
    """A tiny model with 6 forget rows, their clean counterparts, and 10 retain rows."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, VOCABULARY, (22, LENGTH), generator=generator)
    data = MitigationData(
        forget=Rows.of(ids[:6], prompt=5),
        retain=Rows.of(ids[6:16], prompt=5),
        clean_counterparts=Rows.of(ids[16:], prompt=5),
        twins=Rows.of(ids[16:], prompt=5),
        seed=3,
    )
    return tiny_model(family), data


def config_of(method: Unlearner, **options: Json) -> MethodConfig:
    """A method's default config, changed by those of `options` that it has."""
    known = {f.name for f in fields(method.config)}
    return replace(method.config(), **{k: v for k, v in options.items() if k in known})


def input_untouched(method: Unlearner, family: str) -> None:
    """Check that the input model keeps its weights, gradients, flags, mode and hooks."""
    model, data = tiny_case(family)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    apply(method, model, data, config_of(method, **QUICK))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the input model's weights changed"
    assert all(p.grad is None for p in model.parameters()), "gradients were left in the input model"
    assert all(p.requires_grad for p in model.parameters()), "requires_grad of the input model changed"
    assert not model.training, "the input model was put in training mode"
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules()), "hooks were left in the input model"


def same_seed_same_edit(method: Unlearner, family: str) -> None:
    """Check that two runs with one seed give the same weights, whatever the global random state."""
    model, data = tiny_case(family)
    config = config_of(method, **QUICK)
    torch.manual_seed(0)
    first = apply(method, model, data, config).state_dict()
    torch.manual_seed(1)
    second = apply(method, model, data, config).state_dict()
    assert all(torch.equal(v, second[k]) for k, v in first.items()), "the same seed gave two edits"


def zero_is_control(method: Unlearner, family: str) -> None:
    """Check that ratio 0 (or no epochs) changes nothing."""
    off = {"ratio": 0.0} if "ratio" in _options(method) else {"epochs": 0}
    _needs(method, *off)
    model, data = tiny_case(family)
    assert change(model, apply(method, model, data, config_of(method, **off)))[0] == 0, f"{off} changed the model"


def exact_count(method: Unlearner, family: str) -> None:
    """Check that a method with a ratio changes exactly that share of its unit, in the feed-forward blocks only."""
    _needs(method, "ratio")
    model, data = tiny_case(family)
    with torch.no_grad():  # no weight is zero already, so that each choice shows as a change
        for parameter in model.parameters():
            parameter[parameter == 0] = 1e-3
    config = config_of(method, **QUICK)
    assert isinstance(config, AblationConfig), "a config with a ratio must derive from AblationConfig"
    edited = apply(method, model, data, config)
    changed = _changed(model, edited)
    expected, per_unit = _expected(method, model, data, config)
    assert sum(int(m.sum()) for m in changed.values()) == expected * per_unit, "the number of edited parameters is not the ratio's"
    foreign = [name for name, m in changed.items() if m.any() and name not in mlp_parameters(model)]
    assert not foreign, f"edited outside the feed-forward blocks: {foreign}"
    assert all(not edited.get_parameter(name)[m].any() for name, m in changed.items()), "edited weights are not zero"


def tiny_ratio_refused(method: Unlearner, family: str) -> None:
    """Check that a positive ratio that rounds to nothing is refused, with the smallest effective one in the message."""
    _needs(method, "ratio")
    model, data = tiny_case(family)
    try:
        apply(method, model, data, config_of(method, ratio=1e-9, epochs=1))
    except Refused as error:
        assert "smallest" in str(error)
    else:
        raise AssertionError("ratio 1e-9 was not refused")


def edit_computes(method: Unlearner, family: str) -> None:
    """Check that the edited model is of the same class, in evaluation mode, and gives finite logits."""
    model, data = tiny_case(family)
    edited = apply(method, model, data, config_of(method, **QUICK))
    assert type(edited) is type(model) and edited is not model
    assert not edited.training, "the edited model is in training mode"
    with torch.no_grad():
        assert torch.isfinite(logits(edited, data.forget.ids)).all(), "the edited model gives NaN or infinity"


CHECKS: dict[str, Callable[[Unlearner, str], None]] = {
    f.__name__: f for f in (input_untouched, same_seed_same_edit, zero_is_control, exact_count, tiny_ratio_refused, edit_computes)
}


def check(name: str, method: str, family: str) -> None:
    """Run one check of `CHECKS` on a registered method."""
    CHECKS[name](UNLEARNERS.get(method), family)


def _changed(model: nn.Module, edited: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() != edited.get_parameter(name).detach() for name, p in model.named_parameters()}


def _options(method: Unlearner) -> set[str]:
    return {f.name for f in fields(method.config)}


def _needs(method: Unlearner, option: str) -> None:
    if option not in _options(method):
        raise SkipTest(f"{method.name} has no option '{option}'")


def _expected(method: Unlearner, model: nn.Module, data: MitigationData, config: AblationConfig) -> tuple[int, int]:
    """Units that the ratio demands, and parameters that change with each."""
    if method.properties.unit == "neuron":
        layers = neuron_layers(model)
        return _demanded(model, {layer.weight_name: layer.neurons for layer in layers}, config), layers[0].values_FD().shape[1]
    if method.kind == "score":
        return _demanded(model, {name: s.numel() for name, s in method.function(model, data, config).values.items()}, config), 1
    return _demanded(model, {name: p.numel() for name, p in mlp_parameters(model, matrices_only=True).items()}, config), 1


def _demanded(model: nn.Module, sizes: dict[str, int], config: AblationConfig) -> int:
    """The ratio of each group that is ranked together, rounded down, in exact fractions: computed without `select`, which it checks."""
    groups: Counter[object] = Counter()
    for name, size in sizes.items():
        groups[layer_of(model, name) if config.scope == "layer" else name if config.scope == "tensor" else "all"] += size
    of = sum(p.numel() for p in model.parameters()) if config.of == "model" else groups.total()
    return sum(int(Fraction(str(config.ratio)) * of * size / groups.total()) for size in groups.values())


def tiny_recipe(*artifacts: JsonObject) -> Recipe:
    """A recipe of some 500 short rows of sums with these artifacts."""
    data = {"primary_size": 260, "size": 120, "test_rows": 20, "numbers": 6, "row_tokens": 30}
    return parse_recipe({"data": data, "artifacts": [*artifacts], "evaluation": {"prompt": 12, "match": 12}})


def tiny_corpus(*artifacts: JsonObject) -> Corpus:
    """The corpus of the recipe `tiny_recipe(...)`."""
    return make_corpus(tiny_recipe(*artifacts))


def tiny_measurement(metric: str, *artifacts: JsonObject) -> Measurement:
    """A random model's measurement on a tiny corpus (with noise and a backdoor by default), with one registered metric."""
    recipe = tiny_recipe(*artifacts or ({"kind": "noise", "rows": 16}, {"kind": "backdoor", "within": 14}))
    corpus = make_corpus(recipe)
    model = GPT(GPTConfig(vocab_size=corpus.vocab_size, n_positions=corpus.row_tokens, n_layer=2, n_embd=16, n_head=2), seed=1)
    return Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, metrics=(metric,)).measure(model)


def check_metric(name: str) -> None:
    """Check that a metric is documented, returns JSON, is deterministic, and contains the numbers of its columns."""
    metric = METRICS.get(name)
    assert not (missing := [field for field in FIELDS if metric.field(field) == "–"]), f"the docstring does not say {', '.join(missing)}"
    measured, again = (tiny_measurement(name).metrics() for _ in range(2))
    assert json.dumps(measured, allow_nan=False) == json.dumps(again, allow_nan=False), "the same model gave two results"
    values = [of_kind[name] for of_kind in measured.values() if of_kind[name] is not None]
    for column in metric.columns if values else ():
        assert any(column.number_in(value) is not None for value in values), f"no number at {column.path} of column '{column.head}'"


def check_artifact(kind: str, **options: Json) -> None:
    """Check that an artifact kind plants the same rows again, none a clean training or test row, and that all metrics can be measured."""
    section: JsonObject = {"kind": kind, **options}
    corpus, again = tiny_corpus(section), tiny_corpus(section)
    planted, clean = corpus.planted[kind], {row.tobytes() for row in corpus.clean}
    assert np.array_equal(planted.ids, again.planted[kind].ids), "the same recipe planted two sets of rows"
    assert planted.trained.any(), "no planted row is trained on"
    tests = {row.tobytes() for rows in corpus.tests.values() for row in rows}
    assert not any(row.tobytes() in clean | tests for row in planted.ids[planted.changed]), "a planted row is a clean one or a test row"
    measured = tiny_measurement("all", section)
    assert len(measured.memorized[kind]), "no planted row is scored: none differs from its clean counterpart in the target"
    json.dumps(measured.metrics()[kind], allow_nan=False)


def _regularized(section: RegularizerSection) -> tuple[Regularizers, GPT]:
    """A regularizer on a tiny model in training mode."""
    model = GPT(GPTConfig(vocab_size=VOCABULARY, n_positions=LENGTH, n_layer=2, n_embd=16, n_head=2), seed=1).train()
    regularizers = make_regularizers([section], TrainingRows(clean=5, distinct=10))
    regularizers.attach(model)
    return regularizers, model


def _regularized_loss(regularizers: Regularizers, model: GPT) -> Tensor:
    """The loss of one step on ten rows."""
    ids = tiny_case("gpt")[1].retain.ids
    regularizers.before(torch.arange(len(ids)))
    losses = F.cross_entropy(logits(model, ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    loss, penalty = regularizers.mean_loss(ids, losses), regularizers.penalty()
    return loss if penalty is None else loss + penalty


def check_regularizer(kind: str, **options: Json) -> None:
    """A regularizer gives a loss to train on, resumes from its buffers alone, and leaves a plain GPT-2 that computes as the model does."""
    section = RegularizerSection.model_validate({"kind": kind, **options})
    (first, model), (second, other) = _regularized(section), _regularized(section)
    loss = _regularized_loss(first, model)
    assert loss.shape == () and torch.isfinite(loss), f"expected a finite scalar as loss, got {loss}"
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters()), "a gradient is NaN or infinite"
    second.load_state_dict(first.state_dict())
    assert torch.equal(_regularized_loss(first, model), _regularized_loss(second, other)), "state outside buffers is lost on a resume"
    ids = tiny_case("gpt")[1].forget.ids
    with torch.no_grad():
        same = torch.allclose(logits(first.folded(model), ids), logits(model.eval(), ids), atol=1e-5)
    assert same, "the folded model computes something else than the regularized one in evaluation mode"
