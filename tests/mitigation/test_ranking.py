"""The highest of many numbers without a sort, against a stable sort."""

from __future__ import annotations

import pytest
import torch

from tinymem.mitigation.ranking import highest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
@pytest.mark.parametrize("levels", [0, 3, 1])  # how many values there are, and so how many ties; 0: many
def test_the_first_of_a_stable_sort(dtype: torch.dtype, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    drawn = [torch.rand(shape, generator=generator) * 200 - (0 if dtype == torch.uint8 else 100) for shape in ((7, 11), (5,), (11, 7))]
    parts = [((part * levels / 100).round() if levels else part).to(dtype) for part in drawn]
    parts[2] = parts[2].T  # ties go along a view, whatever its layout is
    flat = torch.cat([part.flatten() for part in parts])
    order = torch.sort(flat, descending=True, stable=True).indices
    for count in (0, 1, 50, len(flat) - 1, len(flat)):
        masks = highest(parts, count)
        assert [mask.shape for mask in masks] == [part.shape for part in parts]
        expected = torch.zeros(len(flat), dtype=torch.bool).index_fill_(0, order[:count], True)
        assert torch.equal(torch.cat([mask.flatten() for mask in masks]), expected)


def test_extreme_values() -> None:
    inf = float("inf")
    values = torch.tensor([-inf, 0.0, -0.0, 1e-45, inf, -1e-45, 3.4e38, inf])
    for count, chosen in ((1, [4]), (2, [4, 7]), (3, [4, 6, 7]), (4, [3, 4, 6, 7]), (5, [1, 3, 4, 6, 7]), (7, [1, 2, 3, 4, 5, 6, 7])):
        assert highest([values], count)[0].nonzero().flatten().tolist() == chosen
    with pytest.raises(ValueError, match="at least 9"):
        highest([values], 9)
