"""INJ and DEL of one model, measured in several ways: tables of their own, named by what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import tinymem

from tinymem.report.tables.localization import localization_tables
from tinymem.results.localization import read_localization
from tinymem.results.row import LocalizationRow
from tinymem.testing import tiny_model

ROW = LocalizationRow(
    id="a", method="act", artifact="sequences", status="ok", benchmark="inj", unit="neuron", model_id="m", model_name="tiny", ratio=0.05,
    top=0.05, scope="layer", score_name="recall", score=0.5, sequences=4, reached=4, steps=30.0, change=0.2, seed=0, device_type="cpu",
    settings={"steps": 30, "loss": 0.05, "learning_rate": None, "tokens": 32, "rows_id": "abcdef12"},
)  # fmt: skip
TITLE = "INJ: 5 % injected, tiny"


def other(settings=(), **columns):
    return replace(ROW, **{"id": "b", "score": 0.1, **columns, "settings": {**ROW.settings, **dict(settings)}})


def old(**columns):
    return replace(ROW, **{"id": "b", "score": 0.1, **columns, "settings": None})


def titles(*rows):
    tables = localization_tables(rows)
    assert all(len(table.rows) == 1 for table in tables) and len({table.key for table in tables}) == len(tables)
    return [table.title.removeprefix(TITLE).removeprefix(", ") for table in tables]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (other({"steps": 3}, steps=3.0), ["steps 30", "steps 3"]),
        (other({"learning_rate": 0.1, "rows_id": "99999999"}), ["learning_rate default", "learning_rate 0.1"]),
        (other({"tokens": 12, "rows_id": "99999999"}, sequences=6), ["tokens 32", "tokens 12"]),
        (other({"rows_id": "99999999"}), ["rows abcdef", "rows 999999"]),
        (other(seed=1), ["seed 0", "seed 1"]),
        (other(sequences=6), ["sequences 4", "sequences 6"]),
        (other(device_type="cuda"), ["device cpu", "device cuda"]),
        (other(dtype="bfloat16"), ["float32", "bfloat16"]),
        (old(sequences=6), ["sequences 4", "sequences 6"]),
    ],
)
def test_what_differs_has_a_table_of_its_own_which_says_it(second, expected):
    assert titles(ROW, second) == expected
    assert titles(ROW) == [""] and titles(second) == [""], "alone, a measurement is not labelled"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"model_id": "n", "run": "two"}, [" (one)", " (two)"]),
        ({"model_id": "n", "epoch": 3}, [" (epoch 2)", " (epoch 3)"]),
        ({"model_id": "n"}, [" (weights m)", " (weights n)"]),
        ({"model_id": "n", "model_name": "tiny2"}, ["", "2"]),
    ],
)
def test_models_of_one_name_are_told_apart_by_run_epoch_or_weights(second, expected):
    first = replace(ROW, run="one", epoch=2)
    assert titles(first, replace(first, **{"id": "b", **second})) == expected


def test_tables_stand_by_model_and_ratio():
    other = replace(ROW, id="b", model_id="n", model_name="big", ratio=0.05)
    tables = localization_tables(
        [replace(ROW, ratio=0.01), other, ROW, replace(ROW, benchmark="del", score_name="self_accuracy", ratio=0.1)]
    )
    expected = ["INJ: 5 % injected, big", TITLE, "INJ: 1 % injected, tiny", "DEL: 10 % dropped, tiny"]
    assert [table.title for table in tables] == expected


def test_rows_of_an_older_version_are_told_apart_by_their_injections():
    assert titles(old(id="a"), old(steps=3.0, change=0.1)) == ["steps 30", "steps 3"]
    assert titles(old(id="a"), old(change=0.1)) == ["change 0.2", "change 0.1"]
    (table,) = localization_tables([old(id="a"), old(method="ig", change=0.3)])
    assert len(table.rows) == 2, "of one scorer each, they are a benchmark that went on"


def test_rows_of_an_older_version_are_of_the_only_options_that_there_are():
    (table,) = localization_tables([ROW, old(method="ig")])
    assert table.title == TITLE and len(table.rows) == 2
    assert titles(ROW, other({"steps": 3}), old(id="c")) == ["steps 30", "steps 3", "steps unknown"]


def test_results_that_no_column_tells_apart_have_their_ids():
    (table,) = localization_tables([replace(ROW, id="1a2b3c4d"), replace(ROW, id="5e6f7a8b", score=0.1)])
    assert [line[0].small for line in table.rows] == ["run 1a2b3c", "run 5e6f7a"]
    (alone,) = localization_tables([replace(ROW, id="1a2b3c4d"), replace(ROW, id="1a2b3c4d", top=0.1)])
    assert [line[0].small for line in alone.rows] == [""]


def test_the_note_is_that_of_the_tables_own_rows():
    notes = [table.notes[0] for table in localization_tables([ROW, other({"steps": 3}, steps=3.0, reached=1)])]
    assert "4 of 4 sequences" in notes[0] and "after 30 steps" in notes[0]
    assert "1 of 4 sequences" in notes[1] and "after 3 steps" in notes[1]


def test_of_del_too():
    row = replace(ROW, benchmark="del", top=None, scope=None, score_name="self_accuracy", settings={"rows": 50, "skip_bottom": True})
    tables = localization_tables([row, replace(row, id="b", sequences=3, settings={"rows": 3, "skip_bottom": False})])
    assert [t.title for t in tables] == [f"DEL: 5 % dropped, tiny, rows {n}, skip_bottom {b}" for n, b in ((50, "true"), (3, "false"))]
    assert ["over 4 rows" in tables[0].notes[0], "over 3 rows" in tables[1].notes[0]] == [True, True]


@pytest.mark.slow
def test_the_command_stores_what_decides_its_numbers(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    command = ("localize", "inj", tmp_path / "model", "--methods", "random-neurons", "--set", "ratios=[0.1]", "--out", tmp_path / "out")
    sizes = [
        ("steps=2", "sequences={count: 2, tokens: 6}"),
        ("steps=1", "sequences={count: 2, tokens: 6}"),
        ("steps=1", "sequences={count: 3}"),
    ]
    for steps, sequences in sizes:
        assert tinymem(*command, "--set", steps, "--set", sequences).code == 0
    rows = read_localization(tmp_path / "out")
    known = {(row.settings["steps"], row.settings["tokens"], row.sequences): row.settings["rows_id"] for row in rows}
    assert set(known) == {(2, 6, 2), (1, 6, 2), (1, 12, 3)} and len(set(known.values())) == 2
    printed = tinymem("report", tmp_path / "out", "--tables", "inj").out.replace("\n", " ")
    assert [words in printed for words in ("steps 2, tokens 6", "steps 1, tokens 6", "steps 1, tokens 12")] == [True, True, True]
