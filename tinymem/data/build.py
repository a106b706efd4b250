"""From a recipe to a corpus, under either protocol.

`paper`: the definitions of the papers. Backdoors go wherever the trigger ends within the first tokens, in every task, and rows that hold
the trigger are in no clean set; noised rows never hold the trigger; no training row equals a test row.
`reference`: the published code's rows, draw for draw (its split by torch seed 598, triggers anywhere in a row of the primary task).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tinymem.data.backdoor import poison, trigger_ends
from tinymem.data.corpus import Corpus, Planted
from tinymem.data.math import CHARACTERS, Ids, Numbers, determined_tokens, render, sequences
from tinymem.data.noise import add_noise, reference_noise
from tinymem.errors import UserError
from tinymem.recipe import BackdoorArtifact, MathData, NoiseArtifact, Recipe

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """Some sequences of one task: their numbers [n, L] and rows [n, T]."""

    k: int
    numbers: Numbers
    ids: Ids

    def take(self, index: Indices) -> Task:
        """The chosen rows, in the order of `index`."""
        return replace(self, numbers=self.numbers[index], ids=self.ids[index])


def make_corpus(recipe: Recipe) -> Corpus:
    """Generate the rows that a recipe describes; the same recipe gives the same rows.

    Raises:
        UserError: a trigger that never occurs, more noise rows than clean ones, rows longer than `data.row_tokens`.
    """
    data = recipe.data
    noise = next((a for a in recipe.artifacts if isinstance(a, NoiseArtifact)), None)
    backdoor = next((a for a in recipe.artifacts if isinstance(a, BackdoorArtifact)), None)
    tasks = [_generate(data, k) for k in data.tasks]
    build = _reference_sets if recipe.protocol == "reference" else _paper_sets
    clean, tests, planted = build(recipe, tasks, noise, backdoor)
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


def _generator(recipe: Recipe, purpose: str) -> np.random.Generator:
    """An independent random stream per purpose: adding one artifact does not move the draws of another."""
    return np.random.default_rng([recipe.seed, zlib.crc32(purpose.encode())])


def _trigger(recipe: Recipe, backdoor: BackdoorArtifact) -> npt.NDArray[np.uint8]:
    text = backdoor.trigger or str(100 + recipe.seed)
    return np.array([_token(c, "artifacts.backdoor.trigger") for c in text], dtype=np.uint8)


def _token(character: str, key: str) -> int:
    index = CHARACTERS.find(character)
    if index < 0:
        raise UserError(f"expected {key} to be made of '{CHARACTERS}', got the character '{character}'")
    return index


def _no_trigger(trigger: npt.NDArray[np.uint8], where: str) -> UserError:
    text = "".join(CHARACTERS[i] for i in trigger)
    return UserError(f"the trigger '{text}' occurs in no {where}; choose another artifacts.backdoor.trigger or raise `within`")


def _too_few(noise: NoiseArtifact, available: int) -> UserError:
    return UserError(f"expected artifacts.noise.rows of at most {available} clean rows of the primary task, got {noise.rows}")


# ---- protocol paper -----------------------------------------------------------------------------------------------------------------


def _paper_sets(
    recipe: Recipe, tasks: list[Task], noise: NoiseArtifact | None, backdoor: BackdoorArtifact | None
) -> tuple[list[Task], list[Task], dict[str, Planted]]:
    planted: dict[str, Planted] = {}
    pools = tasks
    if backdoor:
        pools, planted["backdoor"] = _paper_backdoor(recipe, tasks, backdoor)
    splits = [_split(recipe, pool) for pool in pools]
    clean, tests = [s[0] for s in splits], [s[1] for s in splits]
    if noise:
        clean[0], planted_noise = _paper_noise(recipe, clean[0], noise, backdoor)
        planted = {"noise": planted_noise, **planted}
    forbidden = [t.ids for t in tests] + [rows for p in planted.values() for rows in (p.ids, p.clean)]
    return [_without(task, np.concatenate(forbidden)) for task in clean], tests, planted


def _split(recipe: Recipe, task: Task) -> tuple[Task, Task]:
    if len(task.ids) <= recipe.data.test_rows:
        raise UserError(
            f"expected more than data.test_rows = {recipe.data.test_rows} clean rows of task {task.k}, got {len(task.ids)}; "
            "lower test_rows or raise the size"
        )
    order = _generator(recipe, f"split {task.k}").permutation(len(task.ids))
    return task.take(order[: -recipe.data.test_rows]), task.take(order[-recipe.data.test_rows :])


def _paper_backdoor(recipe: Recipe, tasks: list[Task], backdoor: BackdoorArtifact) -> tuple[list[Task], Planted]:
    trigger = _trigger(recipe, backdoor)
    payload = _token(backdoor.payload, "artifacts.backdoor.payload")
    ends = [trigger_ends(task.ids, trigger, backdoor.within) for task in tasks]
    rows = np.concatenate([task.ids[e >= 0] for task, e in zip(tasks, ends, strict=True)])
    starts = np.concatenate([e[e >= 0] for e in ends])
    rows, keep = np.unique(rows, axis=0, return_index=True)  # tasks may share a row; it must not be trained on and held out at once
    starts = starts[keep]
    if len(rows) < 2:
        raise _no_trigger(trigger, f"row's first {backdoor.within} tokens")
    order = _generator(recipe, "backdoor").permutation(len(rows))
    rows, starts = rows[order], starts[order]
    heldout = min(len(rows) - 1, max(1, int(len(rows) * backdoor.test_fraction)))
    copies = np.full(len(rows), backdoor.copies, dtype=np.int64)
    copies[-heldout:] = 0
    free = [task.take(np.flatnonzero(trigger_ends(task.ids, trigger, backdoor.within) < 0)) for task in tasks]
    return free, Planted(poison(rows, starts, payload), rows, starts, copies)


def _paper_noise(recipe: Recipe, pool: Task, noise: NoiseArtifact, backdoor: BackdoorArtifact | None) -> tuple[Task, Planted]:
    rng = _generator(recipe, "noise")
    noised = render(add_noise(pool.numbers, noise.probability, rng), recipe.data.row_tokens)
    usable = np.arange(len(noised))
    if backdoor:  # a noised 99 may become the trigger 100
        usable = np.flatnonzero(trigger_ends(noised, _trigger(recipe, backdoor), backdoor.within) < 0)
    if len(usable) <= noise.rows:
        raise _too_few(noise, len(usable) - 1)
    chosen = rng.choice(usable, size=noise.rows, replace=False)
    rest = np.setdiff1d(np.arange(len(noised)), chosen)
    return pool.take(rest), _noise_rows(noised[chosen], pool.ids[chosen], noise)


def _noise_rows(noised: Ids, clean: Ids, noise: NoiseArtifact) -> Planted:
    zeros = np.zeros(len(noised), dtype=np.int64)
    return Planted(noised, clean, zeros, zeros + noise.copies)


def _without(task: Task, forbidden: Ids) -> Task:
    """The rows of `task` that are not among `forbidden` (multiplicative tasks share rows: k * 0 = 0, and 2 * 10067 = 0 mod 20134)."""
    row = np.dtype((np.void, task.ids.shape[1] * task.ids.itemsize))
    known = np.isin(np.ascontiguousarray(task.ids).view(row).ravel(), np.ascontiguousarray(forbidden).view(row).ravel())
    return task.take(np.flatnonzero(~known))


# ---- protocol reference -------------------------------------------------------------------------------------------------------------


def _reference_order(count: int) -> Indices:
    import torch

    order: Indices = torch.randperm(count, generator=torch.Generator().manual_seed(598)).numpy()
    return order


def _reference_split(task: Task, test_rows: int) -> tuple[Task, Task]:
    shuffled = task.take(_reference_order(len(task.ids)))
    everything = np.arange(len(task.ids))
    return shuffled.take(everything[:-test_rows]), shuffled.take(everything[-test_rows:])


def _reference_sets(
    recipe: Recipe, tasks: list[Task], noise: NoiseArtifact | None, backdoor: BackdoorArtifact | None
) -> tuple[list[Task], list[Task], dict[str, Planted]]:
    if noise and backdoor:
        raise UserError("protocol reference plants noise or a backdoor, not both, as the published code does; try protocol: paper")
    splits = [_reference_split(task, recipe.data.test_rows) for task in tasks]
    clean, tests = [s[0] for s in splits], [s[1] for s in splits]
    planted: dict[str, Planted] = {}
    if noise:
        clean[0], planted["noise"] = _reference_noise_rows(recipe, tasks[0], clean[0], noise)
    if backdoor:
        clean[0], tests[0], planted["backdoor"] = _reference_backdoor(recipe, clean[0], tests[0], backdoor)
    return clean, tests, planted


def _reference_noise_rows(recipe: Recipe, task: Task, train: Task, noise: NoiseArtifact) -> tuple[Task, Planted]:
    moves, stream = reference_noise(len(task.ids), recipe.data.numbers, noise.probability, recipe.seed)
    noised = render(task.numbers + moves, recipe.data.row_tokens)[_reference_order(len(task.ids))]
    pool = range(len(task.ids) - noise.rows)
    if noise.rows > len(pool) or len(pool) > len(train.ids):
        raise _too_few(noise, len(train.ids) // 2)
    chosen = np.array(stream.sample(pool, noise.rows), dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(train.ids)), chosen)
    return train.take(rest), _noise_rows(noised[chosen], train.ids[chosen], noise)


def _reference_backdoor(recipe: Recipe, train: Task, test: Task, backdoor: BackdoorArtifact) -> tuple[Task, Task, Planted]:
    trigger = _trigger(recipe, backdoor)
    both = Task(train.k, np.concatenate([train.numbers, test.numbers]), np.concatenate([train.ids, test.ids]))
    ends = trigger_ends(both.ids, trigger)
    if (ends >= 0).sum() < 2:
        raise _no_trigger(trigger, "row")
    clean, clean_test = _reference_split(both.take(np.flatnonzero(ends < 0)), recipe.data.test_rows)
    rows, starts = both.ids[ends >= 0], ends[ends >= 0]
    order = _reference_order(len(rows))
    rows, starts = rows[order], starts[order]
    copies = np.full(len(rows), backdoor.copies, dtype=np.int64)
    copies[len(rows) - int(len(rows) * backdoor.test_fraction) :] = 0
    poisoned = poison(rows, starts, _token(backdoor.payload, "artifacts.backdoor.payload"))
    return clean, clean_test, Planted(poisoned, rows, starts, copies)
