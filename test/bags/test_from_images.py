# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags import from_images
from spike_perception.bags.images import ImageSequence
from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for k in range(12):
            image = rng.integers(0, 256, (4, 6, 3), np.uint8)
            file.writestr(f"summer/{k}.png", cv2.imencode(".png", image)[1].tobytes())
    return path


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    from_images.configure(parser)
    return from_images.run(parser.parse_args(arguments))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
def test_round_trip(
    archive: Path,
    tmp_path: Path,
    storage: str,
    compressed: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bag = tmp_path / "bag"
    options = ["--rate", "5", "--storage", storage, "--json", "-"]
    options += ["--compressed"] if compressed else []
    assert call(f"{archive}/summer", "-o", str(bag), *options) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12
    assert result["duration_s"] == pytest.approx(2.2)
    with BagReader(bag) as reader, ImageSequence(archive / "summer") as images:
        assert result["topic"] == "/camera/image_raw" + ("/compressed" if compressed else "")
        seen = list(reader.images(result["topic"]))
        for each, image in zip(seen, images, strict=True):
            np.testing.assert_array_equal(each.image, image)
    assert np.diff([each.stamp_ns for each in seen]).tolist() == [200_000_000] * 11
    assert seen[0].stamp_ns > 0


def test_a_corrupt_image_leaves_no_bag(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.png"):
        call(str(tmp_path / "set"), "-o", str(tmp_path / "bag"))
    assert [each.name for each in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("options", [["--rate", "0"], ["--rate", "nan"], ["--topic", "camera"]])
def test_refusals(archive: Path, tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(InputError):
        call(f"{archive}/summer", "-o", str(tmp_path / "bag"), *options)
