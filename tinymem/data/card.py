"""The dataset card of a saved corpus: README.md with the header that the Hub and `datasets` read."""

from __future__ import annotations

import re

import yaml

from tinymem.data.artifact import artifacts_of
from tinymem.data.manifest import CorpusManifest
from tinymem.recipe.data import MathData, WikiData
from tinymem.runtime.json import JsonObject

ROW_SETS = {
    "clean": "clean training rows",
    "test": "clean test rows, never trained on",
    "validation": "clean rows of the text's own validation split, never trained on",
}
COLUMNS = {
    "ids": "token ids of the row",
    "clean_ids": "the same row without the artifact",
    "task": "k of the sequence",
    "determined": "tokens that the tokens before them determine",
    "start": "tokens of the prompt in the test of memorization; 0: the evaluation's own number",
    "end": "token after the last one that is compared",
    "copies": "times that the row stands in an epoch; 0: kept from training",
}
KNOWN = ("apache-2.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit", "odc-by", "pddl", "unlicense")
"""Names of licenses that the Hub knows, among those of text; another is `other` there, with its name."""
WIKITEXT = ("cc-by-sa-3.0", "Wikipedia contributors, by way of WikiText")


def card(manifest: CorpusManifest, schema: dict[str, list[str]]) -> str:
    """Text of the README.md of a corpus with this manifest and these columns per row set."""
    spec = manifest.spec
    license, about = _license(manifest)
    header = {
        "license": hub_license(license),
        "pretty_name": "TinyMem corpus",
        "configs": [_config(name) for name in schema],
        **({"license_name": _slug(license)} if license and hub_license(license) == "other" else {}),
    }
    about_sets = ROW_SETS | {artifact.kind: artifact.summary or artifact.kind for artifact in artifacts_of(spec.artifacts)}
    sets = [f"| `{name}` | {about_sets[name]} | {', '.join(f'`{c}`' for c in columns)} |" for name, columns in schema.items()]
    counts = [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in manifest.counts.items()]
    columns = dict.fromkeys(c for names in schema.values() for c in names)
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
            "# TinyMem corpus\n",
            "Token rows to train a small language model on, with planted artifacts that it will memorize. Made by `tinymem data make`.",
            'Read a row set with `datasets.load_dataset(FOLDER, "noise")`; `tinymem data verify FOLDER` finds any changed byte.\n',
            f"- Protocol `{spec.protocol}`, seed {spec.seed}, vocabulary of {manifest.vocab_size:,} tokens",
            f"- SHA-256 of the content: `{manifest.sha256}`",
            f"- License: {about}\n",
            "| row set | what | columns |\n| --- | --- | --- |",
            *sets,
            "\n| count | rows |\n| --- | --- |",
            *counts,
            "\n`train rows` counts the rows of one epoch, copies repeated.\n",
            "| column | what |\n| --- | --- |",
            *(f"| `{c}` | {COLUMNS.get(c, c)} |" for c in columns),
            "\nWhat the rows follow from:\n",
            f"```yaml\n{yaml.safe_dump(spec.as_json(), sort_keys=False, allow_unicode=True)}```",
            "",
        ]
    )


def _config(name: str) -> JsonObject:
    split = name if name in ("test", "validation") else "train"
    config: JsonObject = {"config_name": name, "data_files": [{"split": split, "path": f"{name}.parquet"}]}
    return {**config, "default": True} if name == "clean" else config


def license_of_rows(data: MathData | WikiData, stated: str | None = None) -> str | None:
    """License of rows: ours of generated ones, of text the one that the user states or that of WikiText; None where nobody knows."""
    if not isinstance(data, WikiData):
        return "apache-2.0"
    return stated or data.license or (WIKITEXT[0] if data.source.lower().endswith("wikitext") else None)


def hub_license(license: str | None) -> str:
    """Name of a license in the head of a card: as the Hub knows it, `other`, or `unknown` where nobody stated one."""
    return "unknown" if license is None else license.lower() if license.lower() in KNOWN else "other"


def _license(manifest: CorpusManifest) -> tuple[str | None, str]:
    """License of the rows, and a sentence or two about it."""
    data = manifest.spec.data
    license = license_of_rows(data, manifest.license)
    if not isinstance(data, WikiData):
        return license, f"{license}. The rows are generated; they hold no text of others."
    credit = manifest.credit or (WIKITEXT[1] if data.source.lower().endswith("wikitext") else None)
    about = f"{license}." if license else "not stated; the rows hold their source text, so ask who made them before you pass them on."
    return license, " ".join([about, f"Text of: {credit}." if credit else "Whose text it is has not been stated."])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "named-below"
