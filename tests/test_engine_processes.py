"""Two processes train the same model as one: same global batch, same data order."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import torch
from helpers import QUICKSTART, SMALLER, python

from tinymem.data.build import make_corpus
from tinymem.recipe import load_recipe
from tinymem.training import parallel
from tinymem.training.loop import train
from tinymem.training.state import load_state
from tinymem.training.step import own_rows

CASE = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import torch
    torch.set_num_threads(1)
    from pathlib import Path
    from tinymem.data.build import make_corpus
    from tinymem.recipe import load_recipe
    from tinymem.training.loop import train
    recipe = load_recipe(sys.argv[1], sys.argv[3:])
    train(recipe, make_corpus(recipe), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_shares_of_a_batch(count: int, processes: int) -> None:
    batch = torch.arange(100, 100 + count)
    shares = [own_rows(batch, process, processes) for process in range(processes)]
    assert len({len(rows) for rows, _ in shares}) == 1
    counted = torch.cat([rows if counts is None else rows[counts] for rows, counts in shares])
    assert torch.equal(counted, batch)


def test_gradients_become_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW hides a wrong factor, so here it is shown without: this process and another, whose gradients are known."""
    mine, theirs = [[torch.randn(shape) for shape in ((3, 4), (5,), ())] for _ in range(2)]
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in mine]
    for parameter, gradient in zip(parameters, mine, strict=True):
        parameter.grad = gradient.clone()
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda flat: flat.add_(torch.cat([gradient.flatten() for gradient in theirs])))
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    parallel.average_gradients([*parameters, torch.nn.Parameter(torch.zeros(2))])  # the last has none
    for parameter, one, other in zip(parameters, mine, theirs, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, (one + other) / 2)


@pytest.mark.parametrize(
    ("regularizers", "tolerance"),
    [
        ("[{kind: goldfish, width: 3}, {kind: spectral-norm}, {kind: mem-sinks}]", 1e-5),
        # The last batch's odd row counts twice in the window, and rounding can move a row over the threshold.
        ("[{kind: loss-truncation, window: 70, drop: 0.2}]", 1e-2),
    ],
    ids=["tokens", "rows"],
)
def test_two_processes_are_one(regularizers: str, tolerance: float, tmp_path: Path) -> None:
    script = tmp_path / "case.py"
    script.write_text(textwrap.dedent(CASE))
    overrides = [
        *SMALLER,
        "training.epochs=1",
        "training.schedule=constant",
        "training.learning_rate=1e-3",
        f"training.regularizers={regularizers}",
    ]
    recipe = load_recipe(QUICKSTART, overrides)
    train(recipe, make_corpus(recipe), tmp_path / "1")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    both = python(*launcher, script, QUICKSTART, tmp_path / "2", *overrides)
    assert both.code == 0, both.err
    one, two = ([json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in "12")
    assert [p["train_loss"] for p in two[1:]] == pytest.approx([p["train_loss"] for p in one[1:]], rel=tolerance)
    states = [load_state(tmp_path / n / "state") for n in "12"]
    assert states[0] is not None and states[1] is not None
    for name, weight in states[0].model.items():
        if not name.endswith("c_attn.bias"):  # that of the keys has no gradient but rounding, which AdamW blows up
            assert torch.allclose(weight, states[1].model[name], atol=10 * tolerance), name
