"""The page in a real browser with the network off, as wide as a desk's and as a phone's. Needs Debian's chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.handover.report import write_report
from pharos.plan.ledger import Ledger

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000"),
)
FIGURES = {"curves", "against", "coordinates", "importance", "rungs", "seats"}

# Before anything of the page runs: all that a console would show as an error, and all that the page's policy refuses.
LISTEN = """<script>
window.complaints = [];
const complain = (text) => window.complaints.push(String(text));
addEventListener("error", (event) => complain(event.message));
addEventListener("unhandledrejection", (event) => complain(event.reason));
addEventListener("securitypolicyviolation", (event) => complain(`${event.violatedDirective} ${event.blockedURI}`));
for (const level of ["error", "warn"]) console[level] = (...told) => complain(told.join(" "));
</script>"""
# After it has drawn: what is there, and what sticks out. A page of a file may not look into its frame, so that tells.
TELL = """<script>
const MARKS = ".scatterlayer path, .barlayer path, .parcoords .axis, .gl-canvas";
const tell = () => {
  const figures = [...document.querySelectorAll("[data-figure]")];
  if (figures.some((figure) => !figure.dataset.drawn)) return setTimeout(tell, 50);
  const inside = [...document.querySelectorAll("body *")].filter((one) => !one.closest("table, pre *, svg *"));
  document.querySelector("table.sortable th:nth-child(2) button").click();
  parent.postMessage({
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    wider: inside.filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML),
    marks: Object.fromEntries(figures.map((one) => [one.dataset.figure, one.querySelectorAll(MARKS).length])),
    axes: document.querySelectorAll(".parcoords .axis").length,
    sorted: [...document.querySelectorAll("table.sortable td:nth-child(2)")].slice(0, 3).map((one) => one.textContent),
    complaints: window.complaints,
  }, "*");
};
tell();
</script>"""
FRAME = """<!doctype html><iframe src="page.html" style="width: {width}px; height: 2000px; border: 0"></iframe>
<pre id="told"></pre>
<script>addEventListener("message", (event) => (told.textContent = JSON.stringify(event.data)));</script>"""


def opened(page: Path, directory: Path, *, width: int) -> dict[str, Any]:
    """What the page told from a frame of this width; a window of its own cannot be as narrow as a phone."""
    text = page.read_text(encoding="utf-8")
    text = text.replace("<title>", f"{LISTEN}<title>", 1).replace("</body>", f"{TELL}</body>", 1)
    (directory / "page.html").write_text(text, encoding="utf-8")
    (directory / "frame.html").write_text(FRAME.format(width=width))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={directory / 'profile'}", "--window-size=1400,2100", "--dump-dom"]
    run = subprocess.run(
        [*command, (directory / "frame.html").as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    told = re.search(r'<pre id="told">(.+?)</pre>', run.stdout, re.DOTALL)
    assert told, run.stdout[-2000:] + run.stderr[-2000:]
    return dict(json.loads(html.unescape(told[1])))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("num_trials", "width"), [(12, 390), (12, 1280), (1000, 390)])
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_page(num_trials: int, width: int, tmp_path: Path) -> None:
    happening = Happening(diverging=frozenset({5}), lost_at=frozenset({3}), resumed_at=frozenset({6}))
    spec = simulated_spec(num_trials)
    events = simulated_sweep(spec, happening=happening)
    importance = {"optim.learning_rate": 0.8, "lora.r": 0.2}
    page = tmp_path / "report.html"
    write_report(page, events=events, ledger=Ledger.of(events), importance=importance, sweep_dir=tmp_path)
    told = opened(page, tmp_path, width=width)
    assert told["width"] == width
    assert told["complaints"] == []
    assert set(told["marks"]) == FIGURES
    assert min(told["marks"].values()) > 0, told["marks"]
    assert spec.search is not None
    assert told["axes"] == len(spec.search.space) + 1
    assert told["page"] <= width
    assert told["wider"] == []
    assert told["sorted"] == ["0000 baseline", "0001", "0002"]
