"""Sums over many small tensors at once, against each by itself."""

from __future__ import annotations

import pytest
import torch

from tinymem.runtime.segments import grouped, segment_sums


def test_sums_are_those_of_each_part() -> None:
    parts = [torch.randint(-(2**62), 2**62, (n,)) for n in (3, 0, 1, 700, 0)]
    found = segment_sums(torch.cat(parts), [len(part) for part in parts])
    assert found.tolist() == [int(part.sum()) for part in parts], "exact, modulo 2^64"
    assert segment_sums(torch.tensor([True, True, False]), [3]).tolist() == [2]


@pytest.mark.parametrize("most", [1, 5, 6, 100])
def test_groups_are_in_order_and_alike(most: int) -> None:
    tensors = [
        torch.zeros(n, dtype=d)
        for n, d in ((2, torch.float32), (3, torch.float32), (1, torch.float16), (9, torch.float16), (0, torch.float16))
    ]
    groups = list(grouped(tensors, most))
    assert [i for group in groups for i in group] == [0, 1, 2, 3, 4]
    for group in groups:
        assert len({tensors[i].dtype for i in group}) == 1
        assert len(group) == 1 or sum(tensors[i].numel() for i in group) <= most
    assert list(grouped([], most)) == []
