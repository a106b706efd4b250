"""The card of a shipped checkpoint, as Markdown: that of a published model, with how it is loaded from the zoo."""

from __future__ import annotations

from pathlib import Path

from tinymem.models.weights import SAMPLE
from tinymem.runs.model_card import Described, describe
from tinymem.runs.publish import Choices, opened
from tinymem.zoo.catalogue import entry_of

TEXT, SHIPPED = "Its text is a part of English Wikipedia of 2018 (CC BY-SA 3.0, by its authors)", ", of which a sample is shipped"
PLACE = 'corpus="folder/of/the/text"'
WHOLE = f"`zoo.load` with `{PLACE}` takes all of it"
MATH = "Its corpus is generated anew from the recipe, and checked against its hash."


def card_of(folder: Path) -> str:
    """What the model is, what is planted in it, what it memorized, and how to load it."""
    entry, model = entry_of(folder), opened(folder, Choices())
    described = Described(entry.name, model.recipe, model.metadata, model.results, f"{entry.mib:.1f} MiB of weights")
    is_text = entry.data == "wiki"
    load = f'loaded = zoo.load("{entry.name}"{"" if _has_rows(folder, is_text) else f", {PLACE}"})'
    lines = [*describe(described), _text(folder) if is_text else MATH, "", "```python", "from tinymem import zoo", "", load]
    return "\n".join([*lines, "loaded.model, loaded.corpus, loaded.planted", "```"]) + "\n"


def _has_rows(folder: Path, is_text: bool) -> bool:
    """Whether its rows are here without the text: those of math are made, those of text shipped."""
    return not is_text or (folder / SAMPLE).is_file()


def _text(folder: Path) -> str:
    return f"{TEXT}{f'{SHIPPED}; {WHOLE}' if _has_rows(folder, is_text=True) else ''}."
