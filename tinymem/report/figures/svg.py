"""matplotlib figures as SVG for a page: theme colors, unique ids, the same bytes each time."""

from __future__ import annotations

import html
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from tinymem.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Dash = Literal["-", "--", ":", "-.", "none"]
Fill = Literal["full", "none", "left", "bottom"]


class Style(TypedDict, total=False):
    """matplotlib's arguments for the look of a line and its markers."""

    color: str
    alpha: float
    linestyle: Dash
    linewidth: float
    marker: str
    markersize: float
    fillstyle: Fill
    markeredgewidth: float
    markerfacecoloralt: str


# Okabe and Ito's colors, distinguishable with any kind of color vision; gray for their black, no yellow: it is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
# Drawn in this color, then replaced by `currentColor`: the text color of the page's light or dark theme.
INK = "#010203"
# Text and background of the page's themes (page/templates/page.html).
LIGHT = ("#1c2126", "#ffffff")
DARK = ("#e4e7ea", "#14171a")

STYLE: dict[str, str | float] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tinymem",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a method may be called $x$
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Inside the context matplotlib draws in the report's style, independent of the user's matplotlibrc.

    Raises:
        UserError: matplotlib is not installed.
    """
    _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast("Any", STYLE))
        yield


def _import_matplotlib() -> None:
    """Import matplotlib whatever MPLBACKEND is: a shell inherits a notebook's, which may not be installed, and files need none."""
    first, backend = "matplotlib" not in sys.modules, os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except ImportError:
        raise UserError("expected matplotlib for the figures, found none; try: pip install 'tinymem[report]'") from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if first and backend:
        with suppress(ValueError):  # for the user's own plots, as if he had imported it
            matplotlib.rcParams["backend"] = backend


@dataclass(frozen=True)
class Drawing:
    """A figure as the attributes and the body of an `<svg>` element, and its width in points."""

    attributes: str
    body: str
    width: float

    def styled(self, style: str = "", head: str = "") -> str:
        """The element, with a style of its own and with something before its body."""
        return f"<svg{f' style={chr(34)}{style}{chr(34)}' if style else ''} {self.attributes}>{head}{self.body}"


def to_svg(figure: Figure, name: str, description: str) -> Drawing:
    """The figure as an `<svg>` element; `name` keeps its ids apart from those of other figures on the page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it would reach the whole page
    text = re.sub(r"<[^<>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), text)  # hundredths of a point are enough
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page's own, or that of the root element
    text = re.sub(r">\s+<", "><", text)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor")
    label = html.escape(description, quote=True)
    attributes, _, body = text.removeprefix("<svg ").partition(">")
    return Drawing(f'role="img" aria-label="{label}" stroke-linejoin="round" {attributes}', body.strip() + "\n", 72 * figure.get_figwidth())
