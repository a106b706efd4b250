"""Speed and memory of corpora: how fast text becomes rows, whether memory stays flat, how long the largest math corpus takes.

    python benchmarks/data_speed.py TEXT_FOLDER TOKENIZER_JSON [--flat-gb 1] [--workers N]

Each figure comes from a fresh process, so that its peak memory is its own. `peak` is the resident set's high-water mark, file-backed pages
included; `imports` is what the process held before it opened the text.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEBIBYTE = 1 << 20

BARE = """
import json, sys, time
import pyarrow.parquet as pq
from pathlib import Path
from tokenizers import Tokenizer
folder, tokenizer = sys.argv[1:3]
lines = [l for p in sorted(Path(folder).glob("train-*.parquet")) for l in pq.read_table(p)["text"].to_pylist() if l]
tokenizer = Tokenizer.from_file(tokenizer)
started = time.perf_counter()
tokens = 0
for first in range(0, len(lines), 1000):  # the batch size of datasets.map
    tokens += sum(len(e.ids) for e in tokenizer.encode_batch(lines[first:first + 1000], add_special_tokens=False))
print(json.dumps({"seconds": time.perf_counter() - started, "tokens": tokens}))
"""

PIPELINE = """
import json, os, sys, threading, time
from pathlib import Path
import tinymem.data.text.corpus
from tinymem.data.build import make_corpus
from tinymem.recipe.recipe import parse_recipe
import pyarrow.parquet, tokenizers, torch
def status(pid, key):
    try:
        return next(int(l.split()[1]) / 1024 for l in open(f"/proc/{pid}/status") if l.startswith(key))
    except (OSError, StopIteration):
        return 0.0
children = {}
def watch():
    while True:
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    if int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]) == os.getpid():
                        children[pid] = max(children.get(pid, 0), status(pid, "VmHWM:"))
                except OSError:
                    pass
        time.sleep(0.5)
threading.Thread(target=watch, daemon=True).start()
source, tokenizer, out, workers, artifacts = sys.argv[1:6]
recipe = parse_recipe({"data": {"kind": "wiki", "source": source, "tokenizer": tokenizer}, "artifacts": json.loads(artifacts)})
imports = status("self", "VmHWM:")
started = time.perf_counter()
corpus = make_corpus(recipe, Path(out), workers=int(workers))
print(json.dumps({
    "seconds": time.perf_counter() - started, "tokens": corpus.spec.text["train"].tokens,
    "all_tokens": sum(s.tokens for s in corpus.spec.text.values()), "imports": imports, "peak": status("self", "VmHWM:"),
    "workers_peak": max(children.values(), default=0), "workers": len(children), "sha256": corpus.sha256(),
}))
"""

MATH = """
import json, time
from tinymem.data.build import make_corpus
from tinymem.recipe.recipe import parse_recipe
import torch
torch.set_num_threads(1)
result = {}
for family in ("additive", "multiplicative"):
    for protocol in ("paper", "reference"):
        recipe = parse_recipe({"protocol": protocol, "data": {"family": family, "size": 20000}, "artifacts": [{"kind": "noise"}]})
        started = time.process_time()
        rows = make_corpus(recipe).counts()["train_rows"]
        result[f"{family} {protocol}"] = [rows, time.process_time() - started]
print(json.dumps(result))
"""

ARTIFACTS = json.dumps([{"kind": "noise", "copies": [1, 10, 100, 1000]}])


def measure(code: str, *arguments: str, cache: Path | None = None, cores: set[int] | None = None) -> dict:
    """Run code in a fresh process and read the JSON line that it prints."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **({"TINYMEM_CACHE": str(cache)} if cache else {})}
    setup = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, check=True, preexec_fn=setup)
    return json.loads(done.stdout.splitlines()[-1])


def repeated_text(folder: Path, target: Path, size: int) -> int:
    """Parquet of at least `size` bytes of text: the training text again and again, each time with a line that makes its blocks new."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = pq.read_table(sorted(folder.glob("train-*.parquet"))[0])["text"]
    rows, written, n = lines.to_pylist(), 0, 0
    target.mkdir()
    with pq.ParquetWriter(target / "train.parquet", pa.schema({"text": pa.string()})) as writer:
        while written < size:
            for first in range(0, len(rows), 20_000):
                part = [f" = Copy {n} of part {first} = \n", *rows[first : first + 20_000]]
                writer.write_table(pa.table({"text": part}), row_group_size=1_000_000)
                written += sum(len(r.encode()) for r in part)
                if written >= size:
                    break
            n += 1
    shutil.copy(sorted(folder.glob("test-*.parquet"))[0], target / "test.parquet")
    return written


def show(name: str, found: dict) -> None:
    print(
        f"{name}: {found['tokens']:,} tokens of train ({found['all_tokens']:,} with validation and test) in {found['seconds']:.1f} s = "
        f"{found['all_tokens'] / found['seconds']:,.0f} tokens/s; memory: imports {found['imports']:.0f} MB, peak {found['peak']:.0f} MB "
        f"(+{found['peak'] - found['imports']:.0f}); {found['workers']} processes of at most {found['workers_peak']:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="train-*.parquet and test-*.parquet with a column text")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--flat-gb", type=float, default=0.0, help="also make a corpus of so many GB of text by repetition")
    parser.add_argument("--skip-speed", action="store_true")
    arguments = parser.parse_args()
    folder, tokenizer = arguments.folder.resolve(), str(arguments.tokenizer.resolve())
    print(f"{arguments.workers} processes; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")

    for name, (rows, seconds) in measure(MATH, cores={min(os.sched_getaffinity(0))}).items():
        print(f"math {name}: {rows:,} training rows in {seconds:.1f} s of one core")

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if not arguments.skip_speed:
            bare = [measure(BARE, str(folder), tokenizer)]
            made = measure(PIPELINE, str(folder), tokenizer, str(place / "out"), str(arguments.workers), ARTIFACTS, cache=place / "cache")
            bare.append(measure(BARE, str(folder), tokenizer))  # before and after: the machine may be shared
            rates = [b["tokens"] / b["seconds"] for b in bare]
            print("bare encode_batch: " + ", ".join(f"{rate:,.0f} tokens/s" for rate in rates) + f" ({bare[0]['tokens']:,} tokens)")
            show("pipeline", made)
            ratio = made["all_tokens"] / made["seconds"] / (sum(rates) / len(rates))
            print(f"ratio to bare encode_batch (mean of before and after): {ratio:.2f}", flush=True)
            again = measure(PIPELINE, str(folder), tokenizer, str(place / "out"), str(arguments.workers), "[]", cache=place / "cache")
            show("again, without artifacts, from the cache", again)
        if arguments.flat_gb:
            shutil.rmtree(place / "cache", ignore_errors=True)
            started = time.perf_counter()
            size = repeated_text(folder, place / "text", int(arguments.flat_gb * 1e9))
            print(f"wrote {size:,} bytes of text in {time.perf_counter() - started:.0f} s", flush=True)
            place_of_text = str(place / "text")
            flat = measure(
                PIPELINE, place_of_text, tokenizer, str(place / "flat"), str(arguments.workers), ARTIFACTS, cache=place / "cache"
            )
            show(f"{arguments.flat_gb:g} GB", flat)
    print(f"load average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
