"""`tinymem localize`: the INJ and DEL benchmarks on one checkpoint, one file of rows a scorer and ratio, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tinymem.data.math.sequences import Ids
from tinymem.data.own_rows import RowFiles, rows_digest
from tinymem.data.rows import Rows, concatenate
from tinymem.data.rows_file import read_rows
from tinymem.data.tokenizer_folder import ModelTokens, has_tokenizer, read_tokenizer
from tinymem.errors import UserError, described, no_exit
from tinymem.evaluation.evaluator import Evaluator
from tinymem.localization.benchmark import Benchmark, random_sequences
from tinymem.localization.calls import calls_at, parsed_calls
from tinymem.localization.confusion import is_of
from tinymem.localization.deletion import Decode, suffix_accuracy
from tinymem.localization.ratios import PARTS, least_size, ratios_of
from tinymem.mitigation.files_subject import identity_of, own_rows
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.run import row_id
from tinymem.models.adapters import positions_of, refuse_longer_rows, vocabulary_of
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.fingerprint import Fingerprint, fingerprint, first_change
from tinymem.models.weights import DTypeName
from tinymem.recipe.localization import LocalizationOptions
from tinymem.recipe.recipe import Recipe
from tinymem.results.localization import read_rows_of, rows_file, write_localization
from tinymem.results.row import LocalizationRow
from tinymem.runs.subjects import own_corpus
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import require_writable
from tinymem.runtime.json import Json
from tinymem.runtime.progress import Bar, Progress
from tinymem.runtime.words import counted
from tinymem.training.checkpoints import recipe_of

if TYPE_CHECKING:
    from tinymem.results.row import Identity

TOKENS = 32
"""Of random sequences where the recipe says nothing."""
FILE_LENGTH = 4


@dataclass(frozen=True)
class _Work:
    call: MethodCall
    ratio: float
    id: str
    trial: bool = False


def localize(
    checkpoint: Path,
    recipe: LocalizationOptions,
    *,
    out: Path,
    files: RowFiles | None = None,
    device: str = "auto",
    dtype: DTypeName = "auto",
    verify: bool = True,
    progress: Progress | None = None,
) -> list[LocalizationRow]:
    """Run a benchmark on a checkpoint; what its folder already has is not made again.

    Args:
        checkpoint: the folder, as `tinymem mitigate` takes it.
        recipe: the benchmark, its scorers and options.
        out: folder of the rows (`localization/<id>.json`).
        files: DEL: memorized rows (`forget`) and ordinary ones (`retain`); default: the checkpoint's corpus. INJ uses `retain` for NeMo.
        device: `auto`, `cpu` or `cuda`.
        dtype: as of `load_checkpoint`.
        verify: as of `load_checkpoint`.
        progress: where progress is shown.

    Raises:
        UserError: bad input, a model without the rows that the benchmark needs, or, after all others have run, scorers that failed.
    """
    device, files, progress = resolve_device(device), files or RowFiles(), progress or Progress()
    calls = parsed_calls(recipe)
    _check_files(recipe, files)
    loaded = load_checkpoint(checkpoint, device=device, verify=verify, dtype=dtype)
    size = least_size(loaded.model, recipe.unit)
    ratios = ratios_of(recipe, size, {ratio for _, ratio in calls if ratio is not None})
    identity = replace(identity_of(loaded, checkpoint, device), seed=recipe.seed)
    compares = any(_compares(call) for call, _ in calls)
    if recipe.benchmark == "inj":
        benchmark = _injected(loaded, checkpoint, recipe, files, identity, progress, compares=compares)
    else:
        benchmark = _deleted(loaded, checkpoint, recipe, files, identity)
    require_writable(out)
    if gave_way := [f"{ratio:g}" for ratio in recipe.wanted_ratios if ratio not in ratios]:
        runs = ", ".join(f"{ratio:g}" for ratio in ratios)
        progress.say(f"ratios {runs}: the default {' and '.join(gave_way)} of {size} is less than one {PARTS[recipe.unit]}")
    runner = _Runner(benchmark, out, progress, fingerprint(benchmark.model))
    rows = [row for ratio in ratios for row in runner.rows(calls_at(calls, ratio), ratio)]
    if runner.failures:
        kept = f"; what others found is kept: tinymem report {out}" if rows else ""
        raise UserError("; ".join(dict.fromkeys(runner.failures)) + kept)
    return rows


class _ScorerFailed(Exception):
    """A scorer ended in an error, which the text names, and left the model as it was."""


@dataclass(frozen=True)
class _Runner:
    benchmark: Benchmark
    out: Path
    progress: Progress
    fingerprint: Fingerprint
    failures: list[str] = field(default_factory=list)
    """Why scorers failed; the others run all the same."""

    def rows(self, calls: Sequence[MethodCall], ratio: float) -> list[LocalizationRow]:
        """Rows of all scorers at a ratio, in INJ of every combination of options.

        Those of the development rows, on which DEL chooses among options, come before a scorer's own.
        """
        recipe, groups = self.benchmark.recipe, dict[object, list[MethodCall]]()
        for number, call in enumerate(calls):
            chosen = recipe.benchmark == "del" and call.name in recipe.tuned
            groups.setdefault(call.name if chosen else number, []).append(call)
        found = []
        for group in groups.values():
            try:
                found += self._of_group(group, ratio)
            except _ScorerFailed as error:
                self.failures.append(str(error))
        return found

    def _of_group(self, group: Sequence[MethodCall], ratio: float) -> list[LocalizationRow]:
        """Rows of one scorer: of several combinations of options those of all trials, and of the one that erases most."""
        trials = [self.do(_Work(call, ratio, self._id(call, ratio, trial=True), trial=True)) for call in group] if len(group) > 1 else []
        call = min(zip(group, trials, strict=True), key=lambda pair: _erasing(pair[1]))[0] if trials else group[0]
        return [row for trial in trials for row in trial] + self.do(_Work(call, ratio, self._id(call, ratio)))

    def do(self, item: _Work) -> list[LocalizationRow]:
        """Rows of a scorer at a ratio: those that are stored, or made and stored now."""
        path = rows_file(self.out, item.id)
        if path.is_file() and self._are_current(stored := read_rows_of(path)):
            return stored
        name = f"{self.benchmark.recipe.benchmark} {item.call.name} at {item.ratio:g}"
        with self.progress.stage(name, len(self.benchmark.rows)) as bar:
            made = self._made(item, bar)
        if changed := first_change(self.fingerprint, self.benchmark.model):
            end = _why(item.call.name, made) if isinstance(made, Exception) else "its rows are not kept"
            raise UserError(f"expected {item.call.name} to leave the model as it is, got {changed} changed; {end}")
        if isinstance(made, Exception):
            raise _ScorerFailed(_why(item.call.name, made)) from made
        write_localization(self.out, item.id, made)
        return read_rows_of(path)

    def _are_current(self, rows: Sequence[LocalizationRow]) -> bool:
        """Whether stored rows have the categories that the rows have now, which decide no id."""
        return all(row.confusion is None or is_of(row.confusion, self.benchmark.categories) for row in rows)

    def _made(self, item: _Work, bar: Bar) -> list[LocalizationRow] | Exception:
        """Rows of a scorer, or the error that it ended in."""
        make = self.benchmark.develop if item.trial else self.benchmark.score
        try:
            with no_exit(item.call.name):
                return make(item.call, item.ratio, item.id, bar)
        except Exception as error:
            return error

    def _id(self, call: MethodCall, ratio: float, *, trial: bool = False) -> str:
        """Id of a scorer's rows at a ratio: as of a mitigation, whose rows to forget are here the rows and options of the benchmark."""
        benchmark = self.benchmark
        rows = [benchmark.rows, benchmark.text, *([benchmark.retain] if _compares(call) else [])]
        decides: list[Json] = [
            benchmark.recipe.key(),
            benchmark.recipe.sequences.seed,
            ratio,
            rows_digest(*rows),
            *(["development"] if trial else []),
        ]
        return row_id(benchmark.identity, call, decides)


def _why(name: str, error: Exception) -> str:
    return f"{name}: {error}" if isinstance(error, UserError) else f"{name} failed: {described(error)}"


def _erasing(rows: Sequence[LocalizationRow]) -> tuple[float, float]:
    """What is least where most of the rows themselves, and least of the others, is erased."""
    by = {row.score_name: row.score or 0.0 for row in rows}
    return by["self_accuracy"], -by["other_accuracy"]


def _check_files(recipe: LocalizationOptions, files: RowFiles) -> None:
    """Refuse what would be ignored."""
    if recipe.sequences.column and not recipe.sequences.file:
        raise UserError(f"expected a file for the column '{recipe.sequences.column}', got none; give --sequences")
    if files.column and not files.given:
        raise UserError(f"expected rows with a column '{files.column}', got none; give --forget and --retain")


def _compares(call: MethodCall) -> bool:
    """Whether a scorer compares with ordinary rows."""
    return call.method.properties.dual_objective


def _injected(
    loaded: Checkpoint,
    checkpoint: Path,
    recipe: LocalizationOptions,
    files: RowFiles,
    identity: Identity,
    progress: Progress,
    *,
    compares: bool,
) -> Benchmark:
    device = next(loaded.model.parameters()).device
    nothing = Rows.of(torch.zeros(0, 2, dtype=torch.int64, device=device))
    retain = _ordinary(loaded, checkpoint, files, recipe).to(device) if compares else nothing
    sequences = _sequences(loaded, checkpoint, recipe, progress).to(device)
    return Benchmark(loaded.model, recipe, sequences, retain, nothing, identity)


def _deleted(loaded: Checkpoint, checkpoint: Path, recipe: LocalizationOptions, files: RowFiles, identity: Identity) -> Benchmark:
    device = next(loaded.model.parameters()).device
    rows, categories, ordinary = _memorized(loaded, checkpoint, recipe, files)
    text, retain = _drawn(ordinary, recipe.text, recipe.seed), _drawn(ordinary, recipe.retain, recipe.seed + 1)
    given = rows.to(device), retain.to(device), text.to(device)
    return Benchmark(loaded.model, recipe, *given, identity, _decoder(checkpoint), categories)


def _sequences(loaded: Checkpoint, checkpoint: Path, recipe: LocalizationOptions, progress: Progress) -> Rows:
    """The sequences to inject, of the chosen length, or of the default one as far as the model has positions."""
    wanted, tokens = recipe.sequences, ModelTokens(checkpoint)
    if wanted.file is None:
        special = {*tokens.eos, *tokens.pad, *tokens.bos}
        length = _length(loaded, wanted.tokens, wanted.tokens or TOKENS, progress)
        return random_sequences(vocabulary_of(loaded.model), wanted.count, length, leave_out=special, seed=wanted.seed)
    file = read_rows(wanted.file, tokens, column=wanted.column)
    file = replace(file, rows=[row for row in file.rows if len(row.ids) >= 2][: wanted.count])
    if not file.rows:
        raise UserError(f"expected sequences of at least 2 tokens in {wanted.file}, got none; name another file")
    file.refuse_unknown_ids(vocabulary_of(loaded.model))
    ids = [row.ids for row in file.rows]
    most = min(max(map(len, ids)), FILE_LENGTH * (wanted.tokens or TOKENS))
    longest = _length(loaded, wanted.tokens, most, progress)
    ids = [row[:longest] for row in ids]
    lengths = torch.tensor([len(row) for row in ids])
    return Rows.ragged(ids, torch.ones_like(lengths), lengths, int(lengths.max()))


def _length(loaded: Checkpoint, chosen: int | None, tokens: int, progress: Progress) -> int:
    """The longest sequence's tokens: those, or where no length was chosen at most the model's positions."""
    positions = positions_of(loaded.model) or tokens
    if chosen is not None or tokens <= positions:
        refuse_longer_rows(loaded.model, tokens, "lower sequences.tokens")
        return tokens
    progress.say(f"sequences of at most {positions} tokens, which are all of the model's positions, and not of {tokens}")
    return positions


def _ordinary(loaded: Checkpoint, checkpoint: Path, files: RowFiles, wanted: LocalizationOptions) -> Rows:
    """Ordinary rows from a file, or clean test rows of the checkpoint's corpus; none where there is neither."""
    if files.retain:
        return _drawn(own_rows(loaded, checkpoint, files, recipe_of(checkpoint, loaded.metadata)).retain, wanted.retain, wanted.seed)
    if recipe_of(checkpoint, loaded.metadata) is None:
        return Rows.of(torch.zeros(0, 2, dtype=torch.int64))
    recipe, corpus = own_corpus(loaded, checkpoint, files.corpus)
    return _drawn(_test_rows(corpus.tests, *_window(recipe)), wanted.retain, wanted.seed)


def _memorized(loaded: Checkpoint, checkpoint: Path, recipe: LocalizationOptions, files: RowFiles) -> tuple[Rows, tuple[str, ...], Rows]:
    """Rows that the model memorized, the category of each, and ordinary ones."""
    device = next(loaded.model.parameters()).device
    if files.forget or files.retain:
        own = own_rows(loaded, checkpoint, files, recipe_of(checkpoint, loaded.metadata))
        rows, ordinary, categories = own.forget, own.retain, own.categories
    else:
        training, corpus = own_corpus(loaded, checkpoint, files.corpus)
        evaluator = Evaluator.of_corpus(corpus, training.evaluation, training.protocol)
        rows = concatenate([probe.rows for probe in evaluator.probes.values()]) if evaluator.probes else Rows.of(corpus.clean[:0])
        categories = tuple(name for kind, probe in evaluator.probes.items() for name in _copies(kind, probe.copies.tolist()))
        ordinary = _test_rows(corpus.tests, *_window(training))
    accuracy = suffix_accuracy(loaded.model, rows.to(device))
    kept = (accuracy > recipe.accuracy).nonzero().flatten().cpu()
    if len(kept) < 2 + recipe.development:
        raise UserError(
            f"expected at least {2 + recipe.development} memorized rows (suffix accuracy above {recipe.accuracy:g}), got {len(kept)} "
            f"of {len(rows)}; name rows that the model knows with --forget, or lower `accuracy`"
        )
    kept = kept[_places(len(kept), recipe.rows, recipe.seed)]
    return rows.take(kept.to(rows.ids.device)), tuple(categories[n] or "row" for n in kept.tolist()), ordinary


def _copies(kind: str, copies: Sequence[int]) -> list[str]:
    """Categories of planted rows: the artifact, and how often the row stood in an epoch."""
    return [f"{kind}, {counted(number, 'copy', 'copies')}" if number else f"{kind}, held out" for number in copies]


def _test_rows(tests: dict[str, Ids], prompt: int, end: int) -> Rows:
    return concatenate([Rows.of(ids, min(prompt, ids.shape[1] - 1), min(end, ids.shape[1])) for ids in tests.values()])


def _window(recipe: Recipe) -> tuple[int, int]:
    return recipe.evaluation.prompt, recipe.evaluation.prompt + recipe.evaluation.match


def _drawn(rows: Rows, count: int, seed: int) -> Rows:
    return rows.take(_places(len(rows), count, seed).to(rows.ids.device))


def _places(total: int, count: int, seed: int) -> torch.Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def _decoder(checkpoint: Path) -> Decode | None:
    """Token ids to text; None without rapidfuzz, which compares texts, or without a tokenizer."""
    if find_spec("rapidfuzz") is None or not has_tokenizer(checkpoint):
        return None
    tokenizer = read_tokenizer(checkpoint)

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
        return text

    return decode
