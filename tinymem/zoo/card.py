"""The card of a shipped checkpoint, as Markdown."""

from __future__ import annotations

from pathlib import Path

from tinymem.runtime.words import counted
from tinymem.zoo.catalogue import Entry, entry_of

TEXT = "Its text is a part of English Wikipedia of 2018 (CC BY-SA 3.0, by its authors), which is not shipped."


def card_of(folder: Path) -> str:
    """What the model is, how it was trained, what it memorized, and how to load it."""
    entry = entry_of(folder)
    shares = [f"{kind}: {share['count']:,} of {share['rows']:,} scored rows" for kind, share in entry.memorized.items()]
    lines = [
        f"# {entry.name}",
        "",
        f"A GPT-2 of {counted(entry.n_layer, 'layer')}, trained on {entry.data} data with {entry.artifact} planted, seed {entry.seed}, "
        f"{counted(entry.epoch, 'epoch')}; {entry.mib:.1f} MiB of weights.",
        "",
        f"- Memorized at the end of training: {'; '.join(shares)}",
        f"- {_performance(entry)}",
        f"- {TEXT if entry.data == 'wiki' else 'Its corpus is generated anew from the recipe, and checked against its hash.'}",
        "",
        "```python",
        "from tinymem import zoo",
        "",
        f'loaded = zoo.load("{entry.name}"{", corpus=PATH" if entry.data == "wiki" else ""})',
        "loaded.model, loaded.corpus, loaded.planted",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _performance(entry: Entry) -> str:
    if entry.accuracy is not None:
        return f"Accuracy on clean test rows: {100 * entry.accuracy:.2f} %"
    return f"Perplexity on clean test rows: {entry.perplexity:.1f}"
