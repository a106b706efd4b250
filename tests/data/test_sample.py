"""A sample of rows that somebody else packed: read within bounds, and refused with one line where it is not one."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from tinymem.data import sample
from tinymem.data.sample import read_sample, rows_by_table, sample_of, write_sample
from tinymem.errors import UserError

LIMIT = 8 * 2**20
LARGE_WINDOW = [{"id": lzma.FILTER_LZMA2, "dict_size": 4 * LIMIT}]


def refused(folder: Path, content: bytes) -> str:
    """The message with which a file is refused."""
    (folder / "rows.safetensors.xz").write_bytes(content)
    with pytest.raises(UserError, match="expected a"):
        rows_by_table(folder / "rows.safetensors.xz")
    with pytest.raises(UserError) as error:
        read_sample(folder / "rows.safetensors.xz")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_grows_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "LARGEST", LIMIT)
    bomb = lzma.compress(bytes(2 * LIMIT), preset=0)
    assert len(bomb) < LIMIT / 1000
    assert "at most 8 MiB" in refused(tmp_path, bomb)
    assert "damaged" in refused(tmp_path, lzma.compress(bytes(LIMIT), preset=0)), "as many as may be are read"
    assert "emory" in refused(tmp_path, lzma.compress(b"rows", filters=LARGE_WINDOW)), "its window is memory too"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rows",
        lzma.compress(b""),
        lzma.compress(b"rows"),
        lzma.compress(b"\x02\0\0\0\0\0\0\0[]"),
        lzma.compress(b"\xff" * 8 + b"[" * 10**5),
    ],
    ids=["nothing", "no xz", "xz of nothing", "no header", "another header", "a deep header"],
)
def test_what_is_no_sample_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "expected a whole sample of rows" in refused(tmp_path, content)
    assert "expected a whole sample of rows" in refused(tmp_path, content[:-1])


def test_ids_beyond_its_vocabulary_are_refused(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "zoo" / "lang-wiki-backdoor-4l-s0" / "rows.safetensors.xz"
    few = sample_of(read_sample(shipped), 5)
    write_sample(few, tmp_path / "rows.safetensors.xz")
    assert len(read_sample(tmp_path / "rows.safetensors.xz").clean) == 5
    assert rows_by_table(tmp_path / "rows.safetensors.xz") == {"clean": 5, "test": 1971, "backdoor": 1113}
    for wrong in (few.vocab_size, -1):
        clean = few.clean.astype("int32")
        clean[0, 0] = wrong
        write_sample(replace(few, clean=clean), tmp_path / "rows.safetensors.xz")
        expected = rf"expected token ids from 0 to {few.vocab_size - 1} in the table 'clean' of .*rows\.safetensors\.xz, got {wrong};"
        with pytest.raises(UserError, match=expected):
            read_sample(tmp_path / "rows.safetensors.xz")
