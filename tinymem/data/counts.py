"""The counts of a corpus that `tinymem data inspect` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinymem.data.artifact import Artifact, artifact_of
from tinymem.data.corpus import Corpus, row_blocks
from tinymem.data.manifest import CorpusManifest
from tinymem.data.planted import Planted
from tinymem.runtime.json import JsonObject


@dataclass(frozen=True)
class ArtifactCounts:
    """Numbers of rows of one artifact.

    Attributes:
        rows: trained ones.
        changed: of these, those that differ from their clean counterparts; None where they have none.
        scored: that the test of memorization scores, of all.
        holdout: held out of training.
        further: counts of the kind's own.
        by_copies: trained rows by duplication class.
    """

    rows: int
    changed: int | None
    scored: int
    holdout: int
    further: dict[str, int]
    by_copies: dict[int, int]

    def as_json(self) -> JsonObject:
        """The counts under the keys that `inspect` shows."""
        counts: JsonObject = {"rows": self.rows, "rows_changed": self.changed, "rows_scored": self.scored, "test_rows": self.holdout}
        return {**counts, **self.further, "rows_by_copies": {str(copies): rows for copies, rows in self.by_copies.items()}}


def corpus_counts(corpus: Corpus, manifest: CorpusManifest, scored: Mapping[str, int]) -> JsonObject:
    """Counts of rows; the totals over all artifacts, then each artifact.

    Args:
        corpus: the rows.
        manifest: its manifest.
        scored: per artifact, rows that the test of memorization scores.
    """
    spec, counts = corpus.spec, corpus.counts()
    artifacts = {kind: _of_artifact(artifact_of(corpus, kind), planted, scored[kind]) for kind, planted in corpus.planted.items()}
    found = artifacts.values()
    return {
        "protocol": spec.protocol,
        "seed": spec.seed,
        "kind": spec.data.kind,
        "train_rows": counts["train_rows"],
        "clean_rows": counts["clean_rows"],
        "test_rows": counts["test_rows"],
        "artifact_rows": sum(a.rows for a in found),
        "artifact_rows_changed": sum(a.changed or 0 for a in found),
        "artifact_rows_scored": sum(a.scored for a in found),
        "artifact_test_rows": sum(a.holdout for a in found),
        "triggered_rows": sum(a.further.get("triggered_rows", 0) for a in found),
        "tokens": spec.text["train"].tokens if spec.text else epoch_tokens(corpus),
        "epoch_tokens": epoch_tokens(corpus),
        **({"trigger_ids": manifest.notes["trigger_ids"]} if "trigger_ids" in manifest.notes else {}),
        "artifacts": {kind: a.as_json() for kind, a in artifacts.items()},
        "sha256": manifest.sha256,
    }


def epoch_tokens(corpus: Corpus) -> int:
    """Tokens of one epoch, copies repeated, padding left out."""
    if corpus.is_text:  # rows are full; only the reference's last row of a split is padded
        return corpus.counts()["train_rows"] * corpus.row_tokens
    clean = sum(int((rows != corpus.pad).sum()) for rows in row_blocks(corpus.clean))
    return clean + sum(int(((p.ids != corpus.pad).sum(1) * p.copies).sum()) for p in corpus.planted.values())


def _of_artifact(artifact: Artifact, planted: Planted, scored: int) -> ArtifactCounts:
    return ArtifactCounts(
        rows=int(planted.trained.sum()),
        changed=int((planted.changed & planted.trained).sum()) if artifact.has_clean_counterpart else None,
        scored=scored,
        holdout=int((~planted.trained).sum()),
        further=artifact.counts(planted),
        by_copies=planted.classes(),
    )
