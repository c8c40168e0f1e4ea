# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from spike_perception.deploy import shipped
from spike_perception.deploy.shipped import VOCABULARIES, shipped_file
from spike_perception.errors import InputError


@pytest.fixture
def share(tmp_path, monkeypatch):
    (tmp_path / "models" / "vocabularies").mkdir(parents=True)
    (tmp_path / "models" / "camera.safetensors").touch()
    (tmp_path / "models" / "vocabularies" / "coco.safetensors").touch()
    monkeypatch.setattr(shipped, "share_folder", lambda: tmp_path)
    return tmp_path


def test_a_bare_name_is_a_shipped_file(share):
    assert shipped_file("camera") == share / "models" / "camera.safetensors"
    assert shipped_file("coco", VOCABULARIES).parent.name == "vocabularies"


@pytest.mark.parametrize("given", ["mine.safetensors", "./mine", "/data/mine", "a/b.safetensors"])
def test_anything_else_is_a_path_that_need_not_be_shipped(share, given):
    assert shipped_file(given) == Path(given)


def test_the_home_folder_may_be_written_short(share, monkeypatch):
    monkeypatch.setenv("HOME", "/home/robot")
    assert shipped_file("~/mine.safetensors") == Path("/home/robot/mine.safetensors")


@pytest.mark.parametrize("given", ["lidar", "", "a" * 5000])
def test_a_name_that_is_not_shipped_is_refused_with_those_that_are(share, given):
    with pytest.raises(InputError, match="camera") as refused:
        shipped_file(given)
    assert refused.value.reason == "file_missing"


def test_somebody_elses_home_that_does_not_exist_is_refused(share):
    with pytest.raises(InputError) as refused:
        shipped_file("~nobody-of-this-name/mine.safetensors")
    assert refused.value.reason == "file_missing"
