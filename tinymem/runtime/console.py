"""The terminal by rich: no control character of a stranger's text passes, in whatever table or bar it stands."""

from __future__ import annotations

from collections.abc import Iterator

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from tinymem.errors import printable


class Console(rich.console.Console):
    """rich's console; what is text in what it shows is escaped and no markup, and its own colors and moves are not.

    Args:
        stderr: whether to write to standard error.
        highlight: whether numbers and the like are colored.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True) -> None:
        super().__init__(stderr=stderr, highlight=highlight, markup=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the parts of something to show."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
