"""Bad input: one line that says what to do, exit code 2, nothing half-written, and the next run goes on."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICKSTART, SMALLER, half_written, sets, tinymem

from tinymem.cli import main as cli
from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.kinds import ARTIFACTS
from tinymem.runs.pipeline import Run
from tinymem.testing import tiny_model


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def act(folder: Path, *words: object) -> str:
    return tinymem("mitigate", folder, "--method", "act", *words).one_line_error()


def test_recipe_with_a_typo(tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text(QUICKSTART.read_text().replace("n_layer:", "n_layr:"))
    done = tinymem("run", tmp_path / "typo.yaml", "--runs", tmp_path / "runs")
    assert done.one_line_error() == "unknown key 'model.n_layr'; did you mean 'n_layer'?"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["mitigation.methods=durabel"], "did you mean 'durable'"),
        (["mitigation.methods=[{act: {rato: 1}}]"], "did you mean 'ratio'"),
        (["mitigation.methods=[{act: {ratio: 2}}]"], "expected ratio in [0, 1], got 2"),
        (["model.n_head=5"], "a multiple of model.n_head"),
        (["data.row_tokens=24"], "data.row_tokens"),
        (["artifacts.noise.rows=999"], "artifacts.noise.rows"),
        (["artifacts.backdoor.trigger='99999'"], "occurs in no"),
        (["artifacts.backdoor.trigger='abc'"], "'a'"),
    ],
)
def test_recipes_that_cannot_work(tmp_path: Path, overrides: list[str], words: str) -> None:
    done = tinymem("run", QUICKSTART, *sets([*SMALLER, *overrides]), "--runs", tmp_path / "runs")
    assert words in done.last_line_error()
    assert not list(tmp_path.rglob("*.safetensors")) and not half_written(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    for words in (("run", "none.yaml"), ("train", "none.yaml")):
        assert "expected a recipe at none.yaml, found none" in tinymem(*words, "--runs", tmp_path).one_line_error()
    assert "found none" in act(tmp_path / "none")
    (tmp_path / "file").touch()
    assert f"expected a checkpoint folder at {tmp_path / 'file'}, got a file" in act(tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    said = tinymem("run", tmp_path / "run", "--runs", tmp_path).one_line_error()
    assert said == f"expected a recipe file, got the folder {tmp_path / 'run'}; try {tmp_path / 'run' / 'recipe.yaml'}"
    assert "found none" in tinymem("evaluate", tmp_path / "none").one_line_error()
    assert "found none" in tinymem("report", tmp_path / "none").one_line_error()
    assert "expected a Python file for a plugin, found none" in act(tmp_path / "none", "--plugin", tmp_path / "none.py")


def test_truncated_weights(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in act(folder, "--out", tmp_path / "out") and "damaged" in tinymem("evaluate", folder).one_line_error()
    assert not (tmp_path / "out").exists()


def test_truncated_weights_of_another_family(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    path = tmp_path / "llama" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    rows = tmp_path / "rows.npy"
    np.save(rows, np.ones((4, 12), dtype=int))
    assert "whole safetensors file" in act(tmp_path / "llama", "--forget", rows, "--retain", rows, "--prompt", 3)


def test_another_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    assert "BertForMaskedLM" in act(folder) and "BertForMaskedLM" in tinymem("evaluate", folder).one_line_error()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ratio", "2"], "expected ratio in [0, 1], got 2; it is a share: try ratio=0.05"),
        (["--ratio=-1"], "got -1"),
        (["--ratio", "lots"], "option 'ratio' of act"),
        (["--ratio", "1e-6"], "the smallest that acts is"),
        (["--rato", "0.1"], "did you mean 'ratio'"),
        (["--ratio"], "expected a value after '--ratio'"),
        (["--scope", "everything"], "option 'scope' of act"),
        (["0.05"], "expected a method option"),
        (["--device", "tpu"], "auto, cpu or cuda"),
        (["--prompt", "29"], "evaluation.prompt + evaluation.match"),
        (["--forget", "rows.npy"], "expected a file or folder for --forget at rows.npy, found none"),
        (["--forget-fraction", "0"], "expected --forget-fraction above 0 and at most 1, got 0"),
    ],
)
def test_wrong_options_of_mitigate(checkpoint: Path, words: list[str], message: str) -> None:
    assert message in tinymem("mitigate", checkpoint, "--method", "act", *words).last_line_error()


@pytest.mark.parametrize(
    "words",
    [
        ["mitigate"],
        ["mitigate", "folder"],
        ["no-such-verb"],
        ["run", "a", "b"],
        ["report", "x", "--format", "pdf"],
        ["new", "method", "Not Good"],
        ["new", "methods", "mine"],
    ],
)
def test_wrong_words(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tinymem(*words).one_line_error()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a test's plugin registers does not stay."""
    with UNLEARNERS.temporary():
        yield


METHOD = """
import torch
from tinymem import AblationConfig, Properties, Scores, scorer
from tinymem.models.adapters import mlp_parameters

@scorer("mine", config={config}, properties=Properties(unit="weight", order="zeroth"))
def mine(model, data, config):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "config", "message"),
    [
        ("raise ValueError('no\\nluck')", "AblationConfig", "mine failed: ValueError: no luck (mine.py, line 8)"),
        ("raise SystemExit(3)", "AblationConfig", "expected mine to return or to raise an error, got SystemExit: 3 (mine.py, line 8)"),
        ("torch.ones(2) @ torch.ones(3)", "AblationConfig", "(mine.py, line 8)"),
        ("return None", "AblationConfig", "expected Scores from the method, got NoneType"),
        ("return Scores('weight', {})", "AblationConfig", "expected scores of some tensors, got none"),
        (
            "return Scores('weight', {'nope': torch.ones(3)})",
            "AblationConfig",
            "expected names of weight tensors, got 'nope' of shape (3,)",
        ),
        (
            "return Scores('neuron', {n: p for n, p in mlp_parameters(model).items()})",
            "AblationConfig",
            "expected scores of each weight from mine",
        ),
        ("return Scores('weight', {n: p[0] for n, p in mlp_parameters(model).items()})", "AblationConfig", "expected scores of shape ("),
        (
            "return Scores('weight', {n: p / 0 * 0 for n, p in mlp_parameters(model).items()})",
            "AblationConfig",
            "got NaN in 'transformer.h.0",
        ),
        (
            "return None",
            "dict",
            "expected a frozen dataclass as config of method 'mine', got <class 'dict'>; derive it from AblationConfig",
        ),
    ],
)
@pytest.mark.usefixtures("forgotten")
def test_methods_that_are_none(checkpoint: Path, tmp_path: Path, body: str, config: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(METHOD.format(body=body, config=config))
    words = ("--plugin", tmp_path / "mine.py", "--method", "mine", "--ratio", "0.05", "--out", tmp_path / "out")
    assert message in tinymem("mitigate", checkpoint, *words).last_line_error()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["def x(:", "raise RuntimeError('boo')", "import nope_nope", "import sys; sys.exit(3)", "\x00"])
def test_plugins_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    assert (
        f"the plugin {tmp_path / 'broken.py'} failed while it was read"
        in tinymem("methods", "--plugin", tmp_path / "broken.py").one_line_error()
    )


def test_a_plugin_that_exits_while_a_corpus_is_made(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "docs" / "extending.md").read_text().split("```python\n")
    text = next(block for block in example if "class Backwards" in block).split("```")[0]
    (tmp_path / "mine.py").write_text(text.replace("        copies[::4] = 0\n", "        raise SystemExit(0)\n"))
    with ARTIFACTS.temporary():
        words = ("--plugin", tmp_path / "mine.py", "--set", "artifacts=[{kind: backwards}]", "--out", tmp_path / "corpus")
        error = tinymem("data", "make", QUICKSTART, *words).last_line_error()
    assert re.search(r"expected plugins to return or to raise an error, got SystemExit: 0 \(mine\.py, line \d+\)", error)


@pytest.mark.parametrize("name", ["act", "class"])
def test_names_that_are_taken(tmp_path: Path, name: str) -> None:
    assert "a name that is not taken" in tinymem("new", "method", name, "--dir", tmp_path).one_line_error()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["file", "file/inside"])
def test_a_file_where_a_sweep_should_be(checkpoint: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "sweep.yaml").write_text(f"checkpoints: {checkpoint}\nmethods: act\ngrid: none\n")
    said = tinymem("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / folder).one_line_error()
    assert "for --out, got" in said and str(tmp_path / folder) in said and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("group", ["data", "bench"])
def test_a_group_without_its_command(group: str) -> None:
    assert tinymem(group).one_line_error() == f"expected a command, got none; see tinymem {group} --help"


def test_out_exists(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    assert "expected a new folder for --out" in act(checkpoint, "--out", tmp_path)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.txt", b"1 2 3", "expected rows as .npy, .pt, .bin, .parquet, .jsonl"),
        ("rows.npy", b"no array", "NumPy array"),
        ("rows.npy", np.lib.format.magic(1, 0) + b"\x40\x00{'descr': '|O', ", "NumPy array"),
        ("rows.npy", np.lib.format.magic(1, 0) + b"\x10\x00{'descr': '|O', ", "NumPy array"),
        ("rows.parquet", b"PAR1", "Parquet"),
        ("rows.jsonl", b"[1, 2]\n[1, 2", "line 2"),
        ("rows.jsonl", b'{"words": [1]}\n', "`input_ids`, `tokens`, `text`"),
        ("rows.jsonl", b'[1, 2]\n["a"]\n', "token ids or text"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.jsonl", b'"12 hello"\n', "cannot encode"),
        ("rows.jsonl", b"[1, 2, 3, 14]\n", "token ids from 0 to 13"),
        ("rows.jsonl", b"[1, 2, 3]\n", "rows of 15 tokens (prompt 3 and match 12)"),
    ],
)
def test_rows_that_are_none(checkpoint: Path, tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "good.npy", np.ones((4, 12), dtype=int))
    assert message in act(checkpoint, "--forget", tmp_path / name, "--retain", tmp_path / "good.npy", "--prompt", 3)


def test_rows_that_pickle(checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([["a", 1]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "good.npy", np.ones((4, 12), dtype=int))
    assert "NumPy array" in act(checkpoint, "--forget", tmp_path / "rows.npy", "--retain", tmp_path / "good.npy")


def test_a_foreign_checkpoint_has_no_corpus(tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path / "gpt2")
    assert "--forget and --retain" in act(tmp_path / "gpt2")
    assert "no tinymem.json" in tinymem("evaluate", tmp_path / "gpt2").one_line_error()


def test_a_changed_corpus(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    path = run / "corpus" / "clean.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    assert "make the corpus again" in tinymem("evaluate", run / "checkpoint").one_line_error()


def test_reports_of_damaged_runs(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    with (run / "results.jsonl").open("a") as file:
        file.write('{"method": ')
    assert "line 9" in tinymem("report", run).one_line_error()
    (run / "results.jsonl").unlink()
    assert "found none" in tinymem("report", run).one_line_error()


def test_a_memory_that_is_used_up_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise MemoryError

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which `main` sets
    monkeypatch.setattr(cli, "_command", full)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1 and capsys.readouterr().err.startswith("tinymem: the memory is used up")
