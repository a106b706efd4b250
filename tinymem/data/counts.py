"""The counts of a corpus that `tinymem data inspect` gives."""

from __future__ import annotations

from typing import Any

from tinymem.data.corpus import WITHOUT_COUNTERPART, Corpus, Planted, row_blocks


def facts(corpus: Corpus, manifest: dict[str, Any], scored: dict[str, int]) -> dict[str, Any]:
    """Counts of rows; the totals over all artifacts, then each artifact.

    Args:
        corpus: the rows.
        manifest: its manifest.
        scored: per artifact, rows that the test of memorization scores.
    """
    spec, text = corpus.spec, manifest.get("text") or {}
    artifacts = {kind: _of_artifact(kind, planted, scored[kind]) for kind, planted in corpus.planted.items()}

    def total(key: str) -> int:
        return sum(int(counts[key]) for counts in artifacts.values() if counts.get(key) is not None)

    counts = corpus.counts()
    return {
        "protocol": spec["protocol"],
        "seed": spec["seed"],
        "kind": spec["data"]["kind"],
        "train_rows": counts["train_rows"],
        "clean_rows": counts["clean_rows"],
        "test_rows": counts["test_rows"],
        "artifact_rows": total("rows"),
        "artifact_rows_changed": total("rows_changed"),
        "artifact_rows_scored": total("rows_scored"),
        "artifact_test_rows": total("test_rows"),
        "triggered_rows": total("triggered_rows"),
        "tokens": text["train"]["tokens"] if "train" in text else epoch_tokens(corpus),
        "epoch_tokens": epoch_tokens(corpus),
        **({"trigger_ids": manifest["trigger_ids"]} if "trigger_ids" in manifest else {}),
        "artifacts": artifacts,
        "sha256": manifest["sha256"],
    }


def epoch_tokens(corpus: Corpus) -> int:
    """Tokens of one epoch, copies repeated, padding left out."""
    if corpus.is_text:  # rows are full; only the reference's last row of a split is padded
        return corpus.counts()["train_rows"] * corpus.row_tokens
    clean = sum(int((rows != corpus.pad).sum()) for rows in row_blocks(corpus.clean))
    return clean + sum(int(((p.ids != corpus.pad).sum(1) * p.copies).sum()) for p in corpus.planted.values())


def _of_artifact(kind: str, planted: Planted, scored: int) -> dict[str, Any]:
    """`rows`, `rows_changed`: trained ones; `rows_scored`: of all; `triggered_rows`: trained and held out."""
    trained = planted.trained
    changed = (planted.ids != planted.clean).any(1)
    return {
        "rows": int(trained.sum()),
        "rows_changed": None if kind in WITHOUT_COUNTERPART else int((changed & trained).sum()),
        "rows_scored": scored,
        "test_rows": int((~trained).sum()),
        **({"triggered_rows": len(trained)} if kind == "backdoor" else {}),
        "rows_by_copies": {str(copies): rows for copies, rows in planted.classes().items()},
    }
