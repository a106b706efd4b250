"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import half_written

import tinymem
from tinymem.data.rows_file import read_rows
from tinymem.data.text.source import Column, TextSource
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.data.windows import CorpusChoice, blocks
from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.files import (
    canonical_json,
    content_id,
    file_sha256,
    json_lines,
    new_directory,
    read_json,
    remove_leftovers,
    users_json,
    write_bytes,
    write_json,
    write_text,
)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Crash(BaseException):
    """Stands for the end of the process."""


def crash(*_: Any, **__: Any) -> None:
    raise Crash


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    monkeypatch.setattr(call, crash)
    with pytest.raises(Crash):
        write_text(path, "new")
    assert path.read_text() == "old" and not half_written(tmp_path)


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(call, full_disk)
    with pytest.raises(UserError, match=r"No space left on device, [\d.,]+ \w+ are free; free or change the place"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1} and not half_written(tmp_path)


def test_the_new_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a))[1])
    write_bytes(tmp_path / "file", b"x")
    assert calls[:2] == ["fsync", "replace"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "folder"
    with new_directory(target) as temporary:
        (temporary / "sub").mkdir()
        write_text(temporary / "sub" / "file", "x")
        assert not target.exists()
    assert (target / "sub" / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [Crash, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [False, True])
def test_a_folder_that_could_not_be_filled(tmp_path: Path, error: type[BaseException], existed: bool) -> None:
    target = tmp_path / "folder"
    if existed:
        target.mkdir()
        write_text(target / "old", "old")
    with pytest.raises(error), new_directory(target) as temporary:
        write_text(temporary / "new", "new")
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == (["folder", "old"] if existed else [])


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with new_directory(tmp_path / "folder") as temporary:
            write_text(temporary / name, name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(UserError, match="could not write"):
        write_text(tmp_path / "file" / "below", "y")
    with pytest.raises(UserError, match="could not write"), new_directory(tmp_path / "file" / "below"):
        pass


def test_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".folder.1.ab.tmp").mkdir()
    write_text(tmp_path / ".folder.1.ab.tmp" / "file", "x")
    write_text(tmp_path / ".file.1.ab.tmp", "x")
    write_text(tmp_path / "kept.tmp", "x")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


def test_ids() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert content_id({"a": 1, "b": 2}) == content_id({"b": 2, "a": 1}) != content_id({"a": 1, "b": 3})
    assert len(content_id({})) == 8 and len(content_id({}, 16)) == 16 and int(content_id({}), 16) >= 0
    assert content_id({"a": 1}) == "2c6b113b", "ids name folders on users' disks: they must not change"
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json(value)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_broken_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a recipe at .*found none"):
        read_json(tmp_path / "none.json", "recipe")
    for name, data in (("cut.json", b'{"a": '), ("bytes.json", b"\xff\xfe{")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name) as error:
            read_json(tmp_path / name)
        assert "\n" not in str(error.value)


def test_suggestions() -> None:
    assert did_you_mean("drable", ["durable", "act"]) == "did you mean 'durable'?"
    assert did_you_mean("xyz", ["durable", "act"]) == "known: act, durable"


def test_json_lines_name_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[2]\r\n3')
    assert list(json_lines(path, "mend it")) == [(1, {"a": 1}), (3, [2]), (4, 3)]
    for damage, words in (
        (b'1\n{"a"', "expected JSON in line 2 of .*lines.jsonl, got '{\"a\"'.*; mend it"),
        (b"NaN", "line 1 of"),
        (b"1\n\xff", "0xff in line 2"),
    ):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=words):
            list(json_lines(path, "mend it"))
    path.write_bytes(b"1\n{")
    assert next(json_lines(path, "mend it")) == (1, 1), "a line is read when it is asked for"
    with pytest.raises(UserError, match="found none; mend it"):
        list(json_lines(tmp_path / "none", "mend it"))


def test_a_key_twice_in_a_users_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": NaN, "b": {"a": 1}}\n{"text": "one", "n": 1, "text": "two"}\n')
    lines = json_lines(path, "repair the line", users_json)
    assert next(lines)[1]["b"] == {"a": 1}
    with pytest.raises(UserError, match=r"line 2 of .*lines\.jsonl.* \(the key 'text' twice\); repair the line"):
        next(lines)


@pytest.mark.parametrize("read", ["rows", "text", "windows"])
def test_a_key_twice_is_refused_by_each_reader_of_rows(tmp_path: Path, read: str) -> None:
    path, line = tmp_path / "lines.jsonl", '{"text": "one", "text": "two"}\n'
    path.write_text(line)
    readers: dict[str, Callable[[], object]] = {
        "rows": lambda: read_rows(path, ModelTokens(tmp_path)),
        "text": lambda: list(TextSource(Column("text"), files={"train": [path]}).blocks("train")),
        "windows": lambda: list(blocks(CorpusChoice(str(path)), 0, 0)),
    }
    with pytest.raises(UserError, match=r"line 1 of .* \(the key 'text' twice\); repair the line"):
        readers[read]()


def test_json_lines_have_one_reader() -> None:
    """`bench hours` passes over whatever else a terminal's output holds; the others share the reader."""
    package = Path(tinymem.__file__).parent
    calls = {str(p.relative_to(package)): p.read_text(encoding="utf-8").count("json.loads(line)") for p in package.rglob("*.py")}
    assert {name for name, count in calls.items() if count} == {"bench/hours.py"}
