"""The stub of the Hub does for the real client what the Hub does, checks what it is sent, and fails on demand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_stub import TOKEN, Hub
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session

CARD = b"---\nlicense: mit\ntags: [tinymem]\n---\n# A model\n"


def commit(api: HfApi, files: dict[str, bytes], branch: str = "main") -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit("org/m", operations, commit_message="files", revision=branch).oid


def test_a_branch_is_created_filled_listed_and_downloaded(hub: Hub) -> None:
    api = HfApi()
    assert api.whoami()["name"] == "tester"
    api.create_repo("org/m", private=True)
    api.create_branch("org/m", branch="step2")
    oid = commit(api, {"README.md": CARD, "model.safetensors": b"w" * 3000}, "step2")
    assert {ref.name: ref.target_commit for ref in api.list_repo_refs("org/m").branches}["step2"] == oid
    tree = {entry.path: entry for entry in api.list_repo_tree("org/m", revision="step2", recursive=True)}
    assert tree["model.safetensors"].lfs.sha256 == hub.repo("org/m").files("step2")["model.safetensors"].sha256
    folder = Path(snapshot_download("org/m", revision="step2"))
    assert folder.name == oid and (folder / "model.safetensors").read_bytes() == b"w" * 3000
    assert api.model_info("org/m", revision="step2").sha == oid and api.model_info("org/m").sha != oid
    assert hub.repo("org/m").private


def test_equal_bytes_are_uploaded_once(hub: Hub) -> None:
    api = HfApi()
    api.create_repo("org/m")
    for branch in ("one", "two"):
        api.create_branch("org/m", branch=branch)
        commit(api, {"model.safetensors": b"same"}, branch)
    assert sum(call.method == "PUT" for call in hub.calls) == 1


def test_what_is_there_is_not_committed_again(hub: Hub) -> None:
    api = HfApi()
    api.create_repo("org/m")
    files = {"README.md": CARD, "model.safetensors": b"w"}
    assert commit(api, files) == commit(api, files)


def test_offline_the_cache_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", {"config.json": b"{}"})
    folder = snapshot_download("org/m")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    calls = len(hub.calls)
    assert snapshot_download("org/m") == folder and len(hub.calls) == calls
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("org/other")


def test_what_the_hub_refuses_is_refused(hub: Hub) -> None:
    api = HfApi()
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("stranger/m")
    api.create_repo("org/m")
    with pytest.raises(ValueError, match="Invalid metadata"):
        commit(api, {"README.md": b"---\nlicense: [1]\n---\n"})
    with pytest.raises(RevisionNotFoundError):
        commit(api, {"a.txt": b""}, "missing")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    hub.repo("org/m").private = True
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token="hf_wrong").model_info("org/m")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token=False).create_branch("org/m", branch="b")


def test_calls_fail_on_demand(hub: Hub) -> None:
    api = HfApi()
    api.create_repo("org/m")
    hub.fail_when("/tree/", status=429, retry_after=7)
    hub.fail_when("/tree/", status=503)
    tree = f"{hub.url}/api/models/org/m/tree/main"  # not by the client, whose versions try different calls again
    first, second, third = (get_session().get(tree) for _ in range(3))
    assert (first.status_code, first.headers["retry-after"], second.status_code) == (429, "7", 503)
    assert [entry["path"] for entry in third.json()] == [".gitattributes"]
    hub.fail_at(len(hub.calls))
    with pytest.raises(Exception, match="disconnected"):
        api.create_branch("org/m", branch="b")
    hub.fail_at(len(hub.calls), after=True)
    with pytest.raises(Exception, match="disconnected"):
        api.create_branch("org/m", branch="b")
    assert "b" in hub.repo("org/m").branches


def test_ranges_and_other_commits(hub: Hub) -> None:
    hub.add("org/data", {"a.txt": b"0123456789"}, kind="dataset")
    first = hub.repo("org/data", "dataset").branches["main"]
    hub.add("org/data", {"a.txt": b"changed"}, kind="dataset")
    assert Path(hf_hub_download("org/data", "a.txt", repo_type="dataset", revision=first)).read_bytes() == b"0123456789"
    import urllib.request

    request = urllib.request.Request(f"{hub.url}/datasets/org/data/resolve/{first}/a.txt", headers={"Range": "bytes=3-5"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.read()) == (206, b"345")


def test_collections(hub: Hub) -> None:
    api = HfApi()
    hub.add("org/m", {"a": b""})
    slug = api.create_collection("Table 1", namespace="org", description="noise").slug
    assert api.create_collection("Table 1", namespace="org", exists_ok=True).slug == slug
    for _ in range(2):
        found = api.add_collection_item(slug, "org/m", "model", exists_ok=True)
    assert [item.item_id for item in found.items] == ["org/m"]


def test_the_token_is_the_stubs_own(hub: Hub) -> None:
    HfApi().whoami()
    assert hub.calls[-1].headers["authorization"] == f"Bearer {TOKEN}"
