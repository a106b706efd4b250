"""What a fetched repository says of itself, against what is there: a manifest or a card that lies is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from tinymem.errors import UserError, one_line
from tinymem.hub.listing import MANIFEST, OTHERS, RESULTS
from tinymem.hub.published import Manifest, Results, card_text, has_results, read_published
from tinymem.models.metadata import read_metadata, verify_weights
from tinymem.models.weights import METADATA, weight_files
from tinymem.runtime.files import file_sha256

LARGEST_CARD = 2**20


def check_claims(folder: Path, name: str, hashes: Mapping[str, str]) -> None:
    """Compare `tinymem.json`, `manifest.json`, `results.json` and the card of a folder with its files. A stranger's folder has none.

    Args:
        folder: what was fetched.
        name: of the repository, for messages.
        hashes: SHA-256 of files, by their names, that need not be read again.

    Raises:
        UserError: one of them says what is not so.
    """
    metadata = read_metadata(folder)
    verify_weights(folder, metadata, hashes)
    if not (folder / METADATA).is_file():
        return
    if (folder / MANIFEST).is_file():
        _check_manifest(folder, name, hashes)
    if has_results(folder):
        weights = {path.name: hashes.get(path.name) or file_sha256(path) for path in weight_files(folder)}
        corpora = {metadata.corpus_sha256, metadata.sample_sha256 or metadata.corpus_sha256}
        _check_results(folder, name, weights, corpora)


def _check_manifest(folder: Path, name: str, hashes: Mapping[str, str]) -> None:
    files = read_published(folder, MANIFEST, Manifest).files
    for file, sha256 in files.items():
        path = folder / file
        if file in OTHERS or file.endswith(".safetensors"):
            actual = (hashes.get(file) or file_sha256(path)) if path.name == file and path.is_file() else "nothing"
            if actual != sha256:
                raise UserError(f"expected {file} of {name} with SHA-256 {sha256[:12]} as its manifest says, got {actual[:12]}; it lies")
    unknown = [path.name for path in folder.iterdir() if path.name not in (*files, MANIFEST) and path.suffix == ".safetensors"]
    if unknown:
        raise UserError(f"expected the manifest of {name} to have all of its weights, got none for {unknown[0]}; it lies")


def _check_results(folder: Path, name: str, weights: Mapping[str, str], corpora: Collection[str | None]) -> None:
    results = read_published(folder, RESULTS, Results)
    if results.weights_sha256 != weights or results.corpus_sha256 not in corpora:
        raise UserError(f"expected {RESULTS} of {name} to be of its own weights and corpus, got those of others; it lies")
    for kind, counted in results.memorized.items():
        if counted.count > counted.rows:
            raise UserError(
                f"expected at most {counted.rows:,} memorized {one_line(kind)[:40]} rows in {name}, got {counted.count:,}; it lies"
            )
    if text := card_text(folder):
        shown, written = _metrics_of_card(text, name), results.metrics()
        if shown != written:
            differs = next((one for one in shown if one not in written), None) or "fewer numbers"
            raise UserError(f"expected the card of {name} to show the numbers of its {RESULTS}, got {one_line(str(differs))[:80]}; it lies")


def _metrics_of_card(text: str, name: str) -> list[object]:
    """The metrics in a card's `model-index`."""
    head = text[:LARGEST_CARD].split("---\n", 2)
    try:
        values = yaml.safe_load(head[1]) if len(head) == 3 and not head[0] else {}
        return [metric for model in values["model-index"] for result in model["results"] for metric in result["metrics"]]
    except (yaml.YAMLError, KeyError, TypeError, RecursionError):
        raise UserError(f"expected a model-index in the card of {name}, as it has a {RESULTS}; the card is damaged") from None
