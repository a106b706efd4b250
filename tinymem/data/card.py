"""The dataset card of a saved corpus: README.md with the header that the Hub and `datasets` read."""

from __future__ import annotations

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
LICENCES = {
    "math": ("apache-2.0", "The rows are generated; they hold no text of others."),
    "hub": ("cc-by-sa-3.0", "WikiText is text of Wikipedia contributors under CC BY-SA 3.0; so are these rows."),
    "local": (
        "other",
        "The rows hold their source text, under its licence (text of Wikipedia: CC BY-SA 3.0, by Wikipedia contributors).",
    ),
}


def card(manifest: CorpusManifest, schema: dict[str, list[str]]) -> str:
    """Text of the README.md of a corpus with this manifest and these columns per row set."""
    spec = manifest.spec
    licence, about = LICENCES[origin_of_rows(spec.data)]
    header = {
        "license": licence,
        "pretty_name": "TinyMem corpus",
        "configs": [_config(name) for name in schema],
        **({"license_name": "as-the-source"} if licence == "other" else {}),
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
            f"- Licence: {about}\n",
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


def origin_of_rows(data: MathData | WikiData) -> str:
    """Where rows come from, a key of `LICENCES`: generated (math), the text of WikiText (hub), or another text (local)."""
    if not isinstance(data, WikiData):
        return "math"
    return "hub" if data.source.lower().endswith("wikitext") else "local"
