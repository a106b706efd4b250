"""The numbers of a checkpoint for its card: those stored beside its weights, or measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue, ValidationError

from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError
from tinymem.hub.published import Counted, Results, hashes_of_weights
from tinymem.models.metadata import Metadata
from tinymem.models.weights import METADATA
from tinymem.runs.evaluate import evaluate_checkpoint
from tinymem.training.checkpoints import corpus_sha256_of


def results_of(folder: Path, metadata: Metadata, measure: bool, corpus: Path | None) -> Results:
    """The measured numbers of a checkpoint whose weights have the hashes of its `tinymem.json`.

    Args:
        folder: of the checkpoint.
        metadata: its `tinymem.json`.
        measure: whether to measure anew, though numbers are stored.
        corpus: the corpus for that, or its text.

    Raises:
        UserError: no numbers stored and nothing to measure on, or stored ones that are damaged.
    """
    if not measure and (stored := stored_results(folder, metadata)):
        return stored
    if metadata.recipe is None:
        if measure and stored_results(folder, metadata):
            raise UserError(
                f"expected no --remeasure of {folder}, since TinyMem did not train the model and has no corpus of it; leave it out"
            )
        raise UserError(
            f"expected a model that TinyMem trained, or an edit with its numbers, in {folder}, got neither, so that a card would have no "
            "numbers; put it on the Hub with `hf upload`"
        )
    found = evaluate_checkpoint(folder, files=RowFiles(corpus=corpus))
    accuracy = found.accuracy if found.accuracy_ceiling is not None else None
    made = _made(folder, metadata, "Measured when it was published", {**found.memorized}, accuracy, found.perplexity)
    return made.model_copy(update={"corpus_sha256": corpus_sha256_of(folder, metadata, corpus)})


def stored_results(folder: Path, metadata: Metadata) -> Results | None:
    """The numbers that are stored with a checkpoint's weights and their hashes; None where there are none.

    Raises:
        UserError: they are damaged.
    """
    if metadata.weights_sha256 and metadata.mitigation:
        return _made(folder, metadata, "Measured after the edit", *_after_edit(metadata.mitigation))
    last = (metadata.metrics.model_extra or {}) if metadata.weights_sha256 and metadata.metrics is not None else {}
    if last.get("memorized") is None:
        return None
    accuracy = last.get("accuracy") if last.get("accuracy_ceiling") is not None else None
    return _made(folder, metadata, "Measured at the end of training", last["memorized"], accuracy, last.get("perplexity"))


def _after_edit(rows: list[dict[str, JsonValue]]) -> tuple[JsonValue, JsonValue, JsonValue]:
    memorized: dict[str, JsonValue] = {
        str(row.get("artifact")): {"count": row.get("memorized_count_after"), "rows": row.get("rows_scored")} for row in rows
    }
    after, metric = rows[0].get("performance_after"), rows[0].get("performance_metric")
    return memorized, after if metric == "accuracy" else None, after if metric == "perplexity" else None


def _made(folder: Path, metadata: Metadata, measured: str, memorized: object, accuracy: object, perplexity: object) -> Results:
    if not isinstance(memorized, Mapping):
        raise UserError(f"expected counts of memorized rows in {folder / METADATA}, got something else; give --remeasure")
    try:
        counts = {kind: Counted(count=share["count"], rows=share["rows"]) for kind, share in memorized.items()}
        values = {"measured": measured, "memorized": counts, "accuracy": accuracy, "perplexity": perplexity}
        return Results.model_validate({"weights_sha256": hashes_of_weights(folder), "corpus_sha256": metadata.corpus_sha256, **values})
    except (ValidationError, KeyError, TypeError):
        raise UserError(f"expected counts of memorized rows in {folder / METADATA}, got something else; give --remeasure") from None
