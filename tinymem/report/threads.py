"""A note for tables of rows that were made with different numbers of CPU threads, whose sums round differently."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tinymem.results.row import MeasuredRow

ON_CPU = re.compile(r"cpu \((\d+) threads\)")


def mixed_threads(rows: Iterable[MeasuredRow]) -> tuple[str, ...]:
    """A sentence if the rows' models were trained, or their methods run, with different numbers of threads; else none."""
    known = list(rows)
    trained = sorted({row.training_threads for row in known if row.training_threads})
    ran = {int(found[1]) for row in known if row.method != "none" and (found := ON_CPU.fullmatch(row.device or ""))}
    parts = [f"models trained with {_listed(trained)}"] if len(trained) > 1 or any("," in threads for threads in trained) else []
    parts += [f"methods run with {_listed(map(str, sorted(ran)))}"] if len(ran) > 1 else []
    if not parts:
        return ()
    return (f"Mixed numbers of CPU threads: {'; '.join(parts)}. Sums round otherwise, which moves counts by a few rows.",)


def _listed(numbers: Iterable[str]) -> str:
    return " and ".join(numbers).replace(", ", " then ")
