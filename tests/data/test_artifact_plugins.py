"""An artifact kind of a user's own, in one file: corpus, training, mitigation with membership, and report follow without another line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_text import cache, folder, tokenizer
from data_text import recipe as text_recipe
from helpers import QUICKSTART, TINY, tinymem

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.nonmembers import populations
from tinymem.mitigation.subject import subject_of_corpus
from tinymem.recipe.kinds import ARTIFACTS
from tinymem.recipe.recipe import Recipe, load_recipe, parse_recipe
from tinymem.registry import load_plugin
from tinymem.results.run_folder import load_run
from tinymem.runs.pipeline import run

pytestmark = [pytest.mark.processes, pytest.mark.training]

__all__ = ["cache", "folder", "tokenizer"]

BACKWARDS = '''"""Rows whose second half is written backwards; every fourth is held out."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tinymem.data.artifact import Artifact, artifact
from tinymem.data.planted import Planted
from tinymem.data.planting import COPIES, Copies, copies_of


@artifact
class Backwards(Artifact):
    """Rows whose second half is written backwards."""

    summary: ClassVar[str] = "rows with their second half backwards"

    kind: Literal["backwards"] = "backwards"
    rows: int = Field(8, ge=4, description="clean training rows that one with a reversed half replaces")
    copies: Copies = Field(1, description=COPIES)

    def plant(self, pool):
        clean = pool.draw(self.rows, pool.generator(self.kind), self.kind)
        ids, half = clean.copy(), clean.shape[1] // 2
        ids[:, half:] = clean[:, half:][:, ::-1]
        copies = copies_of(self.copies, self.rows)
        copies[::4] = 0
        return Planted(ids, clean, np.zeros_like(copies), copies)
'''
FIELDS = '    kind: Literal["broken"] = "broken"\n'
PLANT = """    def plant(self, pool):
        r, z = pool.draw(3, pool.generator("x"), "broken"), np.zeros(3, dtype=int)
        return Planted({})
"""
HEAD = """from typing import Literal
import numpy as np
from tinymem.data.artifact import Artifact, artifact
from tinymem.data.planted import Planted

"""


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    with ARTIFACTS.temporary():
        yield


@pytest.fixture
def backwards(tmp_path: Path) -> Path:
    path = tmp_path / "backwards.py"
    path.write_text(BACKWARDS)
    return path


def with_it(*overrides: str) -> Recipe:
    artifacts = "artifacts=[{kind: backwards, rows: 12, copies: 40}, {kind: noise, rows: 8}]"
    return load_recipe(QUICKSTART, [*[o for o in TINY if not o.startswith("artifacts")], artifacts, "mitigation.methods=[]", *overrides])


@pytest.mark.thorough
def test_a_run(backwards: Path, tmp_path: Path) -> None:
    load_plugin(backwards)
    recipe = with_it("mitigation.methods=[{act: {ratio: 0.05}}]", "evaluation.metrics=[memorized, membership, clean-continuation]")
    made = run(recipe, runs=tmp_path / "runs", device="cpu")
    corpus = made.corpus()
    planted = corpus.planted["backwards"]
    assert list(corpus.planted) == ["noise", "backwards"], "built-in kinds come first"
    assert planted.trained.sum() == 9 and (planted.copies[~planted.trained] == 0).all() and len(planted.ids) == 12
    assert (planted.ids[:, 15:] == planted.clean[:, 15:][:, ::-1]).all()
    assert not {row.tobytes() for row in planted.clean} & {row.tobytes() for row in corpus.clean}
    card = (made.path / "corpus" / "README.md").read_text()
    assert "| `backwards` | rows with their second half backwards |" in card
    rows = [row for row in map(json.loads, (made.path / "results.jsonl").read_text().splitlines()) if row["artifact"] == "backwards"]
    assert [row["status"] for row in rows] == ["ok"] and '"non-members": 3' in json.dumps(rows)
    assert "backwards" in (made.path / "report.html").read_text()
    assert {r["artifact"] for r in load_run(made.path).rows} == {"noise", "backwards"}
    shown = tinymem("data", "inspect", made.path / "corpus", "--json")
    assert json.loads(shown.out)["artifacts"]["backwards"] | {"rows_scored": 12} == {
        "rows": 9, "rows_changed": 9, "rows_scored": 12, "test_rows": 3, "rows_by_copies": {"40": 9},
    }  # fmt: skip


def test_what_is_held_out_is_no_forget_row(backwards: Path, tiny_run: object) -> None:
    load_plugin(backwards)
    recipe = with_it("mitigation.forget=backwards")
    corpus = make_corpus(recipe)
    members, others = populations(corpus, "backwards")
    assert len(members.ids) == 9 and len(others.ids) == 3
    model = tiny_run.model()
    subject = subject_of_corpus(model, corpus, recipe)
    split, probe = subject.splits["backwards"], subject.evaluator.probes["backwards"]
    assert not (split.forget & ~probe.trained).any() and not (split.holdout & probe.trained).any()
    assert subject.evaluator.originals["backwards"].clean_counterparts is not None


def test_text(backwards: Path, folder: Path, tokenizer: Path) -> None:
    load_plugin(backwards)
    recipe = text_recipe(folder, tokenizer, {"kind": "backwards", "rows": 8}, {"kind": "backdoor", "payload": "b", "within": 15})
    corpus = make_corpus(recipe, workers=1)
    assert list(corpus.planted) == ["backdoor", "backwards"] and len(corpus.planted["backwards"].ids) == 8
    assert len(Evaluator.of_corpus(corpus, recipe.evaluation, "paper").probes["backwards"])


def test_its_options_are_checked(backwards: Path) -> None:
    with pytest.raises(UserError, match="unknown artifact 'backwards'; known: backdoor, canary, duplication, noise"):
        with_it()
    load_plugin(backwards)
    for override, message in (
        ("artifacts.backwards.row=3", "unknown key 'artifacts.0.backwards.row'; did you mean 'rows'?"),
        ("artifacts.backwards.rows=3", "'artifacts.0.backwards.rows': input should be greater than or equal to 4, got 3"),
        ("artifacts.backwards.copies=0", "expected copies of at least 1"),
        ("artifacts.backwards.kind=backward", "unknown artifact 'backward'; did you mean 'backwards'?"),
        ("mitigation.forget=backward", "to be `all` or a kind of artifact, got 'backward'; did you mean 'backwards'?"),
        ("protocol=reference", "protocol reference plants noise or a backdoor"),
    ):
        with pytest.raises(UserError) as error:
            make_corpus(with_it(override))
        assert message in str(error.value) and "\n" not in str(error.value)
    recipe = with_it()
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "expected an artifact for math, got 'broken', which has none"),
        ("    def plant(self, pool): return 1 / 0\n", "the artifact 'broken' failed: ZeroDivisionError: division by zero (broken.py, line"),
        ("    def plant(self, pool):\n        r = pool.draw(3, pool.generator('x'), 'broken')\n        z = np.zeros(2, dtype=int)\n"
         "        return Planted(r, r[:, :9], z, z + 1)\n", "to plant rows of 30 tokens each with start and copies"),
        ("    def plant(self, pool): pass\n", "expected the artifact 'broken' to return Planted from `plant`, got NoneType; return one"),
        (PLANT.format("r * 1.0, r, z, z"), "expected whole numbers as ids of the artifact 'broken', got float64; try .astype(int)"),
        (PLANT.format("r, r, z, z - 2"), "expected copies of at least 0 in the artifact 'broken', got -2"),
        (PLANT.format("r, r, z + 31, z"), "expected start from 0 to 30 in the artifact 'broken', got 31"),
    ],
)  # fmt: skip
def test_kinds_that_fail(body: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(f"{HEAD}@artifact\nclass Broken(Artifact):\n{FIELDS}{body}")
    load_plugin(path)
    with pytest.raises(UserError) as error:
        make_corpus(with_it("artifacts=[{kind: broken}]"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_kind_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "nameless.py").write_text(f"{HEAD}@artifact\nclass Nameless(Artifact):\n    kind: str\n")
    with pytest.raises(UserError, match="expected `kind: Literal"):
        load_plugin(tmp_path / "nameless.py")


def test_built_in_kinds_by_themselves() -> None:
    """Every built-in kind plants rows with all defaults but their number, has members, and says what its rows are."""
    for kind in ARTIFACTS.names():
        assert ARTIFACTS.get(kind).summary, kind
    corpus = make_corpus(load_recipe(QUICKSTART, TINY))
    assert isinstance(corpus, Corpus) and all(np.any(p.trained) for p in corpus.planted.values())
