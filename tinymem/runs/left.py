"""What of a run is left to do, and why: one answer for `run`, for its `--dry-run` and `--list`, and for `tinymem runs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymem.errors import UserError
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import row_id
from tinymem.models.metadata import Metadata, read_metadata
from tinymem.models.weights import METADATA
from tinymem.recipe.recipe import Recipe
from tinymem.results.curve import read_curve
from tinymem.results.nested import RequestColumn
from tinymem.results.row import Identity, MeasuredRow
from tinymem.results.store import read_run, read_runs
from tinymem.runs.localization_stage import is_localized
from tinymem.runtime.files import content_id
from tinymem.runtime.words import counted
from tinymem.training.checkpoints import RunCheckpoints

NEW, FAILED, OLDER = "not measured yet", "failed before", "measured by older code"
FEW = 6
"""Names that a line can hold."""


@dataclass(frozen=True)
class PlannedCall:
    """A method of a run's recipe.

    Attributes:
        row: the id of its result rows.
        call: the method with its options.
        why: why it has to run; empty where its result is there, with all measurements that the recipe requests.
    """

    row: str
    call: MethodCall
    why: str


@dataclass(frozen=True)
class Left:
    """What is left of a run.

    Attributes:
        recipe: of the run.
        corpus: the corpus is to be made.
        share: of training that is left, from 0 to 1.
        planned: the recipe's methods, those that are done too.
        localize: the recipe's benchmark of localization is to be run.
        page: the page is to be written.
    """

    recipe: Recipe
    corpus: bool
    share: float
    planned: Sequence[PlannedCall]
    localize: bool
    page: bool

    @property
    def pending(self) -> list[PlannedCall]:
        """The methods that have to run."""
        return [one for one in self.planned if one.why]

    @property
    def why(self) -> str:
        """Why methods that were measured before have to run again; empty if none has to."""
        return why_again(self.planned)

    def steps(self) -> Iterator[str]:
        """Yield what is left to do, in words; nothing where all is done."""
        if self.corpus:
            yield "make the corpus"
        if self.share:
            yield f"train {counted(round(self.share * self.recipe.training.epochs), 'epoch')}"
        if self.pending:
            yield f"run {counted(len(self.pending), 'method')}"
        if self.recipe.localization and self.localize:
            yield f"benchmark {self.recipe.localization.benchmark} of localization, whose time is not estimated"
        if self.page:
            yield "report"


def left_of(run: Path, recipe: Recipe, calls: Sequence[MethodCall], device: str, *, whole: bool = True) -> Left:
    """What is left of a run, or of its training alone; nothing is loaded, checked or written.

    Args:
        run: its folder, which need not exist.
        recipe: of the run.
        calls: the recipe's methods.
        device: as `resolve_device` gives it.
        whole: what follows training counts too.
    """
    trained, curve = RunCheckpoints(run, recipe).complete(), read_curve(run / "training" / "metrics.jsonl")
    share = 0.0 if trained else 1 - (curve[-1].epoch / max(1, recipe.training.epochs) if curve else 0)
    planned = planned_calls(run, recipe, calls, device) if trained else [PlannedCall("", call, NEW) for call in calls]
    localize = whole and not is_localized(run, recipe.localization)
    page = whole and (localize or any(one.why for one in planned) or not (run / "report.html").is_file())
    return Left(recipe, not trained and not (run / "corpus" / "corpus.json").is_file(), share, planned, localize, page)


def planned_calls(run: Path, recipe: Recipe, calls: Sequence[MethodCall], device: str) -> list[PlannedCall]:
    """The methods of a trained run, each with the reason why it has to run, if it has.

    Raises:
        UserError: a damaged file of results.
    """
    key = key_columns(read_metadata(run / "checkpoint"), run, recipe, device)
    wanted = MeasurementRequest.of_recipe(recipe)
    found = [(row_id(key, call, recipe.mitigation.forget_selection), call) for call in calls]
    stored = {row: read_run(run / "results" / f"{row}.json") for row, _ in found}
    others = [] if all(stored.values()) else [row for _, rows in read_runs(run) for row in rows]
    like = [row for row in others if _selection(row) == (recipe.mitigation.forget, recipe.mitigation.forget_fraction, recipe.protocol)]
    return [PlannedCall(row, call, _why(stored[row], wanted) if stored[row] else _why_other(like, call, device)) for row, call in found]


def why_again(planned: Sequence[PlannedCall]) -> str:
    """Why methods that were measured before have to run again, the names by reason; empty if none has to."""
    reasons = dict.fromkeys(one.why for one in planned if one.why not in ("", NEW))
    named = [(list(dict.fromkeys(one.call.name for one in planned if one.why == why)), why) for why in reasons]
    return "; ".join(f"{', '.join(names) if len(names) <= FEW else counted(len(names), 'method')} ({why})" for names, why in named)


def key_columns(metadata: Metadata, run: Path, recipe: Recipe, device: str) -> Identity:
    """The columns of a trained run that decide the ids of its result rows.

    Raises:
        UserError: a checkpoint without the hash of its corpus.
    """
    if metadata.corpus_sha256 is None:
        raise UserError(f"expected corpus_sha256 in {run / 'checkpoint' / METADATA}, found none; remove {run / 'checkpoint'} and run again")
    return Identity(
        model_id=content_id(recipe.model_key()),
        corpus_sha256=metadata.corpus_sha256,
        seed=recipe.seed,
        protocol=recipe.protocol,
        device_type=device,
    )


def _why(rows: Sequence[MeasuredRow] | None, wanted: MeasurementRequest) -> str:
    """Why a method whose result is there has to run again; empty if it has not."""
    if any(row.status == "failed" for row in rows or ()):
        return FAILED
    lacking = [row.request for row in rows or () if not wanted.answered_by(row.request)]
    return f"measured without {_lacking(lacking[0], wanted.as_column())}" if lacking else ""


def _lacking(stored: RequestColumn | None, wanted: RequestColumn) -> str:
    """What of the wanted measurements stored rows lack, in words."""
    held = stored or MeasurementRequest().as_column()
    parts = [f"metric {name}" for name in wanted["metrics"] if name not in held["metrics"]]
    parts += [f"k={k}" for k in wanted["ks"] if k not in held["ks"]]
    return ", ".join([*parts, *(["robustness as asked"] if wanted["robustness"] not in (None, held["robustness"]) else [])])


def _selection(row: MeasuredRow) -> tuple[str | None, float | None, str | None]:
    return row.forget, row.forget_fraction, row.protocol


def _why_other(rows: Sequence[MeasuredRow], call: MethodCall, device: str) -> str:
    """Why a method has no result: older code, or another device, has measured it, or nothing has."""
    same = [row for row in rows if (row.method, row.config) == (call.name, call.config.as_json())]
    if any(row.device_type == device for row in same):
        return OLDER
    return f"measured on {same[0].device_type}, not on {device}" if same else NEW
