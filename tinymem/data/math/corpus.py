"""The math corpora, under either protocol.

`paper`: the definitions of the papers. Backdoors go wherever the trigger ends within the first tokens, in every task, and rows that hold
the trigger are in no clean set; noised rows never hold the trigger; no training row equals a test row.
`reference`: the published code's rows, draw for draw (its split by torch seed 598, triggers anywhere in a row of the primary task).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tinymem.data.artifact import artifacts_of, planted_by, reference_artifact
from tinymem.data.corpus import Corpus
from tinymem.data.math.pool import AllTasks, MathPool, ReferenceSplit, Task, without
from tinymem.data.math.sequences import determined_tokens, render, sequences
from tinymem.data.planted import Claim, Planted
from tinymem.data.planting import generator, reference_order
from tinymem.errors import UserError
from tinymem.recipe.data import MathData
from tinymem.recipe.recipe import Recipe

Sets = tuple[list[Task], list[Task], dict[str, Planted]]


def math_corpus(recipe: Recipe, data: MathData) -> Corpus:
    """The corpus of a recipe with synthetic sequences, in memory."""
    tasks = [_generate(data, k) for k in data.tasks]
    build = _reference_sets if recipe.protocol == "reference" else _paper_sets
    clean, tests, planted = build(recipe, data, tasks)
    universe = np.concatenate([task.ids for task in tasks])
    return Corpus(
        spec=recipe.corpus_spec(),
        clean=np.concatenate([task.ids for task in clean]),
        clean_task=np.concatenate([np.full(len(task.ids), task.k, dtype=np.int64) for task in clean]),
        tests={str(task.k): task.ids for task in tests},
        determined={str(task.k): determined_tokens(universe, task.ids) for task in tests},
        planted=planted,
    )


def _generate(data: MathData, k: int) -> Task:
    count = data.primary_size if k == data.primary else data.size
    numbers = sequences(data.family, k, np.arange(count, dtype=np.int64), data.numbers, data.modulus)
    return Task(k, numbers, render(numbers, data.row_tokens))


# ---- protocol paper -----------------------------------------------------------------------------------------------------------------


def _paper_sets(recipe: Recipe, data: MathData, tasks: list[Task]) -> Sets:
    """Clean training rows and test rows of each task, and the planted rows of each artifact."""
    artifacts = artifacts_of(recipe.artifacts)
    claims = {a.kind: claim for a in artifacts if (claim := a.claim_math(AllTasks(recipe.seed, tasks)))}
    splits = [_split(recipe, data, _unclaimed(task, claims)) for task in tasks]
    tests = [s[1] for s in splits]
    tested = np.concatenate([t.ids for t in tests])
    clean = [without(s[0], tested) for s in splits]  # before planting: a clean counterpart must not be a test row of another task
    pool = MathPool(recipe.seed, data, clean[0], tested, [claim.holds for claim in claims.values()])
    planted: dict[str, Planted] = {}
    for a in artifacts:
        plant = partial(a.plant_math, pool)
        planted[a.kind] = claims[a.kind].planted if a.kind in claims else planted_by(a, plant, data.row_tokens)
    forbidden = np.concatenate([tested, *(rows for p in planted.values() for rows in (p.ids, p.clean))])
    return [without(task, forbidden) for task in (pool.task, *clean[1:])], tests, planted


def _unclaimed(task: Task, claims: dict[str, Claim]) -> Task:
    for claim in claims.values():
        task = task.take(np.flatnonzero(~claim.holds(task.ids)))
    return task


def _split(recipe: Recipe, data: MathData, task: Task) -> tuple[Task, Task]:
    if len(task.ids) <= data.test_rows:
        raise UserError(
            f"expected more than data.test_rows = {data.test_rows} clean rows of task {task.k}, got {len(task.ids)}; "
            "lower test_rows or raise the size"
        )
    order = generator(recipe.seed, f"split {task.k}").permutation(len(task.ids))
    return task.take(order[: -data.test_rows]), task.take(order[-data.test_rows :])


# ---- protocol reference -------------------------------------------------------------------------------------------------------------


def _reference_split(task: Task, test_rows: int) -> tuple[Task, Task]:
    shuffled = task.take(reference_order(len(task.ids)))
    everything = np.arange(len(task.ids))
    return shuffled.take(everything[:-test_rows]), shuffled.take(everything[-test_rows:])


def _reference_sets(recipe: Recipe, data: MathData, tasks: list[Task]) -> Sets:
    artifact = reference_artifact(recipe.artifacts)
    splits = [_reference_split(task, data.test_rows) for task in tasks]
    clean, tests = [s[0] for s in splits], [s[1] for s in splits]
    if artifact is None:
        return clean, tests, {}
    split = ReferenceSplit(recipe.seed, data, tasks[0], clean[0], tests[0])
    clean[0], tests[0], planted = artifact.reference_math(split)
    return clean, tests, {artifact.kind: planted}
