"""Durations and counts in the words that people use: `3 min 20 s`, `1 row`, `2 rows`."""

from __future__ import annotations

MINUTE, HOUR = 60, 3600


def duration(seconds: float) -> str:
    """A time in the unit that suits it; below a minute in seconds, below an hour in minutes and seconds, above in hours.

    >>> duration(0.083), duration(0.4), duration(7.25), duration(45.2), duration(200), duration(3600), duration(7560)
    ('0.08 s', '0.4 s', '7.2 s', '45 s', '3 min 20 s', '1 h', '2.1 h')
    """
    if 0 < seconds < 0.005:
        return "under 0.01 s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{trimmed(seconds, 0 if seconds >= 9.95 else 1 if seconds >= 0.095 else 2)} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min" + (f" {whole % MINUTE} s" if whole % MINUTE else "")
    return f"{trimmed(seconds / HOUR, 1)} h"


def trimmed(value: float, digits: int) -> str:
    """A number with thousands separated, without zeros at its end.

    >>> trimmed(1234.0, 1), trimmed(0.25, 2)
    ('1,234', '0.25')
    """
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: float) -> str:
    """A number of bytes in the unit that suits it, of 1000 each.

    >>> size(512), size(1_530_000), size(43_000_000_000)
    ('512 B', '1.5 MB', '43 GB')
    """
    units = ["TB", "GB", "MB", "kB", "B"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop()
    return f"{trimmed(count, 1 if count < 9.95 else 0)} {units[-1]}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun, singular or plural.

    >>> counted(1, "row"), counted(1200, "row"), counted(2, "copy", "copies")
    ('1 row', '1,200 rows', '2 copies')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
