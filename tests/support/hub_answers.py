"""What the stub of the Hub answers to each call of the client; see `hub_stub`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml
from hub_state import Answer, File, Files, Refused, Repo, Request, route

if TYPE_CHECKING:
    from hub_stub import Hub

LFS_FROM = 10 * 2**20
LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".npy", ".pt")
WHEN = "2026-01-01T00:00:00.000Z"


@route("GET", "/api/whoami-v2")
def whoami(hub: Hub, request: Request) -> Answer:
    if "authorization" not in request.call.headers:
        raise Refused(401, "no token")
    return Answer({"type": "user", "name": "tester", "orgs": [{"name": name, "type": "org"} for name in hub.organizations]})


@route("POST", "/api/repos/create")
def create_repo(hub: Hub, request: Request) -> Answer:
    sent = request.json
    owner, kind = sent.get("organization") or "tester", sent.get("type") or "model"
    if owner not in ("tester", *hub.organizations):
        raise Refused(403, f"You don't have the rights to create a {kind} under the namespace '{owner}'")
    name = f"{owner}/{sent['name']}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", sent["name"]) or "--" in name or ".." in name:
        raise Refused(400, f"Invalid repo name: {name}")
    url = f"{hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in hub.repos:
        raise Refused(409, "You already created this repo", body={"url": url})
    repo = hub.repos[kind, name] = Repo(kind, name, private=sent.get("private") is True or sent.get("visibility") == "private")
    repo.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)}, "initial commit")
    return Answer({"url": url, "name": name, "id": name})


@route("POST", "/api/{repo}/branch/{branch}")
def create_branch(hub: Hub, request: Request, kind: str, name: str, branch: str) -> Answer:
    repo, sent = hub.repo(name, kind[:-1]), request.json if request.body else {}
    if "/" in branch or branch.startswith("refs"):
        raise Refused(400, f"Invalid reference for a branch: {branch}")
    if branch in repo.branches:
        raise Refused(409, "Reference already exists")
    repo.branches[branch] = repo.at(sent.get("startingPoint") or "main")
    return Answer({})


@route("GET", "/api/{repo}/refs")
def refs(hub: Hub, request: Request, kind: str, name: str) -> Answer:
    repo = hub.repo(name, kind[:-1])
    heads = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in repo.branches.items()]
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit} for name, commit in repo.tags.items()]
    return Answer({"branches": heads, "tags": tags, "converts": []})


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, request: Request) -> Answer:
    text = request.json["content"]
    if request.json["repoType"] not in ("model", "dataset"):
        raise Refused(400, "unknown repoType")
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        values = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as error:
        raise Refused(400, "bad YAML", body={"errors": [{"message": str(error)}]}) from None
    errors = [{"message": f'"{key}" must be a string'} for key in ("license", "library_name") if not isinstance(values.get(key, ""), str)]
    errors += [{"message": f'"{key}" must be a list'} for key in ("tags", "datasets") if not isinstance(values.get(key, []), list)]
    errors += [] if values else [{"message": "empty or missing yaml metadata in repo card"}]
    if errors:
        raise Refused(400, "bad metadata", body={"errors": errors, "warnings": []})
    return Answer({"errors": [], "warnings": []})


@route("POST", "/api/{repo}/preupload/{revision}")
def preupload(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    there, modes = hub.repo(name, kind[:-1]).files(revision), []
    for sent in request.json["files"]:
        path, sample = sent["path"], base64.b64decode(sent["sample"])
        if len(sample) != min(512, sent["size"]):
            raise Refused(400, f"expected the first bytes of {path}")
        mode = "lfs" if path.endswith(LFS_SUFFIXES) or sent["size"] >= LFS_FROM else "regular"
        found = there.get(path)
        oid = None if found is None else found.sha256 if mode == "lfs" else found.oid
        modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Answer({"files": modes})


@route("POST", r"/{file}\.git/info/lfs/objects/batch")
def lfs_batch(hub: Hub, request: Request, kind: str, name: str) -> Answer:
    hub.repo(name, kind.strip("/").removesuffix("s") or "model")
    sent = request.json
    if (sent["operation"], sent["hash_algo"]) != ("upload", "sha256") or "basic" not in sent["transfers"]:
        raise Refused(422, "expected an upload of sha256 by the basic transfer")
    objects = []
    for wanted in sent["objects"]:
        there = wanted["oid"] in hub.blobs
        upload = {"href": f"{hub.url}/lfs-store/{wanted['oid']}?size={wanted['size']}", "header": {}}
        objects.append({**wanted, **({} if there else {"actions": {"upload": upload}})})
    return Answer({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"})


@route("PUT", "/lfs-store/{oid}")
def lfs_upload(hub: Hub, request: Request, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid or str(len(request.body)) != request.query["size"][0]:
        raise Refused(400, "the bytes are not those that were announced")
    hub.blobs[oid] = request.body
    return Answer(b"")


@route("POST", "/api/{repo}/commit/{revision}")
def commit(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    repo = hub.repo(name, kind[:-1])
    if request.call.headers.get("content-type") != "application/x-ndjson" or revision not in repo.branches:
        raise Refused(400 if revision in repo.branches else 404, "expected lines of JSON for a branch", "RevisionNotFound")
    lines = [json.loads(line) for line in request.body.splitlines()]
    head, files = lines[0], dict(repo.files(revision))
    if head["key"] != "header" or not head["value"]["summary"]:
        raise Refused(400, "expected a header with a summary")
    if (parent := head["value"].get("parentCommit")) not in (None, repo.at(revision)):
        raise Refused(412, f"expected the parent {repo.at(revision)}, got {parent}")
    for line in lines[1:]:
        _apply(hub, files, line["key"], line["value"])
    made = repo.commit(revision, files, head["value"]["summary"])
    return Answer({"success": True, "commitOid": made, "commitUrl": f"{hub.url}/{name}/commit/{made}"})


def _apply(hub: Hub, files: Files, key: str, value: Mapping[str, Any]) -> None:
    path = value["path"]
    if path.startswith("/") or ".." in path.split("/"):
        raise Refused(400, f"Invalid path: {path}")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in hub.blobs:
            raise Refused(400, f"LFS object {value['oid']} of {path} was never uploaded")
        files[path] = File(hub.blobs[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
    else:
        raise Refused(400, f"unknown operation {key}")


@route("GET", "/api/{repo}(/revision/(?P<revision>[^/]+))?")
def info(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    repo = hub.repo(name, kind[:-1])
    at = repo.at(revision or "main")
    siblings = [{"rfilename": path} for path in repo.commits[at]]
    values = {"_id": "1", "id": name, "sha": at, "private": repo.private, "lastModified": WHEN, "createdAt": WHEN, "tags": []}
    return Answer({**values, "modelId": name, "siblings": siblings, "downloads": 0, "likes": 0, "gated": False, "disabled": False})


@route("GET", "/api/{repo}/tree/{revision}(/(?P<folder>.*))?")
def tree(hub: Hub, request: Request, kind: str, name: str, revision: str, folder: str) -> Answer:
    repo = hub.repo(name, kind[:-1])
    at, within = repo.at(revision), f"{folder}/" if folder else ""
    files = {path: file for path, file in sorted(repo.commits[at].items()) if path.startswith(within)}
    folders = {"/".join(path.split("/")[: i + 1]) for path in files for i in range(len(path.split("/")) - 1)} - {folder}
    entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
    entries += [file.listed(path) for path, file in files.items()]
    if request.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(within)]
    if within and not files:
        raise Refused(404, f'{folder} does not exist on "{revision}"', "EntryNotFound")
    return Answer(repo.listed(entries), headers={"X-Repo-Commit": at})


@route("POST", "/api/{repo}/paths-info/{revision}")
def paths_info(hub: Hub, request: Request, kind: str, name: str, revision: str) -> Answer:
    files = hub.repo(name, kind[:-1]).files(revision)
    if request.call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        wanted = parse_qs(request.body.decode())["paths"]
    else:
        wanted = request.json["paths"]
    folders = [p for p in wanted if p not in files and any(path.startswith(f"{p}/") for path in files)]
    found = [files[path].listed(path) for path in wanted if path in files]
    return Answer([*found, *({"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders)])


@route("GET", "/{file}/resolve/{revision}/(?P<path>.+)")
def resolve(hub: Hub, request: Request, kind: str, name: str, revision: str, path: str) -> Answer:
    repo = hub.repo(name, kind.strip("/").removesuffix("s") or "model")
    at = repo.at(revision)
    file = repo.commits[at].get(path)
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    content = repo.served.get(path, file.content)
    etag = file.sha256 if file.lfs else file.oid
    headers = {"X-Repo-Commit": at, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", request.call.headers.get("range", ""))) and request.call.method == "GET":
        start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if start >= len(content):
            raise Refused(416, "Range Not Satisfiable")
        return Answer(content[start : end + 1], 206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"})
    return Answer(content, headers=headers)


@route("POST", "/api/collections")
def create_collection(hub: Hub, request: Request) -> Answer:
    sent = request.json
    slug = f"{sent['namespace']}/{re.sub('[^a-z0-9]+', '-', sent['title'].lower()).strip('-')}-{'0' * 24}"
    if len(sent["title"]) >= 60 or len(sent.get("description") or "") > 150:
        raise Refused(400, "expected a title below 60 and a description of at most 150 characters")
    if slug in hub.collections:
        raise Refused(409, "You already have a collection with this title", body={"slug": slug})
    owner = {"_id": "2", "name": sent["namespace"], "fullname": sent["namespace"], "type": "org", "isPro": False, "isHf": False}
    hub.collections[slug] = {
        "slug": slug, "title": sent["title"], "description": sent.get("description"), "owner": owner, "items": [],
        "lastUpdated": WHEN, "position": 0, "private": sent["private"], "theme": "blue", "upvotes": 0,
    }  # fmt: skip
    return Answer(hub.collections[slug])


@route("GET", "/api/collections/(?P<slug>[^/]+/[^/]+)")
def get_collection(hub: Hub, request: Request, slug: str) -> Answer:
    if slug not in hub.collections:
        raise Refused(404, "Collection not found")
    return Answer(hub.collections[slug])


@route("POST", "/api/collections/(?P<slug>[^/]+/[^/]+)/items")
def add_item(hub: Hub, request: Request, slug: str) -> Answer:
    items, sent = hub.collections[slug]["items"], request.json["item"]
    hub.repo(sent["id"], sent["type"])
    if any((item["id"], item["type"]) == (sent["id"], sent["type"]) for item in items):
        raise Refused(409, "already in the collection")
    note = request.json.get("note")
    items.append({"_id": str(len(items)), **sent, "position": len(items), **({"note": {"text": note}} if note else {})})
    return Answer(hub.collections[slug])
