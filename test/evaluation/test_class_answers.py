# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.bags.writer import BagWriter
from spike_perception.errors import InputError
from spike_perception.evaluation.class_answers import (
    ClassAnswers,
    judge_classes,
    read_class_answers,
    read_visible,
)

WORDS = ("building", "car", "tree")


def answers(*names: tuple[str, ...], unknown: tuple[bool, ...] = ()) -> ClassAnswers:
    count = len(names)
    return ClassAnswers(
        np.arange(1, count + 1, dtype=np.int64),
        names,
        np.array(unknown or [False] * count),
        np.full(count, 0.5),
        np.full(count, 4.0),
        np.arange(count, dtype=np.int64),
    )


def test_only_frames_that_one_class_fills_are_judged():
    given = answers(("tree",), ("tree",), ("tree",), ("tree",), ("tree",))
    visible = {
        1: {"tree": 0.2},
        2: {"tree": 0.19},  # too little
        3: {"wall": 0.4, "tree": 0.3},  # something without a word in the vocabulary fills more
        4: {},
        # 5: nothing is known of it
    }
    found = judge_classes(given, visible, WORDS, 0.2)
    assert found.at.tolist() == [0]
    assert found.figures["class_frames"] == 1
    assert found.figures["class_top_1"] == 1.0


def test_figures_are_counted_by_frame_and_by_class():
    given = answers(
        ("tree", "car", "building"),
        ("car", "building", "tree"),
        ("building", "tree", "car"),
        ("building", "tree", "car"),
        (),
        unknown=(False, True, False, True, True),
    )
    visible = {
        1: {"tree": 0.5},
        2: {"tree": 0.5, "car": 0.1},
        3: {"tree": 0.5},
        4: {"building": 0.5},
        5: {"building": 0.5},
    }
    found = judge_classes(given, visible, WORDS, 0.2)
    figures = found.figures
    assert found.right.tolist() == [True, False, False, True, False]
    assert figures["class_top_1"] == pytest.approx(2 / 5)
    assert figures["class_top_3"] == pytest.approx(4 / 5)  # the last says nothing
    assert figures["class_mean_top_1"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert figures["class_most_frequent"] == pytest.approx(3 / 5)
    assert figures["class_known"] == pytest.approx(2 / 5)
    assert figures["class_precision_known"] == pytest.approx(1 / 2)
    assert figures["class_per_word"] == {
        "building": {"frames": 2, "top_1": 0.5, "most_often_instead": "nothing"},
        "tree": {"frames": 3, "top_1": pytest.approx(1 / 3), "most_often_instead": "building"},
    }
    # In view: the tree, the car (a tenth), and the building of the fourth frame.
    assert figures["class_in_view"] == pytest.approx(3 / 5)
    assert figures["class_in_view_by_chance"] == pytest.approx((1 + 2 + 1 + 1 + 1) / 5 / 3)


def test_without_a_judged_frame_there_are_no_shares():
    figures = judge_classes(answers(("tree",)), {1: {"tree": 0.01}}, WORDS, 0.2).figures
    assert figures["class_frames"] == 0
    assert figures["class_top_1"] is None
    assert figures["class_mean_top_1"] is None
    assert figures["class_most_frequent"] is None
    json.dumps(figures, allow_nan=False)


def test_the_truth_of_a_drive_is_read_by_words(tmp_path):
    whole, centre = {"ground": 0.5, "sofa": 0.1, "mural": 0.2}, {"desk": 0.3, "table": 0.1}
    with BagWriter(tmp_path / "drive") as bag:
        text = json.dumps({"stamp_ns": 7, "whole": whole, "centre": centre})
        bag.text("/ground_truth/objects", 7, text)
    assert read_visible(tmp_path / "drive", "whole") == {7: {"building": 0.2, "couch": 0.1}}
    assert read_visible(tmp_path / "drive", "centre") == {7: {"table": pytest.approx(0.4)}}


def test_bags_without_answers_or_truth_are_refused(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.clock(1)
    with pytest.raises(InputError, match="/object_class"):
        read_class_answers(tmp_path / "bag")
    with pytest.raises(InputError, match="/ground_truth/objects"):
        read_visible(tmp_path / "bag", "whole")
