# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spike_perception.errors import InputError  # noqa: E402
from spike_perception.training.places.config import (  # noqa: E402
    PlacesSettings,
    SamplingConfig,
)
from spike_perception.training.places.sampling import (  # noqa: E402
    PlaceBatches,
    PlaceTargets,
    load_photos,
    load_traverse,
    open_frames,
)
from spike_perception.training.places.views import ViewConfig  # noqa: E402

SIZE = (16, 32)
PREPROCESSING = {
    "input_size": list(SIZE), "channel_order": "gray", "mean": [0.0], "std": [1.0],
    "resize": "stretch", "interpolation": "area", "patch_norm": [3, 5, 9],
    "patch_norm_floor": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "way.zip", "w") as archive:
        for season, light in (("summer", 1.0), ("winter", 0.6)):
            for k in range(30):
                picture = np.full((24, 48), 4 * k + 60) * light
                picture[:, k] = 0
                code = cv2.imencode(".png", picture.astype(np.uint8))[1].tobytes()
                archive.writestr(f"{season}/{k}.png", code)
    (folder / "photos").mkdir()
    for k in range(9):
        picture = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{k}.png"), picture)
    (folder / "photos" / "4.png").write_bytes(b"no picture")
    return folder


def batches(data: Path, **sampling: object) -> PlaceBatches:
    way = load_traverse([f"{data}/way.zip/summer", f"{data}/way.zip/winter"], SIZE)
    chosen = {"traverse_places": 12, "photos": 5, "neighbourhood": 4, "span": 8, **sampling}
    settings = PlacesSettings(sampling=SamplingConfig(**chosen))  # type: ignore[arg-type]
    return PlaceBatches([way], [load_photos(f"{data}/photos", SIZE)], settings, PREPROCESSING)


def test_a_part_of_a_drive(data: Path) -> None:
    assert open_frames(f"{data}/way.zip/summer[3:5]").names == ("3.png", "4.png")
    assert len(open_frames(f"{data}/way.zip/summer[25:]")) == 5
    with pytest.raises(InputError):
        open_frames(f"{data}/way.zip/summer[40:50]")
    with pytest.raises(InputError) as caught:
        load_traverse([f"{data}/way.zip/summer", f"{data}/way.zip/winter[1:]"], SIZE)
    assert caught.value.reason == "mixed_traverse"


def test_broken_photos_are_left_out_and_broken_frames_refused(data: Path) -> None:
    photos = load_photos(f"{data}/photos", SIZE)
    assert list(photos.skipped) == ["4.png"]
    assert photos.indices.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert photos.pixels.shape == (8, 24, 48)
    with pytest.raises(InputError, match=r"4\.png"):
        load_traverse([f"{data}/photos"], SIZE)


def test_a_batch_is_a_function_of_its_step(data: Path) -> None:
    one, other = batches(data), batches(data)
    first = one(7, 0, 1)
    one(8, 0, 1)
    for name, tensor in other(7, 0, 1).items():
        torch.testing.assert_close(first[name], tensor)
        torch.testing.assert_close(first[name], one(7, 0, 1)[name])
    assert first["views"].shape == (34, 3, *SIZE) and first["ignored"].shape == (17, 17)
    assert not torch.equal(first["views"], one(8, 0, 1)["views"])
    assert len(one(7, 1, 3)["ignored"]) == 5  # a third of 12, and of 5


def test_places_of_a_batch_lie_near_one_another(data: Path) -> None:
    drawn = batches(data, same_condition=0.0).draw(np.random.default_rng(0))
    assert drawn.drive.tolist() == [0] * 12 + [-1] * 5
    for chunk in drawn.place[:12].reshape(3, 4):
        assert len(set(chunk)) == 4 and np.ptp(chunk) < 8
    assert (drawn.conditions[0, :12] != drawn.conditions[1, :12]).all()
    same = batches(data, same_condition=1.0).draw(np.random.default_rng(0)).conditions
    assert (same[0] == same[1]).all()


def test_both_views_are_of_the_same_place(data: Path) -> None:
    made = batches(data, same_condition=0.0)
    settings = replace(
        made.settings,
        sampling=replace(made.settings.sampling, traverse_places=4, neighbourhood=4),
        traverse_views=ViewConfig(light=0.0, still=1.0),
        photo_views=ViewConfig(light=0.0, still=1.0),
    )
    made = PlaceBatches(made.traverses, made.photos, settings, PREPROCESSING)
    views = made(0, 0, 1)["views"]
    first, second = views.flatten(1).chunk(2)
    likeness = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    assert likeness.argmax(1).tolist() == list(range(9))


def test_the_teacher_has_one_target_for_all_seasons(data: Path) -> None:
    class Told:
        def __init__(self, count: int, offset: float) -> None:
            rows = np.arange(count, dtype=np.float16)
            self.features = np.repeat(rows[:, None] + np.float16(offset), 3, 1)
            self.tokens = np.broadcast_to(self.features[:, None, None], (count, 2, 4, 3))

    made = batches(data)
    indices = made.photos[0].indices
    made.targets = PlaceTargets([[Told(30, 0.0), Told(30, 1.0)]], [(Told(9, 0.0), indices)])
    batch = made(0, 0, 1)
    drawn = made.draw(np.random.default_rng(0))
    told = made.targets(drawn, np.array([True] + [False] * 33))
    assert told["still"].tolist() == [0]
    torch.testing.assert_close(
        told["teacher_features"][:12, 0], torch.from_numpy(drawn.place[:12] + 0.5).float()
    )
    wanted = torch.from_numpy(indices[drawn.place[12:]]).float()
    torch.testing.assert_close(told["teacher_tokens"][12:, 1, 2, 0], wanted)
    assert batch["teacher_tokens"].shape == (17, 2, 4, 3)


def test_what_is_not_there_cannot_be_drawn(data: Path) -> None:
    made = batches(data)
    with pytest.raises(InputError) as caught:
        PlaceBatches([], made.photos, made.settings, PREPROCESSING)
    assert caught.value.reason == "images_missing"
