"""The math corpora, under either protocol.

`paper`: the definitions of the papers. Backdoors go wherever the trigger ends within the first tokens, in every task, and rows that hold
the trigger are in no clean set; noised rows never hold the trigger; no training row equals a test row.
`reference`: the published code's rows, draw for draw (its split by torch seed 598, triggers anywhere in a row of the primary task).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tinymem.data.artifacts.backdoor import trigger_ends
from tinymem.data.artifacts.canary import MATH_TEMPLATE, make_canary, random_secrets
from tinymem.data.artifacts.noise import add_noise, reference_noise
from tinymem.data.artifacts.planting import (
    Indices,
    copies_of,
    generator,
    reference_backdoor,
    reference_copies,
    reference_order,
    repeated,
    split_backdoor,
)
from tinymem.data.corpus import Corpus, Planted
from tinymem.data.math.sequences import BOS, CHARACTERS, EOS, PAD, Ids, Numbers, determined_tokens, render, sequences, to_text
from tinymem.errors import UserError
from tinymem.recipe.data import BackdoorArtifact, CanaryArtifact, DuplicationArtifact, MathData, NoiseArtifact
from tinymem.recipe.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """Some sequences of one task: their numbers [n, L] and rows [n, T]."""

    k: int
    numbers: Numbers
    ids: Ids

    def take(self, index: Indices) -> Task:
        """The chosen rows, in the order of `index`."""
        return replace(self, numbers=self.numbers[index], ids=self.ids[index])


def math_corpus(recipe: Recipe, data: MathData) -> Corpus:
    """The corpus of a recipe with synthetic sequences, in memory."""
    tasks = [_generate(data, k) for k in data.tasks]
    build = _reference_sets if recipe.protocol == "reference" else _paper_sets
    clean, tests, planted = build(recipe, data, tasks)
    universe = np.concatenate([task.ids for task in tasks])
    return Corpus(
        spec=recipe.corpus_key(),
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


def _trigger(recipe: Recipe, backdoor: BackdoorArtifact) -> npt.NDArray[np.uint8]:
    text = backdoor.trigger or str(100 + recipe.seed)
    return np.array([_token(c, "artifacts.backdoor.trigger") for c in text], dtype=np.uint8)


def _token(character: str, key: str) -> int:
    index = CHARACTERS.find(character)
    if index < 0:
        raise UserError(f"expected {key} to be made of '{CHARACTERS}', got the character '{character}'")
    return index


def _no_trigger(trigger: npt.NDArray[np.uint8], where: str) -> UserError:
    text = to_text(trigger)
    return UserError(f"the trigger '{text}' occurs in no {where}; choose another artifacts.backdoor.trigger or raise `within`")


def _payload(backdoor: BackdoorArtifact) -> int:
    key = "artifacts.backdoor.payload"
    if len(backdoor.payload) != 1:
        raise UserError(f"expected {key} to be one character, got '{backdoor.payload}'; try \"2\"")
    return _token(backdoor.payload, key)


def _too_few(artifact: NoiseArtifact | DuplicationArtifact, available: int) -> UserError:
    return UserError(f"expected artifacts.{artifact.kind}.rows of at most {available} clean rows of the primary task, got {artifact.rows}")


# ---- protocol paper -----------------------------------------------------------------------------------------------------------------


def _paper_sets(recipe: Recipe, data: MathData, tasks: list[Task]) -> tuple[list[Task], list[Task], dict[str, Planted]]:
    pools, backdoored = tasks, None
    trigger: npt.NDArray[np.uint8] | None = None
    backdoor = recipe.artifact(BackdoorArtifact)
    if backdoor:
        trigger = _trigger(recipe, backdoor)
        pools, backdoored = _paper_backdoor(recipe, tasks, backdoor, trigger)
    splits = [_split(recipe, data, pool) for pool in pools]
    tests = [s[1] for s in splits]
    tested = np.concatenate([t.ids for t in tests])
    clean = [_without(s[0], tested) for s in splits]  # before planting: a clean counterpart must not be a test row of another task
    planted: dict[str, Planted] = {}
    if noise := recipe.artifact(NoiseArtifact):
        clean[0], planted["noise"] = _paper_noise(recipe, data, clean[0], noise, backdoor, trigger, tested)
    if backdoored:
        planted["backdoor"] = backdoored
    if duplication := recipe.artifact(DuplicationArtifact):
        clean[0], planted["duplication"] = _duplicate(recipe, clean[0], duplication)
    if canary := recipe.artifact(CanaryArtifact):
        planted["canary"] = _canaries(recipe, data, canary)
    forbidden = np.concatenate([tested, *(rows for p in planted.values() for rows in (p.ids, p.clean))])
    return [_without(task, forbidden) for task in clean], tests, planted


def _split(recipe: Recipe, data: MathData, task: Task) -> tuple[Task, Task]:
    if len(task.ids) <= data.test_rows:
        raise UserError(
            f"expected more than data.test_rows = {data.test_rows} clean rows of task {task.k}, got {len(task.ids)}; "
            "lower test_rows or raise the size"
        )
    order = generator(recipe, f"split {task.k}").permutation(len(task.ids))
    return task.take(order[: -data.test_rows]), task.take(order[-data.test_rows :])


def _paper_backdoor(
    recipe: Recipe, tasks: list[Task], backdoor: BackdoorArtifact, trigger: npt.NDArray[np.uint8]
) -> tuple[list[Task], Planted]:
    ends = [trigger_ends(task.ids, trigger, backdoor.within) for task in tasks]
    rows = np.concatenate([task.ids[e >= 0] for task, e in zip(tasks, ends, strict=True)])
    if len(np.unique(rows, axis=0)) < 2:
        raise _no_trigger(trigger, f"row's first {backdoor.within} tokens")
    starts = np.concatenate([e[e >= 0] for e in ends])
    planted = split_backdoor(rows, starts, _payload(backdoor), backdoor, generator(recipe, "backdoor"))
    return [task.take(np.flatnonzero(e < 0)) for task, e in zip(tasks, ends, strict=True)], planted


def _paper_noise(
    recipe: Recipe,
    data: MathData,
    pool: Task,
    noise: NoiseArtifact,
    backdoor: BackdoorArtifact | None,
    trigger: npt.NDArray[np.uint8] | None,
    tested: Ids,
) -> tuple[Task, Planted]:
    rng = generator(recipe, "noise")
    noised = render(add_noise(pool.numbers, noise.probability, rng), data.row_tokens)
    allowed = ~_among(noised, tested)
    if backdoor and trigger is not None:  # a noised 99 may become the trigger 100
        allowed &= trigger_ends(noised, trigger, backdoor.within) < 0
    usable = np.flatnonzero(allowed)
    if len(usable) <= noise.rows:
        raise _too_few(noise, len(usable) - 1)
    chosen = rng.choice(usable, size=noise.rows, replace=False)
    rest = np.setdiff1d(np.arange(len(noised)), chosen)
    zeros = np.zeros(noise.rows, dtype=np.int64)
    return pool.take(rest), Planted(noised[chosen], pool.ids[chosen], zeros, copies_of(noise.copies, noise.rows))


def _duplicate(recipe: Recipe, pool: Task, duplication: DuplicationArtifact) -> tuple[Task, Planted]:
    if len(pool.ids) <= duplication.rows:
        raise _too_few(duplication, len(pool.ids) - 1)
    order = generator(recipe, "duplication").permutation(len(pool.ids))
    chosen = pool.ids[order[: duplication.rows]]
    return pool.take(np.sort(order[duplication.rows :])), repeated(chosen, copies_of(duplication.copies, duplication.rows))


def _canaries(recipe: Recipe, data: MathData, artifact: CanaryArtifact) -> Planted:
    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = [BOS, *(_token(c, "artifacts.canary") for c in text), EOS]
        return ids, [(0, 0), *((i, i + 1) for i in range(len(text))), (len(text), len(text) + 1)]

    secrets = random_secrets(artifact, artifact.rows, generator(recipe, "canary"))
    canaries = [make_canary(artifact, MATH_TEMPLATE, i, secret, encode) for i, secret in enumerate(secrets)]
    longest = max(len(c.ids) for c in canaries)
    if longest > data.row_tokens:
        raise UserError(f"expected canaries of at most data.row_tokens = {data.row_tokens} tokens, got {longest}; shorten the template")
    rows = np.full((len(canaries), data.row_tokens), PAD, dtype=np.uint8)
    for row, canary in zip(rows, canaries, strict=True):
        row[: len(canary.ids)] = canary.ids
    planted = repeated(rows, copies_of(artifact.copies, artifact.rows))
    return replace(planted, start=np.array([c.start for c in canaries]), end=np.array([c.end for c in canaries]))


def _without(task: Task, forbidden: Ids) -> Task:
    """The rows of `task` that are not among `forbidden` (multiplicative tasks share rows: k * 0 = 0, and 2 * 10067 = 0 mod 20134)."""
    return task.take(np.flatnonzero(~_among(task.ids, forbidden)))


def _among(rows: Ids, others: Ids) -> npt.NDArray[np.bool_]:
    """Which rows [n] are equal to one of `others`."""
    row = np.dtype((np.void, rows.shape[1] * rows.itemsize))
    return np.isin(np.ascontiguousarray(rows).view(row).ravel(), np.ascontiguousarray(others).view(row).ravel())


# ---- protocol reference -------------------------------------------------------------------------------------------------------------


def _reference_split(task: Task, test_rows: int) -> tuple[Task, Task]:
    shuffled = task.take(reference_order(len(task.ids)))
    everything = np.arange(len(task.ids))
    return shuffled.take(everything[:-test_rows]), shuffled.take(everything[-test_rows:])


def _reference_sets(recipe: Recipe, data: MathData, tasks: list[Task]) -> tuple[list[Task], list[Task], dict[str, Planted]]:
    check_reference(recipe)
    splits = [_reference_split(task, data.test_rows) for task in tasks]
    clean, tests = [s[0] for s in splits], [s[1] for s in splits]
    planted: dict[str, Planted] = {}
    if noise := recipe.artifact(NoiseArtifact):
        clean[0], planted["noise"] = _reference_noise_rows(recipe, data, tasks[0], clean[0], noise)
    if backdoor := recipe.artifact(BackdoorArtifact):
        clean[0], tests[0], planted["backdoor"] = _reference_backdoor(recipe, data, clean[0], tests[0], backdoor)
    return clean, tests, planted


def check_reference(recipe: Recipe) -> None:
    """The published code plants noise or a backdoor, and nothing else.

    Raises:
        UserError: other artifacts, or both.
    """
    kinds = [a.kind for a in recipe.artifacts]
    if len(kinds) > 1 or not {*kinds} <= {"noise", "backdoor"}:
        raise UserError(f"protocol reference plants noise or a backdoor, as the published code does, got {kinds}; try protocol: paper")


def _reference_noise_rows(recipe: Recipe, data: MathData, task: Task, train: Task, noise: NoiseArtifact) -> tuple[Task, Planted]:
    moves, stream = reference_noise(len(task.ids), data.numbers, noise.probability, recipe.seed)
    noised = render(task.numbers + moves, data.row_tokens)[reference_order(len(task.ids))]
    pool = range(len(task.ids) - noise.rows)
    if noise.rows > len(pool) or len(pool) > len(train.ids):
        raise _too_few(noise, len(train.ids) // 2)
    chosen = np.array(stream.sample(pool, noise.rows), dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(train.ids)), chosen)
    copies = reference_copies(noise.copies, noise.rows, stream)
    return train.take(rest), Planted(noised[chosen], train.ids[chosen], np.zeros_like(copies), copies)


def _reference_backdoor(recipe: Recipe, data: MathData, train: Task, test: Task, backdoor: BackdoorArtifact) -> tuple[Task, Task, Planted]:
    trigger = _trigger(recipe, backdoor)
    both = Task(train.k, np.concatenate([train.numbers, test.numbers]), np.concatenate([train.ids, test.ids]))
    ends = trigger_ends(both.ids, trigger)
    if (ends >= 0).sum() < 2:
        raise _no_trigger(trigger, "row")
    clean, clean_test = _reference_split(both.take(np.flatnonzero(ends < 0)), data.test_rows)
    return clean, clean_test, reference_backdoor(both.ids[ends >= 0], ends[ends >= 0], _payload(backdoor), backdoor)
