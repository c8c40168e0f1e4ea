# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from spike_perception.training.ablation.comparison import Comparison
from spike_perception.training.ablation.pages import write_pages


def entry(name, row, seed, accuracy, steps=2, levels=4):
    return {
        "key": f"{name}.{row}.T{steps}.D{levels}.s{seed}", "set": name, "row": row, "seed": seed,
        "steps": steps, "levels": levels, "accuracy": accuracy, "energy_mj": 0.01 * steps * levels,
        "energy_ratio": 0.1 * steps, "mean_rate": 0.2,
    }  # fmt: skip


def document(runs):
    sets = {
        name: {
            "classes": 2, "pool_images": 8, "labelled_images": 4, "unlabelled_images": 6,
            "test_images": 10,
            "teacher_top_1_on_pool": 0.6, "skipped": {},
        }
        for name in ("a", "b")
    }  # fmt: skip
    return {"command": "spike-train ablation out", "teacher": {"name": "t", "sha256": "0" * 64},
            "sets": sets, "runs": runs}  # fmt: skip


RUNS = [
    entry("a", "linear", 0, 0.50), entry("a", "ce", 0, 0.40), entry("a", "all", 0, 0.60),
    entry("a", "linear", 1, 0.40), entry("a", "ce", 1, 0.44), entry("a", "all", 1, 0.45),
    entry("b", "linear", 0, 0.10), entry("b", "ce", 0, 0.20), entry("b", "all", 0, 0.22),
    entry("b", "linear", 1, 0.10), entry("b", "ce", 1, 0.20), entry("b", "all", 1, 0.30),
    entry("a", "ce", 0, 0.38, steps=1), entry("a", "all", 0, 0.55, steps=1),
]  # fmt: skip


def test_gains_are_over_the_stronger_baseline_of_each_set_with_the_same_seed():
    found = Comparison.of(document(RUNS))
    assert found.size == (2, 4) and found.sets == ("a", "b") and found.seeds == (0, 1)
    assert found.baseline("a") == "linear" and found.baseline("b") == "ce"
    assert found.gain("all", "a", 0) == pytest.approx(10)
    assert found.gain("all", "a", 1) == pytest.approx(5)
    assert found.mean_gain("all", ["b"]) == pytest.approx(6)
    assert found.mean_gain("all") == pytest.approx((10 + 5 + 2 + 10) / 4)
    assert found.mean_gain("all", None, [1]) == pytest.approx(7.5)
    assert found.mean_gain("linear", ["a"]) == 0.0


def test_cells_hold_mean_and_deviation_over_seeds_of_the_table_alone():
    cell = Comparison.of(document(RUNS)).cells["all", "a"]
    assert cell.accuracies == {0: 0.60, 1: 0.45}
    assert cell.mean == pytest.approx(0.525)
    assert cell.deviation == pytest.approx(0.15 / 2**0.5)


def test_an_unfinished_ablation_has_no_mean_gain_but_still_a_table():
    found = Comparison.of(document(RUNS[:-3]))
    assert found.mean_gain("all") is None
    assert found.mean_gain("all", ["a"]) is not None
    assert found.summary()["mean_gain_by_seed"] == {"0": pytest.approx(6.0), "1": None}
    assert "+ all" not in found.markdown() and "all of VL2Spike" in found.markdown()
    assert Comparison.of(document([])).runs == 0


def test_variants_join_the_table_s_own_size_with_the_same_seed():
    variants = Comparison.of(document(RUNS)).variants
    assert [(v.row, v.steps, v.accuracy) for v in variants] == [
        ("ce", 1, 0.38), ("ce", 2, 0.40), ("all", 1, 0.55), ("all", 2, 0.60)
    ]  # fmt: skip


def test_markdown_shows_every_seed_and_says_what_it_was_made_with():
    text = Comparison.of(document(RUNS)).markdown()
    assert "| all of VL2Spike | 52.50 ± 10.61 | 26.00 ± 5.66 | +6.75 |" in text
    assert "| 1 | +5.00 | +10.00 | +7.50 |" in text
    assert "| all of VL2Spike | 60.00 | 45.00 | 22.00 | 30.00 |" in text
    assert "4 labelled images and 6 without label" in text and "`spike-train ablation out`" in text


def test_pages_are_table_plots_and_report(tmp_path):
    pytest.importorskip("matplotlib")
    page = write_pages(Comparison.of(document(RUNS)), tmp_path)
    assert page == tmp_path / "report.html"
    names = {each.name for each in tmp_path.iterdir()}
    assert {"ablation.md", "ablation.png", "variants.png", "report.html", "report.json"} <= names
    assert "+6.75 points" in page.read_text(encoding="utf-8")
