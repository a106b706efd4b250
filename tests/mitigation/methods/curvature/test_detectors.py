"""Detectors of memorized rows: traces against autograd, bands that add up to the matrix, and the verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import tinymem

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation import detectors, subject
from tinymem.mitigation.detectors import band_activations, bands, relative, row_curvature, squared_norms
from tinymem.mitigation.methods.curvature._moments import counted, drawn, gradients, objectives_of, passed
from tinymem.mitigation.methods.curvature._projections import projections
from tinymem.mitigation.methods.curvature._store import spectra
from tinymem.models.adapters import logits
from tinymem.report.figures.curvature import curvature_figure
from tinymem.report.figures.files import write_figures
from tinymem.runs import curvature
from tinymem.testing import tiny_case

pytestmark = pytest.mark.usefixtures("one_thread")
ENDS = torch.tensor([12, 9, 7, 12, 5, 12])


def test_a_rows_trace_is_the_squared_gradient_of_its_weights_over_labels_that_the_model_draws() -> None:
    model, data = tiny_case("gpt")
    rows = Rows.of(data.forget.ids, end=ENDS)
    found = projections(model)
    generator = torch.Generator().manual_seed(7)
    scores = logits(model, rows.ids)[counted(rows)].float()
    labels = torch.full(rows.ids.shape, -100).masked_scatter(counted(rows), drawn(scores, generator))
    expected = []
    for ids, target in zip(rows.ids, labels, strict=True):
        loss = F.cross_entropy(logits(model, ids[None])[0], target, reduction="sum")
        made = torch.autograd.grad(loss, [model.get_parameter(p.name) for p in found])
        expected.append(sum(g.square().sum() for g in made))
    traces = row_curvature(model, rows, found, draws=1, seed=7)
    torch.testing.assert_close(traces.float(), torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_more_draws_are_a_mean() -> None:
    model, data = tiny_case("gpt")
    found, generator = projections(model), torch.Generator().manual_seed(1)
    one, other = (
        sum(squared_norms(flow) for flow in next(gradients(model, data.forget, found, objectives_of("sampled", generator))))
        for _ in range(2)
    )
    torch.testing.assert_close(row_curvature(model, data.forget, found, draws=2, seed=1), (one + other) / 2)


def test_bands_part_the_pairs_and_their_activations_add_up_to_the_matrixs_own() -> None:
    model, data = tiny_case("gpt")
    rows, found = Rows.of(data.forget.ids, end=ENDS), projections(model)
    with spectra(model, data.retain, found, "sampled", 0) as made:
        parts = bands(made[found[0].name])
    assert torch.stack(parts).sum(0).eq(1).all() and sum(bool(part.any()) for part in parts) >= 4
    driven = band_activations(model, rows, found, made)
    assert driven.shape == (4, 6, 6)
    [inputs, *_] = passed(model, rows, found)
    spectrum = made[found[0].name]
    by_hand = torch.zeros(6, 6)
    for n in range(6):
        positions = [inputs[n, t] for t in range(12) if t + 1 < ENDS[n]]
        for k, part in enumerate(parts):
            coefficients = spectrum.U_PP.T @ found[0].weight_PQ() @ spectrum.V_QQ * part
            by_hand[k, n] = sum((spectrum.U_PP @ coefficients @ spectrum.V_QQ.T @ a).norm() for a in positions) / len(positions)
    torch.testing.assert_close(driven[0], by_hand, rtol=1e-4, atol=1e-5)


def test_activations_are_relative_to_those_of_clean_rows() -> None:
    activations, clean = torch.tensor([[[2.0, 6.0]], [[3.0, 3.0]], [[1.0, 1.0]]]), torch.tensor([[[1.0, 3.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert relative(activations, clean).tolist() == [[2.0, 3.0]]


def test_half_of_few_clean_rows_measure_the_spectrum_and_one_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_rows = subject.clean_rows
    monkeypatch.setattr(subject, "clean_rows", lambda *args: all_rows(*args).take(torch.arange(9)))
    made: list[int] = []
    monkeypatch.setattr(detectors, "spectra", lambda model, rows, *rest: made.append(len(rows)) or spectra(model, rows, *rest))
    found = curvature.detect(checkpoint, device="cpu", progress=False)
    assert {line.clean for line in found} == {4} and {*made} == {5}
    monkeypatch.setattr(subject, "clean_rows", lambda *args: all_rows(*args).take(torch.arange(1)))
    with pytest.raises(UserError, match=r"expected at least 2 clean rows, .*, got 1"):
        curvature.detect(checkpoint, device="cpu", progress=False)


def test_a_band_that_no_clean_row_drives_has_no_number(tmp_path: Path) -> None:
    nothing = torch.full((3,), torch.nan)
    line = curvature._compared("noise", "rho 0.5 to 0.9", nothing, nothing, nothing)
    assert (line.ratio, line.auc, line.auc_planted, line.clean) == (None, None, None, 3)
    shown = [vars(line) | {"detector": name} for name in ("tr F", "rho 0.5 to 0.9")]
    assert len(write_figures([curvature_figure(shown)], tmp_path)) == 4


def test_where_clean_rows_score_0_only_the_ratio_has_no_number() -> None:
    nothing, all_ = torch.zeros(3), torch.ones(2)
    line = curvature._compared("noise", "tr F", nothing, all_, torch.tensor([0.0, 2.0]))
    assert (line.ratio, line.auc, line.auc_planted) == (None, 1.0, 0.5)
    assert curvature._compared("noise", "tr F", nothing, all_, nothing[:0]).auc == 1.0
    line = curvature._compared("noise", "tr F", nothing, nothing, nothing)
    assert (line.ratio, line.auc, line.auc_planted) == (None, None, None), "0 of all rows compares nothing"


def test_the_verb_compares_them_with_what_is_memorized(checkpoint: Path, tmp_path: Path) -> None:
    done = tinymem("curvature", checkpoint, "--per-group", 20, "--device", "cpu", "--out", tmp_path / "figure", "--json")
    assert done.code == 0, done.err
    lines = json.loads(done.out)
    assert {line["artifact"] for line in lines} == {"noise", "backdoor"} and len(lines) == 2 * 7
    assert all(0 <= line["AUC over clean"] <= 1 and 0 < line["memorized"] <= 20 and line["clean"] == 20 for line in lines)
    assert {path.suffix for path in (tmp_path / "figure").iterdir()} == {".png", ".svg", ".csv", ".json"}
