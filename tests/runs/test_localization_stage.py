"""A recipe's section `localization`: run after training, once, for each model of a matrix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import QUICKSTART, SMALLER, sets, tinymem

from tinymem.errors import UserError
from tinymem.recipe.recipe import load_recipe
from tinymem.results.localization import read_localization
from tinymem.runs.localization_stage import is_localized
from tinymem.runs.pipeline import Run, method_calls

INJ = "localization={benchmark: inj, methods: [act, random-neurons], ratios: [0.1], sequences: {count: 2, tokens: 8}, steps: 2}"


@pytest.mark.training
def test_a_run_is_localized_once_and_more_benchmarks_join_it(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    path, section = tmp_path / tiny_run.path.name, load_recipe(QUICKSTART, [INJ]).localization
    recipe = tiny_run.recipe.model_copy(update={"localization": section})
    from tinymem.runs.localization_stage import localization_stage
    from tinymem.runtime.progress import Progress

    assert recipe.run_id() == tiny_run.recipe.run_id(), "the benchmark decides nothing about the weights"
    assert not is_localized(path, section)
    assert localization_stage(path, section, device="cpu", progress=Progress())
    rows = read_localization(path)
    assert {row.method for row in rows} == {"act", "random-neurons"} and is_localized(path, section)
    assert not localization_stage(path, section, device="cpu", progress=Progress()), "nothing is left"
    other = section.model_copy(update={"ratios": (0.2,)})
    assert not is_localized(path, other) and localization_stage(path, other, device="cpu", progress=Progress())
    assert {row.ratio for row in read_localization(path)} == {0.1, 0.2} and is_localized(path, section)
    assert "INJ: 10 % injected" in tinymem("report", path, "--tables", "inj").out


@pytest.mark.training
def test_a_finished_benchmark_is_asked_again_where_rows_are_gone_or_sequences_are_others(tiny_run: Run, tmp_path: Path) -> None:
    from tinymem.runs.localization_stage import FINISHED, localization_stage
    from tinymem.runtime.progress import Progress

    shutil.copytree(tiny_run.path, tmp_path / "run")
    run, file = tmp_path / "run", tmp_path / "sequences.jsonl"
    file.write_text("[2, 3, 4, 5]\n")
    given = f"localization={{benchmark: inj, methods: [act], ratios: [0.1], sequences: {{file: {file}}}, steps: 1}}"
    section = load_recipe(QUICKSTART, [given]).localization

    def stage() -> bool:
        return localization_stage(run, section, device="cpu", progress=Progress())

    assert stage() and not stage()
    ids = {row.id for row in read_localization(run)}
    file.write_text("[5, 4, 3, 2]\n")
    assert not is_localized(run, section) and stage() and not stage()
    assert len({row.id for row in read_localization(run)} - ids) == 1, "rows of both files are there"
    file.unlink()
    assert is_localized(run, section), "what was found stays found"
    file.write_text("[5, 4, 3, 2]\n")
    shutil.rmtree(run / "localization")
    assert not is_localized(run, section) and stage() and read_localization(run)
    (run / FINISHED).write_text("no JSON")
    assert not is_localized(run, section) and stage() and is_localized(run, section)


def test_a_matrix_localizes_each_of_its_models(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(QUICKSTART.read_text() + "\nmatrix: {seed: [0, 1]}\n")
    said = tinymem("run", tmp_path / "recipe.yaml", *sets([*SMALLER, INJ]), "--runs", tmp_path / "runs", "--dry-run").out
    assert said.count("benchmark inj of localization") == 2


def test_mistakes_are_found_before_training() -> None:
    for override, words in [
        ("localization={benchmark: inj, methods: [durable]}", "score neurons"),
        ("localization={benchmark: inj, methods: [actt]}", "did you mean 'act'"),
        ("localization={benchmark: inj, ratio: 0.1}", "ratio"),
        ("localization={benchmark: inj, ratios: [2]}", "above 0 and at most 1"),
        ("localization={benchmark: del, unit: weight}", "expected unit: neuron of DEL"),
        ("localization={}", "benchmark"),
    ]:
        with pytest.raises(UserError, match=words):
            method_calls(load_recipe(QUICKSTART, [override]))
