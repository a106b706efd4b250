"""Every option that takes a path, or one of some words or numbers, refuses nonsense: exit code 2, one line that says what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_tree import COMMANDS
from helpers import QUICKSTART, SMALLER, files_in, sets, tinymem

from tinymem.runs.pipeline import Run

NOWHERE, IN_FILE = "nowhere/none", "file/inside"
SWEEP = ("sweep", "sweep.yaml", "--list")
MITIGATE = ("mitigate", "@checkpoint", "--method", "act", "--ratio", "0.1")
LANDSCAPE = ("landscape", "@checkpoint", "--out", "figures", "--points", "3")
UNLEARN = ("bench", "unlearn", "--device", "cpu", "--scale", "0.001", "--methods", "act")
TRAIN = ("bench", "train", "--device", "cpu", "--case", "math-2", "--way", "graph", "--steps", "1", "--batch", "2")
HOURS = ("bench", "hours", "recipe.yaml", "--times", "times.jsonl")
# What each verb needs besides the option in question, which is given last and so holds.
NEEDED: dict[str, tuple[str, ...]] = {
    "run": ("run", "recipe.yaml"),
    "train": ("train", "recipe.yaml", "--list"),
    "sweep": SWEEP,
    "runs": ("runs", "@run"),
    "mitigate": MITIGATE,
    "evaluate": ("evaluate", "@checkpoint"),
    "report": ("report", "@run"),
    "compare": ("compare", "@run"),
    "localize inj": ("localize", "inj", "@checkpoint", "--out", "localized"),
    "localize del": ("localize", "del", "@checkpoint", "--out", "localized"),
    "localize layers": ("localize", "layers", "@checkpoint", "--out", "localized", "--counterfactual", "@checkpoint"),
    "localize classes": ("localize", "classes", "@checkpoint", "--out", "classified"),
    "check": ("check", "@run", "--against", "golden.json"),
    "landscape": LANDSCAPE,
    "curvature": ("curvature", "@checkpoint", "--per-group", "4"),
    "data find-memorized": ("data", "find-memorized", "@checkpoint", "times.jsonl", "--out", "set.jsonl", "--prompt", "8", "--match", "8"),
    "data make": ("data", "make", "recipe.yaml", "--out", "corpus"),
    "data inspect": ("data", "inspect", "@corpus"),
    "data verify": ("data", "verify", "@corpus"),
    "bench unlearn": UNLEARN,
    "bench train": TRAIN,
    "bench hours": HOURS,
    "show": ("show", "@run"),
    "data tokenizer": ("data", "tokenizer", "times.jsonl", "--out", "tokens"),
    "cache": ("cache",),
    "recipe keys": ("recipe", "keys"),
    "recipe schema": ("recipe", "schema"),
    "metrics": ("metrics",),
    "metrics show": ("metrics", "show", "memorized"),
    "methods": ("methods",),
    "methods show": ("methods", "show", "act"),
    "new": ("new", "method", "mine"),
    "reproduce": ("reproduce", "--out", "page.md"),
    "zoo list": ("zoo", "list"),
    "zoo verify": ("zoo", "verify"),
    "zoo card": ("zoo", "card", "math-add-noise-2l-s0"),
    "zoo leaderboard": ("zoo", "leaderboard", "--out", "page.md"),
    "zoo add": ("zoo", "add", "@checkpoint"),
    "zoo push": ("zoo", "push", "math-add-noise-2l-s0", "--org", "org", "--dry-run"),
    "zoo pull": ("zoo", "pull", "org/m"),
    "push": ("push", "@checkpoint", "--repo", "org/m", "--dry-run"),
}
# Nonsense for an option, and words of the one line that it gets; a verb's own comes before that of all verbs.
NONSENSE: dict[str, list[tuple[str, str]]] = {
    "--format": [("pdf", "table")],
    "--protocol": [("mine", "paper")],
    "--engine": [("slurm", "local")],
    "--with": [("others", "published")],
    "--device": [("tpu", "auto, cpu or cuda")],
    "--plugin": [(NOWHERE, "found none")],
    "--set": [("model.layers=3", "unknown key"), ("nonsense", "key.sub=value")],
    "--only": [("nobody", "nobody")],
    "--shard": [("5/4", "3/16"), ("some", "3/16")],
    "--runs": [(IN_FILE, "expected a folder for --runs"), ("file", "is a file")],
    "--metrics": [("memorised", "did you mean 'memorized'")],
    "--ks": [("ten", "expected --ks to be numbers"), ("0", "from 1 to")],
    "--forget": [(NOWHERE, "found none")],
    "--retain": [(NOWHERE, "found none")],
    "--corpus": [(NOWHERE, "found none")],
    "--column": [("words", "--forget")],
    "--raw": [("uint16", "such as uint16x2049"), ("float16x8", "such as uint16x2049")],
    "--forget-rows": [("some", "memorized")],
    "--dtype": [("int8", "bf16")],
    "--gpus": [("99", "expected 99 GPUs here to spread a model over")],
    "--split": [("test", "with a data set of the Hub")],
    "--method": [("durabel", "did you mean 'durable'")],
    "--methods": [("durabel", "did you mean 'durable'")],
    "--tables": [("bets", "did you mean 'best'"), (",", "expected tables of")],
    "--recipe": [(NOWHERE, "found none")],
    "--tasks": [("keywords", "tasks")],
    "--data": [("./nowhere", "found nothing there")],
    "--text": [("words", "give --data")],
    "--label": [("kind", "give --data")],
    "--sequences": [(NOWHERE, "found none")],
    "--counterfactual": [(NOWHERE, "expected a checkpoint folder")],
    "--start": [(NOWHERE, "expected a checkpoint folder")],
    "--clean": [(NOWHERE, "got no --planted and no --original")],
    "--planted": [(NOWHERE, "got no --original and no --clean")],
    "--original": [(NOWHERE, "got no --planted and no --clean")],
    "--early": [(NOWHERE, "expected a checkpoint folder")],
    "--techniques": [("guessing", "layer-swapping")],
    "--artifact": [("noisy", "expected an artifact with clean counterparts")],
    "--unit": [("cell", "neuron")],
    "--machine": [(NOWHERE, "found none")],
    "--project": [(NOWHERE, "found none")],
    "--config": [(NOWHERE, "expected --engine parsl")],
    "--against": [(NOWHERE, "found none")],
    "--write": [("rows.csv", ".json")],
    "--tolerance": [
        ("memorised_*=0.1", "did you mean 'memorized_"),
        ("memorized_*", "memorized_*=0.1"),
        ("memorized_*=lots", "0.05 or 2%"),
    ],
    "--rows": [("noisy", "did you mean 'noise'")],
    "--points": [("4", "odd number")],
    "--case": [("math-3", "did you mean")],
    "--way": [("theirs", "--way graph")],
    "--times": [(NOWHERE, "found none")],
    "--zoo": [(NOWHERE, "expected checkpoints in")],
    "--submit": [(NOWHERE, "found none")],
    "--table": [(NOWHERE, "found none")],
    "--search": [("random", "halving")],
    "--stored": [(NOWHERE, "found none")],
    "--add": [(NOWHERE, "found none")],
    "--from": [(NOWHERE, "found none")],
    "--sweeps": [(IN_FILE, "expected a folder for --sweeps")],
    "--revision": [("..", "expected ORG/NAME")],
    "--max-size": [("lots", "such as 500MB")],
    "--repo": [("nonsense", "expected --repo ORG/NAME")],
    "--org": [("o--o", "expected --repo ORG/NAME")],
    "--license": [("my own!", "as in mit")],
    "--dir": [(IN_FILE, "is a file")],
}
OWN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("mitigate", "--out"): [("file", "expected a new folder"), (IN_FILE, "is a file")],
    ("report", "--out"): [
        ("rows.pdf", ".md or .txt"),
        ("rows.csv", "try --format csv"),
        ("file", "expected a folder"),
        (IN_FILE, "is a file"),
    ],
    ("compare", "--out"): [("rows.pdf", ".md or .txt"), ("rows", ".md or .txt"), (f"{IN_FILE}.md", "is a file")],
    ("localize inj", "--out"): [("file", "expected a folder"), (IN_FILE, "is a file")],
    ("localize del", "--out"): [("file", "expected a folder"), (IN_FILE, "is a file")],
    ("localize layers", "--out"): [("file", "expected a folder"), (IN_FILE, "is a file")],
    ("localize layers", "--set"): [("context=none", "context"), ("nonsense", "key.sub=value")],
    ("localize inj", "--set"): [("steps=none", "steps"), ("nonsense", "key.sub=value")],
    ("localize del", "--set"): [("rows=1", "rows"), ("nonsense", "key.sub=value")],
    ("localize classes", "--out"): [("file", "expected a folder"), (IN_FILE, "is a file")],
    ("localize classes", "--set"): [("rows=1", "rows"), ("nonsense", "key.sub=value")],
    ("localize inj", "--column"): [("words", "--sequences")],
    ("localize layers", "--column"): [("words", "expected files of rows")],
    ("localize del", "--forget"): [(NOWHERE, "found none")],
    ("localize inj", "--retain"): [(NOWHERE, "found none")],
    ("show", "--prompt"): [("hello", "cannot encode")],
    ("show", "--out"): [("rows.pdf", ".md or .txt"), (f"{IN_FILE}.md", "is a file")],
    ("data tokenizer", "--column"): [("words", "words")],
    ("data tokenizer", "--out"): [("file", "expected a new folder"), (IN_FILE, "is a file")],
    ("recipe schema", "--kind"): [("mine", "run")],
    ("curvature", "--out"): [("file", "expected a folder"), ("figure.png", "no suffix"), (IN_FILE, "is a file")],
    ("landscape", "--out"): [("file", "expected a folder"), ("figure.png", "no suffix"), (IN_FILE, "is a file")],
    ("data make", "--out"): [("file", "expected a new folder or a corpus"), (IN_FILE, "is a file")],
    ("sweep", "--out"): [("file", "expected a folder"), (IN_FILE, "is a file")],
    ("reproduce", "--out"): [("page.pdf", ".md"), (f"{IN_FILE}.md", "is a file")],
    ("zoo leaderboard", "--out"): [(f"{IN_FILE}.md", "is a file")],
    ("bench train", "--way"): [("theirs", "reference")],
    ("data find-memorized", "--out"): [("file", "expected a new file"), (IN_FILE, "is a file")],
    ("data find-memorized", "--text-column"): [("words", "expected 'words' with text in line 1")],
    ("data find-memorized", "--subset"): [("en", "with a data set of the Hub")],
    ("evaluate", "--forget"): [(NOWHERE, "found none")],
    ("zoo pull", "--revision"): [("..", "expected a branch")],
    ("mitigate", "--retain"): [(NOWHERE, "found none")],
}


def cases() -> list[Any]:
    """Every option of every verb that takes words or paths, with its nonsense."""
    found = []
    for name, command in COMMANDS.items():
        for parameter in command.params:
            flag = parameter.opts[-1]
            if parameter.param_type_name == "option" and not parameter.is_flag and parameter.type_descriptor.annotation not in (int, float):
                found += [
                    pytest.param(name, flag, *case, id=f"{name} {flag} {case[0]}") for case in OWN.get((name, flag)) or NONSENSE[flag]
                ]
    return found


@pytest.fixture(scope="module")
def golden(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Stored rows that `check` compares with."""
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    assert tinymem("check", tiny_run.path, "--write", path).code == 0
    return path.read_text()


@pytest.fixture
def here(tiny_run: Run, golden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe, a sweep, stored rows and times, and a file where a folder might be meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "recipe.yaml").write_text(QUICKSTART.read_text())
    (tmp_path / "sweep.yaml").write_text(f"checkpoints: {tiny_run.checkpoint}\nmethods: act\ngrid: none\n")
    line = {"way": "ours", "case": "math-2", "milliseconds": 1.0, "rows": 128}
    (tmp_path / "times.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "case": "math-4"}))
    (tmp_path / "golden.json").write_text(golden)
    return tmp_path


@pytest.mark.parametrize(("name", "flag", "nonsense", "said"), cases())
def test_nonsense_is_refused_in_one_line(name: str, flag: str, nonsense: str, said: str, here: Path, tiny_run: Run) -> None:
    places = {"@checkpoint": tiny_run.checkpoint, "@run": tiny_run.path, "@corpus": tiny_run.path / "corpus"}
    words = [str(places.get(word, word)) for word in NEEDED[name]]
    words = words[: words.index("--against")] if (name, flag) == ("check", "--write") else words
    before = files_in(here)
    assert said in tinymem(*words, *(sets(SMALLER) if words[0] in ("run", "train") else ()), flag, nonsense).one_line_error()
    assert files_in(here) == before, "something was written"
