"""Saved corpora: what is read back, what `datasets` reads, what a changed byte does; and the exposure of canaries."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from helpers import ROOT, python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

from tinymem.cli.main import app
from tinymem.data.artifacts.canary import CanaryArtifact, nth_secret, random_secrets
from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.corpus_files import _arrow_column, load_corpus, save_corpus, verify_corpus
from tinymem.data.math.sequences import to_text
from tinymem.data.rows import compact_rows, to_ids
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.exposure import exposure_of_rank, exposures
from tinymem.evaluation.probes import Probe
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.recipe import Evaluation, dump_recipe, parse_recipe

RECIPE = parse_recipe(
    {
        "name": "small",
        "data": {"primary_size": 300, "size": 100, "test_rows": 30, "numbers": 6, "row_tokens": 40},
        "artifacts": [
            {"kind": "noise", "rows": 20, "copies": [1, 10]},
            {"kind": "backdoor", "within": 12, "trigger": "10"},
            {"kind": "duplication", "rows": 10, "copies": [1, 10]},
            {"kind": "canary", "rows": 3, "length": 2, "copies": 4},
        ],
        "evaluation": {"prompt": 12, "match": 12},
    }
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(RECIPE)


@pytest.fixture(scope="module")
def saved(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "corpus"
    save_corpus(corpus, directory)
    return directory


def test_what_is_saved_is_read_back(corpus: Corpus, saved: Path) -> None:
    loaded = load_corpus(saved)
    assert loaded.sha256() == corpus.sha256()
    assert loaded.counts() == corpus.counts()
    assert (loaded.planted["canary"].end == corpus.planted["canary"].end).all()
    assert loaded.planted["noise"].end is None


def test_hash_follows_every_column(corpus: Corpus) -> None:
    rows = corpus.clean.copy()
    rows[3, 4] ^= 1
    noise = corpus.planted["noise"]
    changed = [
        replace(corpus, clean=rows),
        replace(corpus, spec=corpus.spec.model_copy(update={"seed": 9})),
        replace(corpus, planted={**corpus.planted, "noise": replace(noise, copies=noise.copies + 1)}),
        replace(corpus, planted={k: v for k, v in corpus.planted.items() if k != "canary"}),
    ]
    assert len({c.sha256() for c in [corpus, *changed]}) == 5


@pytest.mark.parametrize("name", ["clean", "test", "noise", "backdoor", "duplication", "canary"])
def test_datasets_reads_every_row_set(name: str, corpus: Corpus, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    split = "test" if name == "test" else "train"
    table = datasets.load_dataset(str(saved), name)[split]
    expected = {"clean": corpus.clean, "test": np.concatenate(list(corpus.tests.values()))}
    rows = expected[name] if name in expected else corpus.planted[name].ids
    assert (np.array(table["ids"]) == rows).all()
    if name not in expected:
        assert table["copies"] == corpus.planted[name].copies.tolist()
    if name == "clean":
        assert datasets.load_dataset(str(saved))["train"].num_rows == len(rows)


def test_card_says_what_is_in_it(corpus: Corpus, saved: Path) -> None:
    text = (saved / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "apache-2.0"
    assert [c["config_name"] for c in header["configs"]] == ["clean", "test", "noise", "backdoor", "duplication", "canary"]
    assert corpus.sha256() in text and "seed 0" in text and "Protocol `paper`" in text
    assert f"{corpus.counts()['train_rows']:,}" in text


@pytest.mark.slow
@given(draw=st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_found(draw: st.DataObject, saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(saved, copy)
    assert verify_corpus(copy) == []
    path = draw.draw(st.sampled_from(sorted(copy.iterdir())))
    content = bytearray(path.read_bytes())
    content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert verify_corpus(copy)


def test_missing_and_foreign_files_are_found(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / "noise.parquet").unlink()
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    assert verify_corpus(tmp_path / "copy") == ["noise.parquet: missing", "notes.txt: not part of the corpus"]
    with pytest.raises(UserError, match=r"noise\.parquet"):
        load_corpus(tmp_path / "copy")
    with pytest.raises(UserError, match="SHA256SUMS"):
        verify_corpus(tmp_path)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sums_are_those_of_sha256sum(saved: Path) -> None:
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=saved, check=False).returncode == 0


def test_compact_rows_keep_every_id() -> None:
    for ids in (np.array([[0, 255]], np.uint8), np.array([[0, 40_000, 65_535]], np.uint16), np.array([[0, 100_000]], np.uint32)):
        read_only = ids.copy()
        read_only.flags.writeable = False
        assert to_ids(compact_rows(read_only)).tolist() == ids.tolist()


def test_shares_per_duplication_class(corpus: Corpus) -> None:
    evaluator = Evaluator.of_corpus(corpus, Evaluation(prompt=12, match=12), "paper")
    measured = evaluator.measure(GPT(GPTConfig(n_positions=40, n_layer=1, n_embd=16, n_head=2)))
    classes = evaluator.by_copies(measured, "duplication")
    assert {c: share.rows for c, share in classes.items()} == {"1": 5, "10": 5}
    assert sum(s.count for s in classes.values()) == measured.memorized_share("duplication").count
    assert evaluator.by_copies(measured, "canary") == {}


def test_a_class_without_scored_rows_is_there_with_none(corpus: Corpus) -> None:
    evaluator = Evaluator.of_corpus(corpus, Evaluation(prompt=12, match=12), "paper")
    probe = evaluator.probes["duplication"]
    once = np.flatnonzero(probe.copies == 1)
    fewer = Probe(
        probe.rows.take(torch.from_numpy(once)), probe.index[once], probe.trained[once], probe.prompt_changed[once], probe.copies[once]
    )
    evaluator = replace(evaluator, probes={"duplication": fewer})
    classes = evaluator.by_copies(evaluator.measure(GPT(GPTConfig(n_positions=40, n_layer=1, n_embd=16, n_head=2))), "duplication")
    assert {c: (share.rows, share.share is None) for c, share in classes.items()} == {"1": (5, False), "10": (0, True)}


def test_every_duplicated_row_and_secret_is_scored(corpus: Corpus) -> None:
    probes = Evaluator.of_corpus(corpus, Evaluation(prompt=12, match=12), "paper").probes
    assert len(probes["duplication"]) == 10 and len(probes["canary"]) == 3
    canary = probes["canary"].rows
    assert [to_text(row[a:b].numpy()) for row, a, b in zip(canary.ids, canary.prompt, canary.end, strict=True)] == [
        to_text(row[a:b]) for row, a, b in zip(*[getattr(corpus.planted["canary"], k) for k in ("ids", "start", "end")], strict=True)
    ]


# ---- exposure -----------------------------------------------------------------------------------------------------------------------


class Knows(nn.Module):
    """Logits that favor, at each position, the token that row `known` has there."""

    def __init__(self, known: np.ndarray, strength: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.known, self.strength = torch.from_numpy(known.astype(np.int64)), strength

    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_TV = torch.zeros(ids_BT.shape[1], 14)
        following = self.known[1 : ids_BT.shape[1] + 1]
        logits_TV[torch.arange(len(following)), following] = self.strength
        return logits_TV.expand(len(ids_BT), -1, -1)


def test_a_known_secret_has_the_largest_exposure_and_a_disliked_one_none(corpus: Corpus) -> None:
    row = corpus.planted["canary"].ids[1]
    known = exposures(Knows(row, 5.0), corpus)[1]
    assert (known.rank, known.ranked, known.exact, known.copies) == (1, 100, True, 4)
    assert known.exposure == pytest.approx(math.log2(100))
    assert exposures(Knows(row, -5.0), corpus)[1].exposure == 0
    assert exposures(Knows(row, 0.0), corpus)[1].exposure == 0, "equal losses share the worst rank"


def test_exposure_by_plain_enumeration(corpus: Corpus) -> None:
    model = GPT(GPTConfig(n_positions=40, n_layer=1, n_embd=16, n_head=2), seed=3).eval()
    canary = corpus.planted["canary"]
    row, start, end = canary.ids[0].astype(np.int64), int(canary.start[0]), int(canary.end[0])
    losses = {}
    for n in range(100):
        ids = torch.from_numpy(row.copy())[None]
        ids[0, start], ids[0, end - 1] = n // 10, n % 10
        with torch.no_grad():
            losses[n] = -float(torch.log_softmax(model(ids)[0, start - 1 : end - 1], -1).gather(1, ids[0, start:end, None]).sum())
    own = losses[int(row[start]) * 10 + int(row[end - 1])]
    assert exposures(model, corpus, batch_size=7)[0].rank == sum(loss <= own + 1e-6 for loss in losses.values())


def test_large_spaces_are_sampled() -> None:
    recipe = RECIPE.model_copy(update={"artifacts": (CanaryArtifact(rows=2, length=8),)})
    corpus = make_corpus(recipe)
    found = exposures(Knows(corpus.planted["canary"].ids[0], 5.0), corpus, limit=200)[0]
    assert found.space == 10**8 and not found.exact and found.ranked == 201
    assert found.exposure == pytest.approx(math.log2(201))


def test_secrets() -> None:
    artifact = CanaryArtifact(alphabet="abc", length=3, rows=5)
    assert len({nth_secret(artifact, n) for n in range(27)}) == 27 and nth_secret(artifact, 5) == "abc"[0] + "b" + "c"
    assert len(set(random_secrets(artifact, 27, np.random.default_rng(0)))) == 27
    assert exposure_of_rank(1, 8) == 3.0


def test_exposure_needs_canaries(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="kind: canary"):
        exposures(Knows(corpus.clean[0], 1.0), replace(corpus, planted={}))


# ---- tinymem data -------------------------------------------------------------------------------------------------------------------


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.slow
def test_make_inspect_verify(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(dump_recipe(RECIPE))
    out = tmp_path / "out"
    code, text = invoke("data", "make", tmp_path / "r.yaml", "--set", "seed=3", "--out", out)
    assert code == 0 and "training rows" in text
    facts = json.loads(invoke("data", "inspect", out, "--json")[1])
    wanted = "protocol seed train_rows test_rows artifact_rows artifact_rows_changed artifact_rows_scored artifact_test_rows triggered_rows"
    assert {*wanted.split(), "tokens", "sha256"} <= facts.keys()
    assert facts["seed"] == 3 and facts["test_rows"] == 150 and facts["sha256"] == load_corpus(out).sha256()
    assert invoke("data", "verify", out) == (0, f"{out}: as it was written\n")
    (out / "README.md").write_text("other")
    assert invoke("data", "verify", out) == (1, "README.md: changed\n")
    with pytest.raises(UserError, match="changed"):
        invoke("data", "inspect", out)


def test_samples_mark_what_was_planted(saved: Path, corpus: Corpus) -> None:
    text = "".join(invoke("data", "inspect", saved, "--rows", 2)[1].split())
    canary = corpus.planted["canary"]
    assert f"[[{to_text(canary.ids[0][canary.start[0] : canary.end[0]]).replace(' ', '')}]]" in text
    assert "10[[2222" in text and "holdout" not in text.split("duplication")[-1]


def test_make_does_not_overwrite_what_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(dump_recipe(RECIPE))
    with pytest.raises(UserError, match="--out"):
        invoke("data", "make", tmp_path / "r.yaml", "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize("name", ["math-noise", "math-backdoor", "language-noise", "language-backdoor"])
def test_recipes_of_the_paper_are_valid(name: str) -> None:
    from tinymem.recipe.recipe import load_recipe

    recipe = load_recipe(ROOT / "recipes" / "paper" / f"{name}.yaml")
    assert recipe.name == name and recipe.data.kind == ("math" if "math" in name else "wiki")
    assert (recipe.data.row_tokens, recipe.training.batch_size, recipe.training.learning_rate) == (150, 128, 1e-3)


def test_columns_are_those_of_pyarrow() -> None:
    for values in (np.arange(7, dtype=np.int32), np.arange(21) % 3 > 0, np.arange(6, dtype=np.uint8)[::2], np.zeros(0, bool)):
        assert _arrow_column(pa, values).equals(pa.array(values))
    rows = np.arange(20).reshape(4, 5) % 3 > 0
    assert _arrow_column(pa, rows).to_pylist() == rows.tolist()


@pytest.mark.processes
def test_writing_does_not_import_pandas(tmp_path: Path) -> None:
    write = "_write_parquet(Path(sys.argv[1]), {'a': np.eye(3) > 0}); assert 'pandas' not in sys.modules"
    imports = "import sys; from pathlib import Path; import numpy as np; from tinymem.data.corpus_files import _write_parquet"
    done = python("-c", f"{imports}; {write}", tmp_path / "a.parquet")
    assert done.code == 0, done.err
