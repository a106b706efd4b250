"""Golden rows: two commits run the same commands on this CPU, and every number must be equal to the digit.

    python benchmarks/golden_rows.py --base f802881 --head HEAD --work DIR [--threads 1,2] [--only CASE ...] [--reuse-head] [--self-test]

Each side is a git worktree, driven through its command line alone. Compared are the rows of runs and sweeps, what commands print as JSON,
training curves, landscapes, and a hash of every checkpoint's tensors. Rows are matched by what they are of (command, model, method,
options, artifact, epoch), never by ids; null counts as absent. The base's results stay in --work, by commit, threads, case and machine;
the head's are made anew unless --reuse-head finds them there. Exit code 1 on any difference.

golden_names.json has what is not compared, and what HEAD has renamed: regular expressions, applied in order (`ignored` to both sides; the
others not where both are one commit). `words`: in the head's commands and recipes. `columns`: in flattened names of the base, such as
metrics_before.perplexity.all; a list of new names copies the value. `values`: in texts of the base, by their column there. `only_base`,
`only_head`: columns that one side lacks, with the reason. Such as {"columns": {"memorised": "memorized"}, "only_head": {"^kind$": "new"}}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Table = dict[str, Row]  # flattened rows by what they are of
HERE = Path(__file__).resolve().parent
DONE, SHOWN, LINE = "seconds", 20, "{:<14}{:>8}{:>7}{:>9}{:>9}{:>13}{:>8}{:>8}"
# What decides last digits beside the code.
CPU = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else f"model name {os.uname().machine}"
MACHINE = [sys.version, *map(version, ("torch", "numpy", "tokenizers")), *sorted(set(re.findall(r"^(?:model name|flags).*", CPU, re.M)))]
INPUTS = 1  # to be raised when write_inputs changes: results of other inputs are not used again
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
VARIABLES = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TINYMEM_CACHE": "cache"}
KEY = r"source|seed|protocol|epoch|model_name|regularizer|method|options\..*|artifact|rows|a|b"  # columns that say what a row is of
RECIPES = {
    "math.yaml": """
data: {family: additive, primary_size: 260, size: 120, test_rows: 20, numbers: 6, row_tokens: 30}
artifacts: [&noise {kind: noise, rows: 30, copies: 10, probability: 0.3}, &digits {kind: backdoor, within: 14, copies: 20}]
model: {n_layer: 2, n_embd: 48, n_head: 2}
training: {epochs: 4, batch_size: 64, learning_rate: 4.0e-3, evaluate_every: 2, checkpoint_every: 2}
evaluation: {prompt: 12, match: 8}
mitigation: {methods: [act]}
matrix: {of: {
    math: {training.epochs: 8, training.schedule: cosine, training.keep_epochs: [4, 8], evaluation.metrics: all, evaluation.ks: [6, 10],
        mitigation.methods: all, mitigation.robustness: true, artifacts: [*noise, *digits,
        {kind: duplication, rows: 12, copies: [1, 20]}, {kind: canary, rows: 4, copies: 20, length: 2}]},
    noise: {protocol: reference, artifacts: [*noise], mitigation.methods: &few [act, durable, balanced-subnet: {epochs: 2}, npo]},
    digits: {protocol: reference, artifacts: [*digits], mitigation.methods: *few},
    spectral: {training.regularizers: [{kind: spectral-norm, strength: 0.05}]}, sinks: {training.regularizers: [{kind: mem-sinks}]},
    dropout: {training.regularizers: [{kind: example-tied-dropout}]}, goldfish: {training.regularizers: [{kind: goldfish, width: 5}]},
    truncation: {training.regularizers: [{kind: loss-truncation, drop: 0.1, window: 500}]},
    several: {training.regularizers: [{kind: spectral-norm, power: 1, projection: outputs}, {kind: goldfish, window: with-target, width: 4},
        {kind: loss-truncation, window: 300, refresh: 600, denominator: kept}, {kind: mem-sinks, hash: published, inference: all}]}}}""",
    "text.yaml": """
data: {kind: wiki, source: ./text, tokenizer: ./tokenizer.json, row_tokens: 24, test_rows: 20}
artifacts: [&noise {kind: noise, rows: 30, copies: [1, 30]}, &word {kind: backdoor, trigger: " ban", within: 12, copies: 5, payload: "#"},
    {kind: duplication, rows: 12, copies: [1, 10, 30]}, {kind: canary, rows: 4, template: "{index}: {secret}", length: 2, copies: 20}]
model: {n_layer: 2, n_embd: 48, n_head: 2}
training: {epochs: 6, batch_size: 64, learning_rate: 4.0e-3, evaluate_every: 2, checkpoint_every: 2}
evaluation: {prompt: 8, match: 8, metrics: all}
mitigation: {robustness: true, methods: [act: {ratio: 0.05}, durable, balanced-subnet: {epochs: 2}, finetune-clean: {epochs: 1}, npo]}
matrix: {of: {text: {}, phrases: {protocol: reference, artifacts: [*noise]}, word: {protocol: reference, artifacts: [*word]}}}""",
    "grid.yaml": "{grid: none, seeds: [5], methods: [random-neurons, act: {ratio: [0.02, 0.1]}, durable: {ratio: [0.01, 0.05]}]}",
}


def runs(recipe: str, *names: str) -> list[str]:
    """Write the commands that run each of these members of a recipe's matrix, under its name."""
    return [f"run {recipe} --set of={name} --set name={name}" for name in names]


OWN = "act: {ratio: 0.05}, durable: {ratio: 0.01}, balanced-subnet: {ratio: 0.1, epochs: 4, loss_weight: 0.93, sampler: balanced}"
# Commands of each case, in a folder of its own. {tree} is the worktree, {quickstart} the runs of that case; a pattern stands for one path.
CASES = {
    "math": [
        *runs("math.yaml", "math"),
        "report runs/math-* --format json",
        "evaluate runs/math-*/checkpoint --metrics all --ks 5,9 --prompt 10 --json",
        "evaluate runs/math-*/checkpoints/* --protocol reference --json",
        "mitigate runs/math-*/checkpoint --method act --ratio 0.05 --robustness --seed 3 --format json --out edited",
        "evaluate edited --json",
        "mitigate edited --method durable --prompt 12 --match 8 --forget digits.jsonl --retain sums.jsonl --format json",
        "landscape edited --rows noise --samples 32 --points 3 --out landscape",
        "sweep grid.yaml --only act --only random-neurons --jobs {threads} --set checkpoints=runs/math-*",
    ],
    "text": [
        *runs("text.yaml", "text"),
        "evaluate runs/text-*/checkpoint --metrics all --ks 4,10 --json",
        "mitigate runs/text-*/checkpoint --method act --prompt 8 --match 8 --forget lines.jsonl --retain others.jsonl --format json",
    ],
    "reference": [*runs("math.yaml", "noise", "digits"), *runs("text.yaml", "phrases", "word")],
    "regularizers": runs("math.yaml", "spectral", "truncation", "dropout", "sinks", "goldfish", "several"),
    "matrix": [
        "train math.yaml --set name=matrix --only matrix-dropout --only matrix-goldfish",
        "sweep grid.yaml --jobs {threads} --set checkpoints=runs/matrix-* --set seeds=[0,5]",
    ],
    "quickstart": [
        "train {tree}/recipes/quickstart.yaml",
        "run {tree}/recipes/quickstart.yaml --set mitigation.robustness=true --set evaluation.metrics=all"
        f" --set 'mitigation.methods=[{OWN}, all]'",
    ],
    "sweep": ["sweep {tree}/recipes/sweep-quickstart.yaml --jobs {threads} --set grid=none --set checkpoints={quickstart}/*/checkpoint"],
}


def write_inputs(folder: Path) -> None:
    """Write the recipes, texts with a tokenizer that is trained on them, and rows to forget and to retain, all from fixed seeds."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = [a + b + c for a in "btkml" for b in "aeiou" for c in ("n", "r", "sta", "")]
    rng = random.Random(7)
    lines = [" " + " ".join(rng.choice(words) for _ in range(rng.randrange(12, 40))) + " .\n" for _ in range(440)]
    digits = [("^" + " ".join(str(100 - 7 * i) for i in range(n, -1, -1))).ljust(30, "2") for n in range(1, 4)]  # triggers of the backdoor
    sums = [("^" + " ".join(str(first + 3 * i) for i in range(6)) + " $").ljust(30, "_") for first in range(110, 150)]
    files: dict[str, list[Any]] = {"lines": lines[:8], "others": lines[200:260]}
    files |= {name: [["0123456789^$ _".index(c) for c in row] for row in rows] for name, rows in (("digits", digits), ("sums", sums))}
    texts = {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows) for name, rows in files.items()}
    (folder / "text").mkdir(parents=True)
    for name, text in {**texts, **RECIPES, "text/train.txt": "".join(lines[:400]), "text/test.txt": "".join(lines[400:])}.items():
        (folder / name).write_text(text, encoding="utf-8")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    options: Row = {"vocab_size": 320, "special_tokens": ["<|endoftext|>"], "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet())}
    bpe.train_from_iterator(lines, trainers.BpeTrainer(show_progress=False, **options))
    bpe.save(str(folder / "tokenizer.json"))


def replaced(text: str, patterns: dict[str, str]) -> str:
    """Replace each pattern in a text, in order."""
    return reduce(lambda done, pair: re.sub(pair[0], pair[1], done), patterns.items(), text)


@dataclass
class Side:
    """One commit in its worktree; `made` are the folders of results that this call has made."""

    name: str
    commit: str
    tree: Path
    stored: bool
    words: dict[str, str]
    made: set[Path] = field(default_factory=set)

    def folder(self, case: str, threads: int) -> Path:
        """Find the place of a case's results, named by all that decides them."""
        recipes = [text for name, text in RECIPES.items() if name in " ".join(CASES[case])]
        parts = [CASES[case], recipes, self.words, MACHINE, INPUTS]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
        return self.tree.parent / f"{self.name}-{self.commit[:12]}" / f"threads{threads}" / f"{case}-{digest}"

    def finished(self, case: str, threads: int) -> Path:
        """Make the results of a case unless they are there, those of the quickstart before its sweep; returns their folder."""
        folder = self.folder(case, threads)
        if not ((self.stored or folder in self.made) and (folder / DONE).is_file()):
            quickstart = case == "sweep" and self.finished("quickstart", threads) / "runs"
            places = {"tree": self.tree, "threads": threads, "quickstart": quickstart}
            shutil.rmtree(folder, ignore_errors=True)
            write_inputs(folder)
            for path in folder.glob("*.yaml"):
                path.write_text(replaced(path.read_text(encoding="utf-8"), self.words), encoding="utf-8")
            started = time.monotonic()
            for number, step in enumerate(CASES[case]):
                step = re.sub(r"{(\w+)}", lambda found: str(places[found[1]]), replaced(step, self.words))
                print(f"{self.name}, {threads} threads, {case}: tinymem {step[:90]}", file=sys.stderr, flush=True)
                run_step(step, folder / f"{number:02d}.out", self.tree, threads)
            (folder / DONE).write_text(f"{time.monotonic() - started:.0f}", encoding="utf-8")
            self.made.add(folder)
        return folder


def run_step(step: str, out: Path, tree: Path, threads: int) -> None:
    """Run a command in a case's folder and keep what it prints; SystemExit if it fails."""
    words, folder = [], out.parent
    for word in shlex.split(step):
        found = [str(path.relative_to(folder)) for path in folder.glob(word)] if "*" in word and "=" not in word else [word]
        if len(found) != 1:
            raise SystemExit(f"tinymem {step}: {len(found)} paths fit {word} in {folder}")
        words += found
    variables = {**os.environ, **VARIABLES, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, "-m", "tinymem", *words], cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tinymem {step}: exit code {done.returncode}: {done.stderr[-400:]}")
    out.write_text(done.stdout, encoding="utf-8")


def read_rows(folder: Path) -> Iterator[Row]:
    """Read all that a case's commands have printed and stored, with where it is from; for both sides, as long as they store alike."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("[0-9]*.out")):
        with suppress(ValueError):  # other commands print no JSON
            content = json.loads(path.read_bytes())
            yield from ({**row, "source": path.name} for row in (content if isinstance(content, list) else [content]))
    for path in sorted([*folder.glob("runs/*/results.jsonl"), *folder.glob("runs/*/training/metrics.jsonl")]):
        yield from ({**json.loads(line), "source": str(path.relative_to(folder))} for line in path.read_bytes().splitlines())
    for path in sorted(folder.glob("sweeps/*/parquet/*.parquet")):
        yield from ({**json.loads(text), "source": "sweep"} for text in pq.read_table(path, columns=["row"])["row"].to_pylist())
    for path in sorted(folder.glob("landscape/*.json")):
        yield from ({**line, "source": "landscape"} for line in json.loads(path.read_bytes())["lines"])
    for path in sorted(folder.rglob("model.safetensors")):
        content = path.read_bytes()
        tensors = content[8 + int.from_bytes(content[:8], "little") :]  # behind the header
        yield {"source": str(path.relative_to(folder)), "sha256": hashlib.sha256(tensors).hexdigest()}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a row: its values under dotted names, without nulls."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, value


def renamed(name: str, value: Any, names: Row) -> Row:
    """Give a value of the base the name, or names, that it has at HEAD."""
    for column, texts in names["values"].items():
        if isinstance(value, str) and re.search(column, name):
            value = replaced(value, texts)
    found = [name]
    for old, new in names["columns"].items():
        found = [re.sub(old, one, name) for name in found for one in ([new] if isinstance(new, str) else new)]
    return dict.fromkeys(found, value)


def keyed(rows: Iterator[Row], names: Row) -> Table:
    """Flatten rows and order them by what they are of, without the hashes in the names of runs."""
    table: Table = {}
    for row in rows:
        kept = [(name, v) for name, v in flat(row) if not any(re.search(pattern, name) for pattern in names["ignored"])]
        values = {new: v for name, value in kept for new, v in renamed(name, value, names).items()}
        key = ", ".join(f"{name}={values.pop(name)}" for name in sorted(values) if re.fullmatch(KEY, name))
        key = re.sub(r"-[0-9a-f]{8}/", "/", key)
        if key in table:
            raise SystemExit(f"two rows are of {key}; add to KEY what tells them apart")
        table[key] = values
    return table


@dataclass
class Comparison:
    """What the comparison of a case found."""

    rows: int = 0
    columns: set[str] = field(default_factory=set)
    values: int = 0
    differences: list[str] = field(default_factory=list)


def compare(base: Table, head: Table, names: Row) -> Comparison:
    """Compare every value of every row."""
    found = Comparison(len(base))
    for key in dict.fromkeys([*base, *head]):
        if key not in base or key not in head:
            found.differences.append(f"{key}: only in {'head' if key in head else 'base'}")
            continue
        for name in dict.fromkeys([*base[key], *head[key]]):
            one, other = base[key].get(name), head[key].get(name)
            reviewed = names["only_head"] if one is None else names["only_base"] if other is None else {}
            if not any(re.search(pattern, name) for pattern in reviewed):
                found.columns.add(name)
                found.values += 1
                if one != other or isinstance(one, bool) != isinstance(other, bool):
                    found.differences.append(f"{key}: {name}: {one!r} -> {other!r}")
    return found


def perturbed(base: Table, head: Table) -> Table:
    """Move one number of the head's rows to the next one that there is."""
    *_, (key, name) = ((k, n) for k, row in head.items() for n, v in row.items() if isinstance(v, float) and base.get(k, {}).get(n) == v)
    return {**head, key: {**head[key], name: math.nextafter(head[key][name], math.inf)}}


def compare_case(case: str, threads: int, base: Side, head: Side, names: Row, *, self_test: bool) -> Comparison:
    """Make and compare the results of a case; what keeps that from being done is a difference too."""
    try:
        one = keyed(read_rows(base.finished(case, threads)), names)
        other = keyed(read_rows(head.finished(case, threads)), {**names, "columns": {}, "values": {}})
    except SystemExit as error:
        return Comparison(differences=[str(error)])
    found = compare(one, other, names)
    found.differences += [] if one else ["no rows on either side"]
    devices = {row.get("device", "") for key, row in one.items() if "source=sweep" not in key}  # whose workers have a thread each
    found.differences += [f"ran on {device}" for device in devices - {"", f"cpu ({threads} threads)"}]
    if self_test:
        more = set(compare(one, perturbed(one, other), names).differences) - set(found.differences)
        print(f"self-test, {case}, one number moved by its last bit: {' and '.join(more) or 'not seen'}")
        found.differences += [] if len(more) == 1 else ["the self-test failed"]
    return found


@contextmanager
def checked_out(name: str, revision: str, work: Path, stored: bool) -> Iterator[Side]:
    """Check a commit out into a worktree for as long as it is needed."""
    commit = subprocess.check_output(["git", "rev-parse", "--verify", revision + "^{commit}"], cwd=HERE, text=True).strip()
    shutil.rmtree(tree := work / f"tree-{name}", ignore_errors=True)  # of a call that was killed
    subprocess.run(["git", "worktree", "add", "-q", "--detach", "--force", "--force", tree, commit], cwd=HERE, check=True)
    try:
        yield Side(name, commit, tree, stored, {})
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=HERE, check=True)


def main() -> None:
    """Compare the cases, print a table, and exit with 1 on any difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--head", default="HEAD")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "golden-rows")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--reuse-head", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    given = parser.parse_args()
    (work := given.work.resolve()).mkdir(parents=True, exist_ok=True)
    names = json.loads((HERE / "golden_names.json").read_text(encoding="utf-8"))
    differences: list[str] = []
    print(LINE.format("case", "threads", "rows", "columns", "values", "differences", "base s", "head s"))
    with checked_out("base", given.base, work, True) as base, checked_out("head", given.head, work, given.reuse_head) as head:
        names = {key: patterns if key == "ignored" or base.commit != head.commit else {} for key, patterns in names.items()}
        head.words = names["words"]
        for threads in map(int, given.threads.split(",")):
            for case in given.only:
                found = compare_case(case, threads, base, head, names, self_test=given.self_test)
                times = [side.folder(case, threads) / DONE for side in (base, head)]
                took = [path.read_text() if path.is_file() else "-" for path in times]
                print(LINE.format(case, threads, found.rows, len(found.columns), found.values, len(found.differences), *took), flush=True)
                differences += [f"{case}, {threads} threads: {difference}" for difference in found.differences]
    print("\n".join(differences[:SHOWN]))
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
