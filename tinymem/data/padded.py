"""Rows of token ids without their padding, left and right, and of prompt and target between them too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tinymem.data.tokenizer_folder import ModelTokens


@dataclass(frozen=True)
class GivenRow:
    """A row as a file holds it: its ids, or those of its prompt and of its target."""

    parts: tuple[list[int], ...]
    ids_given: tuple[bool, ...]
    """Whether each part was given as ids, and not as text, which nobody pads between prompt and target."""
    mask: list[int] | None = None
    """Attention mask over all parts: zeros at either end of a part are its padding, whatever stands there."""


def without_padding(rows: Sequence[GivenRow], tokens: ModelTokens) -> list[tuple[list[int], int | None]]:
    """The ids of each row without padding, and behind its first EOS where nothing but EOS or padding follows; and its prompt's tokens.

    A prompt of ids may be padded left and right, and its target too. Of a prompt that is padding alone no token is left, of such a target
    neither; a row of one part has no prompt of its own (None).

    Where the token of padding also begins or ends texts, as in GPT-2, one of them at the start of a row is no padding if no row of the file
    begins with more, or if each begins with one at least and some with no more; likewise at the end of prompts and the start of targets.
    """
    parts = _closed_up(rows, [_masked(row) for row in rows], tokens)
    whole = [[token for part in row for token in part] for row in parts]
    spared = _spared(whole, tokens)
    found: list[tuple[list[int], int | None]] = []
    for row, own, ids in zip(rows, parts, whole, strict=True):
        ended = _ended(ids, tokens)
        cut = 0 if row.mask is not None else max(0, _leading(ended, tokens.pad) - spared)
        found.append((ended[cut:], max(0, len(own[0]) - cut) if len(own) > 1 else None))
    return found


def _masked(row: GivenRow) -> tuple[list[int], ...]:
    """Each part from the first to the last one of its mask."""
    if row.mask is None:
        return row.parts
    found, start = [], 0
    for part in row.parts:
        inside = [i for i, one in enumerate(row.mask[start : start + len(part)]) if one]
        found.append(part[inside[0] : inside[-1] + 1] if inside else [])
        start += len(part)
    return tuple(found)


def _closed_up(rows: Sequence[GivenRow], parts: Sequence[tuple[list[int], ...]], tokens: ModelTokens) -> list[tuple[list[int], ...]]:
    """The parts of each row without padding between prompt and target; a part that is padding alone stays as it is."""
    padded = [row.ids_given if len(own) > 1 and row.mask is None else (False, False) for row, own in zip(rows, parts, strict=True)]
    behind = _spared([own[0][::-1] for own, (prompt, _) in zip(parts, padded, strict=True) if prompt], tokens)
    before = _spared([own[1] for own, (_, target) in zip(parts, padded, strict=True) if target], tokens)
    found = list(parts)
    for i, (prompt, target) in enumerate(padded):
        if prompt:
            found[i] = (_begun(found[i][0][::-1], behind, tokens)[::-1], found[i][1])
        if target:
            found[i] = (found[i][0], _begun(found[i][1], before, tokens))
    return found


def _begun(part: list[int], spared: int, tokens: ModelTokens) -> list[int]:
    """The part without its leading padding, unless it is nothing else."""
    leading = _leading(part, tokens.pad)
    return part[max(0, leading - spared) :] if leading < len(part) else part


def _leading(row: Sequence[int], among: Collection[int]) -> int:
    return next((i for i, token in enumerate(row) if token not in among), len(row))


def _spared(rows: Sequence[list[int]], tokens: ModelTokens) -> int:
    """Leading tokens of padding that are part of a row: 1 where they begin or end texts, else 0."""
    runs = [n for row in rows if (n := _leading(row, tokens.pad)) < len(row)]
    if not runs or not tokens.pad & {*tokens.bos, *tokens.eos}:
        return 0
    return 1 if max(runs) <= 1 or min(runs) == 1 else 0


def _ended(row: list[int], tokens: ModelTokens) -> list[int]:
    content = len(row) - _leading(row[::-1], tokens.pad | tokens.eos)
    return row[: content + (row[content : content + 1] != [] and row[content] in tokens.eos)]
