"""The page of many runs: small whatever the rows, every link leads somewhere, nothing is fetched."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from figure_rows import curve, row, sweep_rows, write_run, write_sweep
from helpers import tinymem

from tinymem.report.page.document import write_page
from tinymem.report.page.rows import page_rows
from tinymem.report.tables.catalogue import tables_of
from tinymem.results.collect import Results, load_results, results_of
from tinymem.results.read import read_measured, with_intervals


class Links(HTMLParser):
    """Ids and targets of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids += [value for key in ("id",) if (value := found.get(key))]
        self.targets += [value for key in ("href", "src", "xlink:href") if (value := found.get(key))]


def page(results: Results, folder: Path) -> str:
    write_page(results, tables_of(results), folder / "report.html")
    return (folder / "report.html").read_text()


def check_links(text: str, folder: Path) -> None:
    """Every link stays on the page, holds its data, or leads to a file beside it with what it names."""
    links, beside = Links(text), {}
    assert len(links.ids) == len(set(links.ids))
    ids = set(links.ids)
    for target in set(links.targets):
        name, _, anchor = target.partition("#")
        if target.startswith("data:"):
            continue
        if name:
            assert not name.startswith(("/", "http", "..", "file")), target
            assert (folder / name).is_file(), target
            if name.endswith(".html") and name not in beside:
                beside[name] = set(Links((folder / name).read_text()).ids)
        assert not anchor or anchor in (beside[name] if name else ids), target
    assert set(re.findall(r"https?://[^\"'\s<]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"url\((?!#)", text) and "@import" not in text


@pytest.mark.thorough
def test_thousands_of_rows_make_a_small_page_whose_links_all_lead_somewhere(tmp_path: Path) -> None:
    rows = list(sweep_rows(("additive",), (4,), (500,), tuple(range(160)), (3000,)))
    assert len(rows) >= 2500
    text = page(results_of(rows), tmp_path)
    assert len(text.encode()) < 3_000_000
    check_links(text, tmp_path)
    stored = [match for path in [tmp_path / "report.html", *tmp_path.glob("report-data/*.html")] for match in json_on(path)]
    assert sorted(stored) == sorted(json.dumps(with_intervals(r.as_dict()), sort_keys=True) for r in rows)  # each row once, here or beside


def json_on(path: Path) -> list[str]:
    blocks = re.findall(r'<pre id="json-[^"]*">(.*?)</pre>', path.read_text(), flags=re.DOTALL)
    return [json.dumps(json.loads(html.unescape(block)), sort_keys=True) for block in blocks]


@pytest.mark.thorough
def test_folders_of_runs_and_sweeps_are_one_page(tmp_path: Path) -> None:
    one = write_run(tmp_path / "run-a", [row(id="a"), row("durable", id="b")], curve())
    other = write_sweep(tmp_path / "sweep-b", list(sweep_rows(("wiki",), (2,), (10, 20), (0,))))
    results = load_results([one, other])
    text = page(results, tmp_path / "out")
    check_links(text, tmp_path / "out")
    for expected in (
        "run-a",
        "sweep-b",
        "Pareto fronts",
        "Unlearning over training: language + noise",
        "As the paper&#39;s Figure 10.",
        "How to read it",
    ):
        assert expected in text
    assert 'href="#json-a-noise"' in text and '<pre id="json-a-noise">' in text
    assert not (tmp_path / "out" / "report-data").exists()  # all of it fits on the page


@pytest.mark.slow
def test_the_verb_writes_figures_with_their_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run-a", [row(id="a"), row("durable", id="b")], curve())
    done = tinymem("report", run, "--format", "svg")
    assert done.code == 0, done.err
    assert sorted(Path(line).name for line in done.out.splitlines()) == [
        f"{figure}.{suffix}" for figure in ("figure-05", "figure-06a", "figure-06b", "pareto") for suffix in ("csv", "json", "svg")
    ]
    assert all((run / "figures" / Path(line).name).is_file() for line in done.out.splitlines())
    assert "not drawn: Methods over all models (the paper's Figure 3): needs results on at least two models" in done.err
    empty = write_run(tmp_path / "run-b", [], [])
    assert "expected rows for a figure" in tinymem("report", empty, "--format", "png", "--out", tmp_path / "no").last_line_error()
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_failures_are_counted_by_message_and_text_is_escaped(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"status": "failed", "message": "<b>boom</b>", "memorized_after": None, "performance_after": None}
    rows = [row(id="ok"), *(row("sou", seed=i, id=f"bad{i}", **bad) for i in range(3)), row("<i>x</i>", id="odd", model_name="<u>")]
    text = page(results_of(rows), tmp_path)
    assert '<td data-value="3"><a href="#json-bad0-noise" class="number" title="bad0-noise">3</a>' in text
    assert '<td class="words">&lt;b&gt;boom&lt;/b&gt;</td>' in text
    assert "<i>x" not in text and "<u>" not in text and "<b>boom" not in text
    check_links(text, tmp_path)


@pytest.mark.slow
def test_odd_numbers_and_missing_columns_do_not_break_it(tmp_path: Path) -> None:
    odd = [
        row(id="1", memorized_before=None, memorized_after=None),
        row(id="2", performance_after=None, performance_metric="perplexity", seconds=None, peak_mb=None),
        row("zero", id="3", before=0.0, after=0.0, epoch=None, n_layer=None, data=None, data_size=None, seed=None),
        read_measured({"method": "greedy", "artifact": "rows", "status": "ok"}, "bare"),
        read_measured({"method": "ig", "artifact": "noise", "status": "timeout"}, "bare"),
    ]
    text = page(results_of(odd), tmp_path)
    assert ">None<" not in text and "nan" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL).lower()
    check_links(text, tmp_path)
    check_links(page(results_of([]), tmp_path / "empty"), tmp_path / "empty")


@pytest.mark.slow
def test_two_writes_give_equal_bytes(tmp_path: Path) -> None:
    results = results_of(list(sweep_rows(("additive",), (2,), (500,), (0,), (3000,)))[:6])  # of one method: few figures
    assert page(results, tmp_path / "a") == page(results, tmp_path / "b")


@pytest.mark.parametrize("budget", [0, 5000, 10**9])
def test_rows_are_on_the_page_or_beside_it_in_order_of_importance(budget: int) -> None:
    known = {r.source: r for r in (row(seed=i, id=f"r{i}") for i in range(6))}
    kept = page_rows(known, ["r4-noise", "r2-noise", "nowhere"], "d", budget)
    assert set(kept.links) == set(known)
    assert list(kept.embedded)[:2] == ["r4-noise", "r2-noise"][: len(kept.embedded)]
    assert len(kept.embedded) == {0: 0, 5000: 2, 10**9: 6}[budget]
    assert all(link.startswith("#json-" if source in kept.embedded else "d/rows-0001.html#json-") for source, link in kept.links.items())
