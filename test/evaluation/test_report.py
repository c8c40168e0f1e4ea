# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation import figures
from spike_perception.evaluation.metrics import matches_from_scores, precision_recall
from spike_perception.evaluation.report import (
    Frame,
    HtmlReport,
    NullReport,
    Report,
    Strip,
    open_report,
    shown,
)

DASH = "\u2013"
IMAGE = np.full((8, 16, 3), (200, 10, 10), np.uint8)


def tell(report: Report) -> Path | None:
    report.headline("Recall@1", 0.5, "of all queries")
    report.table("Drops <by> reason", ["reason", "count"], [["wrong_step", 3], ["stale", None]])
    report.figure("A line", "line", lambda figure, _: figure.subplots().plot([0, 1]) and None)
    frames = (Frame(IMAGE, "query"), Frame(IMAGE, "match", "wrong"), Frame(IMAGE, "true", "right"))
    report.strips("Wrong", "wrong", [Strip("query <0>", frames)])
    return report.write({"recall_at_1": 0.5, "config": {"a": 1}, "weights_id": "00ff"})


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]


def test_page_is_complete_and_asks_for_nothing(tmp_path: Path) -> None:
    path = tell(HtmlReport(tmp_path / "out" / "run", "Title <x>", "Subtitle"))
    assert path == tmp_path / "out" / "run" / "report.html"
    text = path.read_text()
    page = Page(text)
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert "script" not in page.tags
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    for words in ("Title &lt;x&gt;", "Drops &lt;by&gt; reason", "query &lt;0&gt;", "0.5", DASH):
        assert words in text
    assert len(re.findall('class="(?:wrong|right|plain)"', text)) == 3
    folder = path.parent
    assert json.loads((folder / "report.json").read_text())["recall_at_1"] == 0.5
    assert json.loads((folder / "config.json").read_text()) == {
        "config": {"a": 1},
        "weights_id": "00ff",
    }
    for name in ("line", "wrong"):
        assert cv2.imread(str(folder / f"{name}.png")).std() > 0


def test_no_report_draws_nothing_and_reads_no_image(tmp_path: Path) -> None:
    report = open_report(None, "Title")
    assert isinstance(report, NullReport)
    report.figure("a", "a", lambda *_: pytest.fail("was drawn"))
    report.strips("a", "a", (pytest.fail("was read") for _ in range(3)))
    assert tell(report) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        open_report(tmp_path / "file" / "run", "Title")
    assert caught.value.reason == "output_unwritable"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, DASH), (True, "yes"), (12345, "12,345"), (0.123456, "0.1235"), (2e6, "2,000,000")],
)
def test_values(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("queries", [1, 700])
@pytest.mark.parametrize("case", ["usual", "no match", "no answer"])
def test_figures_of_any_outcome(tmp_path: Path, queries: int, case: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((queries, 5)).astype(np.float32)
    truth = rng.random((queries, 5)) < 0.4
    if case == "no match":
        truth[:] = False
    if case == "no answer":
        scores[:] = -np.inf
    matches = matches_from_scores(scores, truth)
    curve = precision_recall(matches)
    report = HtmlReport(tmp_path, "Figures")
    report.figure("a", "pr", lambda f, p: figures.draw_precision_recall(f, p, {"run": curve}))
    report.figure("b", "rk", lambda f, p: figures.draw_recall_at_k(f, p, {"run": matches}, 5))
    report.figure("c", "hist", lambda f, p: figures.draw_scores(f, p, matches, None))
    report.figure("d", "sim", lambda f, p: figures.draw_similarity(f, p, scores, truth, matches))
    track = rng.random((queries, 2))
    report.figure(
        "e",
        "track",
        lambda f, p: figures.draw_trajectory(
            f, p, rng.random((5, 2)), track, matches.place, matches.correct
        ),
    )
    report.write({})
    assert len(list(tmp_path.glob("*.png"))) == 5
