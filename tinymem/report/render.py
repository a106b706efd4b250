"""Tables in every format that needs no page: Markdown, LaTeX, CSV, JSON, a fragment of HTML, and the terminal."""

from __future__ import annotations
