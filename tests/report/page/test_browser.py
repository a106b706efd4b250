"""The page in headless Chromium: nothing overflows, everything is legible in light and dark, and it opens with the best stored row."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from figure_rows import curve, row, write_run

from tinymem.report.page.document import write_html
from tinymem.report.page.outcome import best_first
from tinymem.results.run_folder import RunRecord, load_run
from tinymem.results.shown import Said, ShownRow, write_shown

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--headless --hide-scrollbars --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
WIDTHS = (360, 800, 1400)
# A frame of each width, since a window of Chromium is at least 500 pixels wide; what it measures is the text of the page.
PROBE = """<!doctype html><meta charset="utf-8"><body><script>
const lum = c => { const v = c.slice(0, 3).map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
const over = (top, below) => top.slice(0, 3).map((x, i) => x * top[3] + below[i] * (1 - top[3])).concat(1);
const backdrop = (element, view) => { const found = [];
  for (let at = element; at; at = at.parentElement) found.push(parse(view.getComputedStyle(at).backgroundColor));
  return found.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]); };
const contrasts = doc => { const view = doc.defaultView, bad = [];
  for (const details of doc.querySelectorAll("details")) details.open = true;
  const walk = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const text = walk.currentNode, element = text.parentElement;
    if (!text.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = view.getComputedStyle(element), svg = element.closest("svg");
    const paint = svg && /^rgb/.test(style.fill) ? style.fill : style.color, ground = backdrop(svg ? svg.parentElement : element, view);
    if (svg && paint !== view.getComputedStyle(svg).color) continue;  // numbers on colored cells are their figure's own
    const [a, b] = [lum(over(parse(paint), ground)), lum(ground)].sort((x, y) => y - x), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700), ratio = (a + .05) / (b + .05);
    if (ratio < (large ? 3 : 4.5)) bad.push([element.tagName, text.data.trim().slice(0, 30), ratio.toFixed(2)]); }
  return bad; };
const measure = width => new Promise(done => { const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`; frame.src = "report.html";
  frame.onload = () => { const doc = frame.contentDocument, root = doc.documentElement, wide = [];
    const found = { width: root.clientWidth, scroll: root.scrollWidth, bad: contrasts(doc), first: doc.querySelector("p").textContent,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches };
    for (const element of doc.body.querySelectorAll("*")) if (element.getBoundingClientRect().right > root.clientWidth + 1
      && !element.parentElement.closest(".scroll, .drawing, pre, svg")) wide.push(element.tagName + "." + element.className);
    found.wide = wide.slice(0, 5); frame.remove(); done(found); };
  document.body.append(frame); });
(async () => { const found = []; for (const width of WIDTHS) found.push(await measure(width));
  const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out); })();
</script>"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run whose page has every section, with long words in it."""
    methods = [("act", 0.3), ("durable", 0.2), ("balanced-subnet", 0.02), ("x" * 60, 0.4)]
    rows = [row(method, artifact, id=method, after=after) for method, after in methods for artifact in ("noise", "backdoor")]
    run = write_run(
        tmp_path_factory.mktemp("runs") / "run-a", [*rows, row("sou", id="sou", status="failed", message="no luck " * 20)], curve()
    )
    said = (Said("trained model", "7 " * 60, (), 0, 120), Said("act", "7" * 120, ((2, 60),), 58, 120))
    write_shown(run, "trained", [ShownRow("noise", 3, "forget", "1" * 200, "7 " * 60, said)])
    return load_run(run)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
@pytest.mark.processes
@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(scheme: str, record: RunRecord, tmp_path: Path) -> None:
    write_html(record, tmp_path / "report.html")
    for found, width in zip(measured(tmp_path, scheme), WIDTHS, strict=True):
        assert (found["width"], found["dark"]) == (width, scheme == "dark")
        assert (found["scroll"] <= width, found["wide"]) == (True, []), f"overflow at {width}"
        assert found["bad"] == [], f"contrast below WCAG AA, {scheme}"
        best = best_first(record.rows)[0]
        assert found["first"].startswith(f"{best.method} ") and f"{best.memorized_count_after} of {best.rows_scored}" in found["first"]


def measured(folder: Path, scheme: str) -> list[dict[str, Any]]:
    """What the probe finds at each width."""
    (folder / "probe.html").write_text(PROBE.replace("WIDTHS", json.dumps(WIDTHS)))
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    words = [str(BROWSER), *FLAGS.split(), "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *dark]
    command = [*words, "--virtual-time-budget=20000", "--window-size=1600,1000", "--dump-dom", f"file://{folder / 'probe.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    answer = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert answer, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(answer[1]))
    return found
