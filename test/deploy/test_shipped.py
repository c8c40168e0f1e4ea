# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from spike_perception.deploy import shipped
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.shipped import MODELS, VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.pack import VocabularyPack


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


def test_all_that_is_shipped_fits_together():
    models = shipped.share_folder() / MODELS
    files = sorted(models.glob("*.safetensors"))
    banks = [each for each in files if each.stem.endswith("_bank")]
    bundles = {each: Bundle.load(each).encoder_id for each in files if each not in banks}
    assert {"camera", "place", "points", "points_m", "pointnet", "events"} <= {
        each.stem for each in bundles
    }
    for each, encoder_id in bundles.items():
        assert each.stat().st_size <= 12_000_000
        assert encoder_id in each.with_suffix(".md").read_text(), f"card of {each.stem}"
    known = set(bundles.values())
    assert {WordBank.load(each).encoder_id for each in banks} <= known
    packs = sorted((models / "vocabularies").glob("*.safetensors"))
    assert packs
    assert {VocabularyPack.load(each).encoder_id for each in packs} <= known
