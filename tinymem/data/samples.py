"""Sample rows of a corpus in a terminal, with the planted tokens highlighted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import Ids, to_text
from tinymem.data.planted import Planted

if TYPE_CHECKING:
    from rich.text import Text

MARK = "bold reverse red"


def print_samples(corpus: Corpus, count: int, *, to_stderr: bool = False) -> None:
    """Print the first rows of each artifact and of the clean rows. Without colors, planted tokens are put in [[ ]]."""
    from tinymem.runtime.console import Console

    console = Console(stderr=to_stderr, highlight=False)
    decode = decoder(corpus)
    for kind, planted in corpus.planted.items():
        console.print(f"\n{kind}", style="bold")
        for n in range(min(count, len(planted.ids))):
            note = f"copies {planted.copies[n]}" if planted.copies[n] else "held out"
            console.print(f"{n} ({note}) ", marked_row(planted.ids[n], planted_tokens(planted, n), decode, plain=not console.is_terminal))
    console.print("\nclean", style="bold")
    for n, row in enumerate(corpus.clean[:count]):
        console.print(f"{n} ", marked_row(row, np.zeros(len(row), dtype=bool), decode, plain=True))


def planted_tokens(planted: Planted, n: int) -> npt.NDArray[np.bool_]:
    """Tokens [T] of row `n` to highlight: noise, all after a trigger, a canary's secret; nothing of a duplicated row."""
    position = np.arange(planted.ids.shape[1])
    if planted.end is not None:
        return (position >= planted.start[n]) & (position < planted.end[n])
    if planted.start[n]:
        return np.asarray(position >= planted.start[n])
    return np.asarray(planted.ids[n] != planted.clean[n])


def decoder(corpus: Corpus) -> Callable[[list[int]], str]:
    """A function from token ids to text."""
    if corpus.tokenizer_file is None:
        return to_text
    from tinymem.data.text.tokenizer import TextTokenizer

    tokenizer = TextTokenizer(corpus.tokenizer_file).tokenizer
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))


def marked_row(row: Ids, marks: npt.NDArray[np.bool_], decode: Callable[[list[int]], str], *, plain: bool) -> Text:
    """A row as rich text; runs of marked tokens are colored, or put in brackets where `plain`."""
    from rich.text import Text

    text = Text()
    edges = [0, *(1 + np.flatnonzero(marks[1:] != marks[:-1])).tolist(), len(row)]
    for first, last in pairwise(edges):
        piece = decode(row[first:last].tolist()).replace("\n", "\\n").replace("\t", "\\t")
        if marks[first]:
            text.append(f"[[{piece}]]" if plain else piece, style=MARK)
        else:
            text.append(piece)
    return text
