"""The page as a whole: every odd sweep has one, it loads nothing, and what users wrote cannot break out of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from tests.support.simulated_sweep import Happening, simulated_spec, simulated_sweep

from pharos.errors import StorageError
from pharos.handover.report import write_report
from pharos.plan import events as ev
from pharos.plan.ledger import Ledger

FIGURES = ["curves", "against", "confirmation", "coordinates", "importance", "rungs", "seats"]
IMPORTANCE = {"optim.learning_rate": 0.8, "lora.r": 0.2}


class Page(HTMLParser):
    """What a browser would see: elements, the places for figures, texts, and what is embedded for them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.loads: list[tuple[str, str | None]] = []
        self.drawn: list[str | None] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())
        self.figures = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self._inside = tag
        named = dict(attrs)
        self.loads += [(tag, value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if "data-figure" in named:
            self.drawn.append(named["data-figure"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.texts).append(data)


def page_of(events: list[ev.Event], tmp_path: Path, importance: dict[str, float] | None = None) -> Page:
    path = tmp_path / "report.html"
    given = IMPORTANCE if importance is None else importance
    write_report(path, events=events, ledger=Ledger.of(events), importance=given, sweep_dir=tmp_path / "simulated")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"], "nothing else is left"
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_sweep_has_all_figures_its_verdict_and_what_to_type_next(twelve, tmp_path: Path) -> None:
    page = page_of(twelve, tmp_path)
    shown = [name for name in FIGURES if name != "confirmation"]
    assert (page.drawn, list(page.figures)) == (shown, shown)
    best = Ledger.of(twelve).best()
    assert f"simulated-{best.number:04d} wins: eval_loss {best.score:.4f} against " in page.text
    assert "assistant@candidate" in page.text
    begun = "12 trials over builtin:tiny, begun 2026-09-21 14:13 UTC"
    assert f"simulated COMPLETED {begun}; all trials are done." in page.text
    assert f"pharos compare simulated --storage {tmp_path}" in page.text
    assert "pharos promote assistant@candidate" in page.text
    assert "On test rows the winner is no better than the baseline: test_loss 0.9000 against 0.9000." in page.text
    assert "why it ended" in page.text
    assert page.elements["tr"] > 12


ODD = {
    "one trial": (simulated_sweep(simulated_spec(1)), {"curves", "seats", "rungs", "importance"}, "eval_loss"),
    "one fine-tune": (
        simulated_sweep(simulated_spec(1, search=None), rungs=()),
        {"curves", "seats", "importance"},
        "simulated-0000 has eval_loss",
    ),
    "just started": (simulated_sweep(simulated_spec(3))[:1], {"importance"}, "0 of 3 trials begun"),
    "killed in its first round": (
        simulated_sweep(simulated_spec(12))[:22],
        {"seats", "importance"},
        "No trial has a score yet.",
    ),
    "killed half-way": (
        simulated_sweep(simulated_spec(12), happening=Happening(stop_at=4)),
        {*FIGURES} - {"confirmation"},
        "no end is in its log: it still runs, or was interrupted.",
    ),
    "all diverged": (
        simulated_sweep(simulated_spec(3), happening=Happening(diverging=frozenset(range(3)))),
        {"seats", "importance"},
        "No trial has a score.",
    ),
    "baseline diverged": (
        simulated_sweep(simulated_spec(6), happening=Happening(diverging=frozenset({0}))),
        {"curves", "coordinates", "importance", "rungs", "seats"},
        "the baseline has no score",
    ),
    "lost and resumed": (
        simulated_sweep(simulated_spec(12), happening=Happening(lost_at=frozenset({3}), resumed_at=frozenset({5}))),
        {*FIGURES} - {"confirmation"},
        "1 restart",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_sweep_has_a_sensible_page(name: str, tmp_path: Path) -> None:
    events, drawn, said = ODD[name]
    page = page_of(events, tmp_path)
    assert set(page.drawn) == drawn
    assert said in page.text


def test_a_figure_without_anything_to_draw_says_why(tmp_path: Path) -> None:
    page = page_of(simulated_sweep(simulated_spec(1)), tmp_path, importance={})
    for reason in (
        "There are not two curves to compare",
        "The winner was not confirmed",
        "fewer than two trials have a score",
        "Too few trials have a score",
    ):
        assert reason in page.text


def test_the_page_loads_nothing(twelve, tmp_path: Path) -> None:
    page = page_of(twelve, tmp_path)
    assert page.loads == []
    assert not {"link", "iframe", "img", "object", "embed", "base"} & set(page.elements)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    policy = 'http-equiv="Content-Security-Policy" content="default-src \'none\';'
    assert policy in html, "and a browser would not let it"
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    own_script = html.rpartition("<script>")[2]
    assert "http" not in own_script
    assert "sendChartToCloud" not in own_script


def test_a_thousand_trials_stay_within_three_megabytes_beside_plotly(tmp_path: Path) -> None:
    """Ten evaluations of each and every trial at its full length: more than halving leaves."""
    events = simulated_sweep(simulated_spec(1000), report_every=16, rungs=())
    assert sum(isinstance(event, ev.TrialReported) for event in events) == 10_000
    page = page_of(events, tmp_path)
    assert page.elements["tr"] > 1000
    size = (tmp_path / "report.html").stat().st_size - len(get_plotlyjs().encode())
    assert size < 3_000_000, f"{size:,} bytes"


def test_what_users_wrote_stays_text(twelve, tmp_path: Path) -> None:
    attack = "</script><img src=x onerror=alert(1)>'\"{{7*7}}"

    def poisoned(event: ev.Event) -> ev.Event:
        match event:
            case ev.SweepStarted():
                spec = event.spec | {"base": attack, "name": attack}
                named = {attack: attack}
                return replace(event, sweep=attack, spec=spec, digests=named, versions=named, metric=attack)
            case ev.TrialEnded() | ev.RungDecided() | ev.SweepEnded():
                return replace(event, reason=attack)
            case ev.TrialCreated():
                params = event.trial["params"] | {"optim.lr_scheduler_type": attack}
                return replace(event, trial=event.trial | {"params": params})
            case ev.TrialReported():
                return replace(event, best_checkpoint=attack, eval_metrics={attack: event.eval_metrics["eval_loss"]})
            case ev.TestScored():
                return replace(event, metrics={attack: 0.5})
            case ev.ModelRegistered():
                return replace(event, model=attack, source=attack)
            case ev.TrialSeated() | ev.PoolOpened():
                return replace(event, pool=attack)
        return event

    page = page_of([poisoned(event) for event in twelve], tmp_path, importance={attack: 1.0})
    assert page.elements["img"] == 0
    assert page.elements["script"] == 3
    assert attack in page.text
    assert "<" not in page.scripts[0], "nor could one end the element that holds the figures"
    for texts in _texts(page.figures):
        assert "<img" not in texts, "plotly reads tags in its texts"


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_a_report_replaces_the_one_before_and_a_place_that_cannot_be_written_is_named(twelve, tmp_path: Path) -> None:
    page_of(simulated_sweep(simulated_spec(1)), tmp_path)
    assert "12 trials over" in page_of(twelve, tmp_path).text
    ledger = Ledger.of(twelve)
    for place in (tmp_path / "nowhere" / "report.html", tmp_path / "report.html" / "below", tmp_path):
        with pytest.raises(StorageError, match=f"{place}: the report cannot be written: "):
            write_report(place, events=twelve, ledger=ledger, importance={}, sweep_dir=tmp_path)


def test_a_log_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is nothing to report"):
        write_report(tmp_path / "report.html", events=[], ledger=Ledger(), importance={}, sweep_dir=tmp_path)
