# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from spike_perception.bags.labelled_points import open_point_set
from spike_perception.errors import InputError
from spike_perception.simulation import object_scans as command
from spike_perception.simulation.object_scans import object_scans


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def scans():
    return list(object_scans(3, 7, ("person", "table"), least=40))


def test_each_class_has_its_objects_and_none_has_too_few_points(scans):
    assert sorted(word for word, _ in scans) == ["person"] * 3 + ["table"] * 3
    for _, points in scans:
        assert points.dtype == np.float32 and points.shape[1] == 3 and len(points) >= 40
        np.testing.assert_allclose(points.min(0), -points.max(0), atol=1e-4)


def test_objects_have_their_size_and_stand_upright(scans):
    size = {word: np.ptp(points, axis=0) for word, points in scans}
    # What is seen of a person is taller than wide and no taller than a tall one.
    assert size["person"][2] > max(size["person"][:2]) and size["person"][2] < 2.6
    assert size["table"][2] < 1.5


def test_the_same_seed_casts_the_same_points(scans):
    again = list(object_scans(3, 7, ("person", "table"), least=40))
    assert [word for word, _ in again] == [word for word, _ in scans]
    for (_, points), (_, before) in zip(again, scans, strict=True):
        np.testing.assert_array_equal(points, before)


def test_a_folder_a_class_is_written_for_the_reader_of_labelled_points(
    tmp_path, monkeypatch, capsys
):
    few = [("chair", np.eye(3, dtype=np.float32)), ("car", np.ones((5, 3), np.float32))]
    monkeypatch.setattr(command, "object_scans", lambda *given: iter(few))
    assert run("-o", tmp_path / "scans", "--scans", 1, "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"]["chair"] == told["classes"]["car"] == 1
    found = open_point_set(tmp_path / "scans")
    assert found.classes == ("car", "chair")
    np.testing.assert_array_equal(found.points(1), np.eye(3))


@pytest.mark.parametrize("words", [("--scans", 0), ("--seed", -1)])
def test_settings_out_of_range_are_refused(tmp_path, words):
    with pytest.raises(InputError, match="allowed"):
        run("-o", tmp_path / "new", *words)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        run("-o", tmp_path)
