# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.bags.writer import BagWriter
from spike_perception.errors import InputError
from spike_perception.evaluation.class_answers import ClassAnswers, judge_classes, read_visible
from spike_perception.evaluation.demo_classes import (
    ClassifierFiles,
    find_classifier,
    table_rows,
    tell,
)
from spike_perception.evaluation.report import open_report

TRUE = ("chair", "table", "chair", "person", "table", "person")
SAID = ("chair", "chair", "chair", "person", "sofa", "")


@pytest.fixture
def drive(tmp_path):
    """Images of one colour each, and what a simulator would know of them."""
    path = tmp_path / "drive"
    with BagWriter(path) as bag:
        for k, word in enumerate(TRUE):
            stamp = 1_000_000_000 * (k + 1)
            image = np.full((24, 32, 3), 30 * k + 20, np.uint8)
            bag.image("/camera/image_raw", stamp, "camera", image)
            shares = {"ground": 0.5, word: 0.3, "hedge": 0.1, "sofa": 0.01}
            truth = {"stamp_ns": stamp, "whole": shares, "centre": {}}
            bag.text("/ground_truth/objects", stamp, json.dumps(truth))
    return path


@pytest.fixture
def answers():
    count = len(TRUE)
    return ClassAnswers(
        1_000_000_000 * np.arange(1, count + 1, dtype=np.int64),
        tuple((name,) if name else () for name in SAID),
        np.zeros(count, np.bool_),
        np.full(count, 0.75),
        np.full(count, 3.0),
        np.arange(count, dtype=np.int64),
    )


def test_words_are_those_of_the_drive_that_the_bank_has(tmp_path, camera_files, drive):
    with pytest.raises(InputError) as refused:  # its square centre shows nothing
        find_classifier(str(camera_files.bundle), str(camera_files.bank), drive)
    assert refused.value.reason == "unknown_name"
    with BagWriter(tmp_path / "other") as bag:
        truth = {"stamp_ns": 1, "whole": {}, "centre": {"desk": 0.1, "sofa": 0.2, "tree": 0.3}}
        bag.text("/ground_truth/objects", 1, json.dumps(truth))
    files = find_classifier(str(camera_files.bundle), str(camera_files.bank), tmp_path / "other")
    assert files.words == ("couch", "table")  # "couch" is an alias in this bank
    assert files.missing == ("tree",)
    assert files.region == "centre"
    assert files.parameters()["vocabulary.names"] == "couch,table"
    assert files.parameters()["model.bundle"] == str(camera_files.bundle.resolve())


def test_a_missing_file_is_told_apart_from_a_foreign_one(tmp_path, camera_files, drive):
    with pytest.raises(InputError) as absent:
        find_classifier("no_such_model", str(camera_files.bank), drive)
    assert absent.value.reason == "file_missing"
    (tmp_path / "spoilt.safetensors").write_bytes(camera_files.bundle.read_bytes()[:-1])
    with pytest.raises(InputError) as spoilt:
        find_classifier(str(tmp_path / "spoilt.safetensors"), str(camera_files.bank), drive)
    assert spoilt.value.reason != "file_missing"


def test_the_report_shows_names_over_time_confusion_and_frames(
    tmp_path, camera_files, drive, answers
):
    words = ("chair", "couch", "person", "table")
    visible = read_visible(drive, "whole")
    judged = judge_classes(answers, visible, words, 0.2)
    judged.figures["class_answered"] = len(TRUE)
    assert judged.figures["class_top_1"] == pytest.approx(3 / 6)
    files = ClassifierFiles(camera_files.bundle, camera_files.bank, words, (), "whole")
    report = open_report(tmp_path / "report", "Names")
    tell(report, files, answers, judged, drive)
    page = report.write(judged.figures)
    text = page.read_text()
    for name in ("names", "names_confusion", "names_frames"):
        assert (tmp_path / "report" / f"{name}.png").stat().st_size > 2000
    assert "chair 0.75, is table" in text
    assert "nothing 0.75, is person" in text
    assert dict(table_rows(judged))["named right (top-1)"] == "0.5"


def test_where_no_frame_can_be_judged_the_report_says_so(tmp_path, camera_files, drive, answers):
    words = ("car",)
    judged = judge_classes(answers, read_visible(drive, "whole"), words, 0.2)
    files = ClassifierFiles(camera_files.bundle, camera_files.bank, words, (), "whole")
    report = open_report(tmp_path / "report", "Names")
    tell(report, files, answers, judged, drive)
    text = report.write(judged.figures).read_text()
    assert "of 0 frames" in text
    assert not (tmp_path / "report" / "names.png").exists()
