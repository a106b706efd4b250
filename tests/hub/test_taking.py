"""What is taken from the Hub: verified, with its commit, also offline; and hostile repositories, each refused with one line."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tinymem
from hub_stub import Hub, Repo

from tinymem.errors import UserError
from tinymem.hub import fetch as fetching
from tinymem.hub.client import TRIES, persistent
from tinymem.hub.fetch import checkpoint_folder, fetch
from tinymem.hub.listing import MOST_ENTRIES, Listed, taken
from tinymem.hub.names import hub_name, is_hub_name, origin_of, parse_size
from tinymem.hub.pins import pinned_names
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.weights import SAMPLE
from tinymem.runtime.files import file_sha256

Files = dict[str, bytes]


def entry(path: str, **values: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": 3, "oid": "0" * 40, **values}


def also(*entries: dict[str, Any]) -> Callable[[Repo, Files], None]:
    """The listing has more entries."""
    return lambda repo, files: setattr(repo, "listed", lambda listed: [*listed, *entries])


def changed(path: str, **values: Any) -> Callable[[Repo, Files], None]:
    """The listing says something else of a file."""
    return lambda repo, files: setattr(
        repo, "listed", lambda listed: [{**one, **(values if one["path"] == path else {})} for one in listed]
    )


def sent(path: str, change: Callable[[bytes], bytes]) -> Callable[[Repo, Files], None]:
    """Other bytes are sent than the hash says."""
    return lambda repo, files: repo.served.update({path: change(files[path])})


def holding(**contents: Callable[[Files], bytes] | None) -> Callable[[Repo, Files], None]:
    """The repository holds other files; None for none. In names, `__` stands for a point."""

    def change(repo: Repo, files: Files) -> None:
        new = {name.replace("__", "."): make for name, make in contents.items()}
        kept = {name: content for name, content in files.items() if name not in new}
        STUB[0].add("evil/m", {**kept, **{name: make(files) for name, make in new.items() if make}})

    return change


def config(**values: object) -> Callable[[Files], bytes]:
    return lambda files: json.dumps({**json.loads(files["config.json"]), **values}).encode()


def metadata(**values: object) -> Callable[[Files], bytes]:
    return lambda files: json.dumps({**json.loads(files["tinymem.json"]), **values}).encode()


def manifest(**hashes: str) -> Callable[[Files], bytes]:
    return lambda files: json.dumps({"format": 1, "branch": "main", "files": {k.replace("__", "."): v for k, v in hashes.items()}}).encode()


def results(files: Files, **values: object) -> bytes:
    said = json.loads(files["tinymem.json"])
    counts = {"noise": {"count": 4, "rows": 8}}
    honest = {"weights_sha256": said["weights_sha256"], "corpus_sha256": said["corpus_sha256"], "measured": "x", "memorized": counts}
    return json.dumps({**honest, **values}).encode()


STUB: list[Hub] = []
TOO_MANY = {"count": 9, "rows": 8}
FALSE = b"---\nmodel-index:\n- results:\n  - metrics:\n    - {type: memorized, value: 0}\n---\n"
EMPTY = b"\x02\0\0\0\0\0\0\0{}"
HOSTILE: dict[str, tuple[Callable[[Repo, Files], None], str]] = {
    "a name with ..": (also(entry("../../evil.txt")), "leads elsewhere"),
    "an absolute name": (also(entry("/etc/cron.d/evil")), "leads elsewhere"),
    "a drive's name": (also(entry("C:/evil")), "leads elsewhere"),
    "a backslash": (also(entry("..\\evil.txt")), "leads elsewhere"),
    "a name with a line's end": (also(entry("a\nb")), "leads elsewhere"),
    "a name that turns text around": (also(entry("model\u202etxt.safetensors")), "leads elsewhere"),
    "two names that differ in case": (also(entry("Model.safetensors")), "one file of each name"),
    "two names that differ in their Unicode form": (also(entry("con\ufb01g.json")), "one file of each name"),
    "a folder called config.json": (changed("config.json", type="directory"), "to be a file, got a folder"),
    "a submodule for the weights": (changed("model.safetensors", type="submodule"), "to be a file, got a folder"),
    "more bytes than allowed": (changed("model.safetensors", size=2**40), "--max-size"),
    "a configuration of gigabytes": (changed("config.json", size=2**31), "at most 100.0 MiB"),
    "a negative size": (changed("config.json", size=-1), "expected a size"),
    "a size that is not so": (changed("config.json", size=5), "as its listing says"),
    "a hash that is none": (changed("config.json", oid="../../x"), "expected a size and a hash"),
    "thousands of files": (also(*(entry(f"f{i}") for i in range(MOST_ENTRIES))), "at most 10,000 entries"),
    "other weights than the hash says": (sent("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])), "got other bytes"),
    "another configuration than the hash says": (sent("config.json", lambda b: b.replace(b"relu", b"gelu")), "got other bytes"),
    "only pickled weights": (holding(model__safetensors=None, pytorch_model__bin=lambda _: b"\x80\x04."), "which can run code"),
    "no weights": (holding(model__safetensors=None), "expected weights as safetensors"),
    "no configuration": (holding(config__json=None), "expected a config.json"),
    "code of its own": (holding(config__json=config(model_type="evil", architectures=["Evil"], auto_map={"AutoConfig": "evil.C"})), "Evil"),
    "an adapter": (holding(adapter_config__json=lambda _: b"{}"), "an adapter's"),
    "weights that do not fill the model": (holding(model__safetensors=lambda _: EMPTY, tinymem__json=None), "expected weights of 2 layers"),
    "truncated weights": (holding(model__safetensors=lambda f: f["model.safetensors"][:-9], tinymem__json=None), "a damaged one"),
    "an index that leads out": (
        holding(model__safetensors=None, tinymem__json=None, **{"model-00001-of-00001__safetensors": lambda f: f["model.safetensors"],
                "model__safetensors__index__json": lambda _: b'{"weight_map": {"wte": "../../x.safetensors"}}'}),
        "weight_map of file names",
    ),
    "weights of another model": (holding(tinymem__json=metadata(weights_sha256={"model.safetensors": "0" * 64})), "found it changed"),
    "a tinymem.json that is no object": (holding(tinymem__json=lambda _: b"[]"), "expected a JSON object"),
    "a manifest with another hash": (holding(manifest__json=manifest(config__json="0" * 64)), "it lies"),
    "a manifest without the weights": (holding(manifest__json=manifest()), "it lies"),
    "a manifest of files that are not there": (holding(manifest__json=manifest(recipe__yaml="0" * 64)), "got nothing"),
    "a manifest of something else": (holding(manifest__json=lambda _: b'{"files": {}, "run": "me"}'), "as TinyMem writes it"),
    "results on other rows": (holding(results__json=lambda f: results(f, corpus_sha256="0" * 64)), "those of others"),
    "results on no rows": (holding(results__json=lambda f: results(f, corpus_sha256=None)), "those of others"),
    "results of other weights": (holding(results__json=lambda f: results(f, weights_sha256={})), "those of others"),
    "more memorized rows than there are": (holding(results__json=lambda f: results(f, memorized={"n": TOO_MANY})), "at most 8"),
    "a card with better numbers": (
        holding(results__json=results, README__md=lambda _: FALSE),
        "expected the card",
    ),
    "a card that is damaged": (holding(results__json=results, README__md=lambda _: b"---\n{[\n---\n"), "the card is damaged"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_repository_is_refused_with_one_line(kind: str, hub: Hub, files: Files) -> None:
    change, words = HOSTILE[kind]
    STUB[:] = [hub]
    change(hub.add("evil/m", files), files)
    error = tinymem("evaluate", "evil/m").one_line_error()
    assert words in error and "evil/m" in error.replace("models--evil--m", "evil/m"), error


def test_what_is_hostile_is_not_kept(hub: Hub, files: Files) -> None:
    repo = hub.add("evil/m", files)
    repo.served["model.safetensors"] = files["model.safetensors"][::-1]
    with pytest.raises(UserError, match="other bytes"):
        fetch(hub_name("evil/m"))
    repo.served.clear()
    assert fetch(hub_name("evil/m")).commit == repo.branches["main"]


def test_nothing_is_downloaded_before_the_listing_is_right(hub: Hub, files: Files) -> None:
    hub.add("evil/m", files)
    with pytest.raises(UserError, match="give --max-size 1MB to take it"):
        fetch(hub_name("evil/m"), max_size=10)
    assert not any("/resolve/" in call.path for call in hub.calls)


def test_unasked_as_much_is_taken_as_the_machine_holds(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", files)
    monkeypatch.setattr("tinymem.hub.fetch.LEAST", 10)
    monkeypatch.setattr("tinymem.hub.fetch.largest_memory", lambda: 20)
    with pytest.raises(UserError, match="give --max-size 1MB to take it"):
        fetch(hub_name("org/m"))
    monkeypatch.setattr("tinymem.hub.fetch.largest_memory", lambda: 2**30)
    assert (fetch(hub_name("org/m")).folder / "config.json").is_file()


def test_a_revision_becomes_a_folder_with_equal_weights(hub: Hub, files: Files, made: Path) -> None:
    files = {**files, SAMPLE: b"rows"}
    repo = hub.add("org/m", {**files, "run.py": b"raise SystemExit", "pytorch_model.bin": b"\x80"}, branch="step2")
    folder = checkpoint_folder("org/m@step2")
    assert {path.name for path in folder.iterdir()} == set(files)
    origin = origin_of(folder)
    assert origin is not None and (origin.repo, origin.commit) == ("org/m", repo.branches["step2"])
    ours, theirs = load_checkpoint(made).model, load_checkpoint(folder).model
    ids = torch.arange(12)[None]
    assert torch.equal(ours(ids), theirs(ids))
    assert checkpoint_folder("org/m", revision=origin.commit) == folder


def test_what_is_fetched_is_read_once_for_its_hash(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for module in ("hub.fetch", "hub.claims", "models.metadata"):
        monkeypatch.setattr(f"tinymem.{module}.file_sha256", lambda path: read.append(path.name) or file_sha256(path))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    said = json.dumps({"format": 1, "branch": "main", "files": hashes}).encode()
    hub.add("org/m", {**files, "manifest.json": said})
    checkpoint_folder("org/m")
    assert len([name for name in read if name == hashes["model.safetensors"]]) == 1 and "model.safetensors" not in read


def test_offline_the_cache_serves_and_is_verified(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", files)
    folder, calls = checkpoint_folder("org/m"), len(hub.calls)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert checkpoint_folder("org/m") == folder and len(hub.calls) == calls
    assert (
        "its cache has none" in tinymem("evaluate", "org/other").one_line_error()
        or "cache has none" in tinymem("evaluate", "org/other").err
    )
    (folder / "config.json").resolve().write_text("{}")
    assert "got other bytes" in tinymem("evaluate", "org/m").one_line_error()


def test_a_link_in_the_cache_that_leads_out_is_refused(hub: Hub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", files)
    folder = checkpoint_folder("org/m")
    (tmp_path / "secret").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "a link that leads out" in tinymem("evaluate", "org/m").one_line_error()
    assert (tmp_path / "secret").is_file()


def test_nobody_waits_for_a_network_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tinymem.hub.client.time.sleep", waited.append)

    def unnamed() -> None:
        raise ConnectionError("no route") from socket.gaierror(-2, "Name or service not known")

    with pytest.raises(ConnectionError):
        persistent(unnamed)
    assert waited == [1.0]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "could not fetch org/none" in tinymem("evaluate", "org/none").one_line_error()
    assert waited == [1.0]


def test_passing_failures_are_waited_for_and_others_are_one_line(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tinymem.hub.client.time.sleep", waited.append)
    hub.add("org/m", files)
    hub.fail_when("/revision/main", status=429, retry_after=9)
    hub.fail_when("HEAD /org/m/resolve", status=503)
    hub.fail_when("/config.json")
    assert checkpoint_folder("org/m").is_dir() and 9 in waited
    hub.fail_when("/revision/", status=500, times=TRIES)
    assert "trouble of its own (500)" in tinymem("evaluate", "org/m").one_line_error()
    assert "no such repository" in tinymem("evaluate", "org/nothing").one_line_error()
    assert "no such revision" in tinymem("evaluate", "org/m@v9").one_line_error()


def test_the_commit_is_in_what_evaluate_prints(hub: Hub, files: Files) -> None:
    repo = hub.add("org/m", files)
    done = tinymem("evaluate", "org/m", "--json")
    found = json.loads(done.out)
    assert found["commit"] == repo.branches["main"] and found["checkpoint"] == f"org/m@{repo.branches['main']}"


def test_a_branch_that_moves_during_a_download_does_not_mix_files(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = hub.add("org/m", files).branches["main"], {**files, "config.json": files["config.json"] + b" "}
    listed = fetching._listed

    def moving(*words: Any) -> Iterator[Listed]:
        yield from listed(*words)
        hub.add("org/m", other)

    monkeypatch.setattr(fetching, "_listed", moving)
    folder = checkpoint_folder("org/m")
    assert folder.name == first and {path.name: path.read_bytes() for path in folder.iterdir()} == files
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cache has none of it" in tinymem("evaluate", "org/m").one_line_error(), (
        "of the branch as it is now nothing but one file is here"
    )


def test_a_branch_means_one_commit_to_a_command(hub: Hub, files: Files) -> None:
    first = hub.add("org/m", files).branches["main"]
    with pinned_names():
        folder = checkpoint_folder("org/m")
        second = hub.add("org/m", {**files, "config.json": files["config.json"] + b" "}).branches["main"]
        assert checkpoint_folder("org/m@main") == folder and folder.name == first
    assert checkpoint_folder("org/m").name == second, "another command asks again"
    calls = len(hub.calls)
    assert tinymem("report", "org/m", "org/m", "--tables", "variants").code in (0, 2)
    assert len([call for call in hub.calls[calls:] if call.path == "/api/models/org/m/revision/main"]) == 1


@pytest.mark.parametrize("text", ["org", "a/b/c", "org/m@", "org/m@../x", "o--g/m", ".hidden/m", "org/m@a b", "org/m.."])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="expected"):
        hub_name(text)


def test_a_path_is_never_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert not is_hub_name("runs/typo") and is_hub_name("org/typo") and is_hub_name("runs/x@main")
    with pytest.raises(UserError, match="one revision"):
        hub_name("org/m@a", "b")
    assert parse_size("1.5GB") == 3 * 2**29 and parse_size("7") == 7
    for wrong in ("many", "-1MB", "nanGB", "0"):
        with pytest.raises(UserError, match="expected a size"):
            parse_size(wrong)


def test_of_both_forms_of_weights_one_is_taken() -> None:
    entries = [Listed(name, "file", 1, "0" * 64) for name in ("config.json", "model.safetensors", "model-00001-of-00001.safetensors")]
    assert [file.path for file in taken(entries, "org/m", 100)] == ["model.safetensors", "config.json"]
    assert len(taken([replace(entries[0]), entries[2]], "org/m", 100)) == 2
