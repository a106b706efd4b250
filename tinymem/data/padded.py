"""Rows of token ids without their padding, left and right."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tinymem.data.tokenizer_folder import ModelTokens


def without_padding(rows: Sequence[list[int]], masks: Sequence[list[int] | None], tokens: ModelTokens) -> list[list[int]]:
    """Each row without padding, and behind its first EOS where nothing but EOS or padding follows.

    `masks` are attention masks of the rows that have one: their zeros at either end are padding, whatever stands there.

    Where the token of padding also begins or ends texts, as in GPT-2, one of them at the start of a row is no padding if no row of the file
    begins with more, or if each begins with one at least and some with no more.
    """
    whole = [row if mask is None else _masked(row, mask) for row, mask in zip(rows, masks, strict=True)]
    spared = _spared(whole, tokens)
    ended = [_ended(row, tokens) for row in whole]
    return [row if mask is not None else row[max(0, _leading(row, tokens.pad) - spared) :] for row, mask in zip(ended, masks, strict=True)]


def _masked(row: list[int], mask: list[int]) -> list[int]:
    inside = [i for i, one in enumerate(mask) if one]
    return row[inside[0] : inside[-1] + 1] if inside else []


def _leading(row: Sequence[int], among: Collection[int]) -> int:
    return next((i for i, token in enumerate(row) if token not in among), len(row))


def _spared(rows: Sequence[list[int]], tokens: ModelTokens) -> int:
    """Leading tokens of padding that are part of a row: 1 where they begin texts, else 0."""
    runs = [n for row in rows if (n := _leading(row, tokens.pad)) < len(row)]
    if not runs or not tokens.pad & {*tokens.bos, *tokens.eos}:
        return 0
    return 1 if max(runs) <= 1 or min(runs) == 1 else 0


def _ended(row: list[int], tokens: ModelTokens) -> list[int]:
    content = len(row) - _leading(row[::-1], tokens.pad | tokens.eos)
    return row[: content + (row[content : content + 1] != [] and row[content] in tokens.eos)]
