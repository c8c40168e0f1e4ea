# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import itertools
import json

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.simulation import object_views as command
from spike_perception.simulation.classes import CLASSES, WORDS, word_shares
from spike_perception.simulation.command import WORLDS
from spike_perception.simulation.object_views import SIZE, object_views
from spike_perception.simulation.random_scenes import (
    random_room,
    random_street,
    write_texture_variants,
)
from spike_perception.simulation.sdf import load_world


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def test_every_class_is_a_word_of_the_bank_and_an_object_of_the_world(repository):
    bank = (repository / "spike_perception/training/words/bank.txt").read_text().splitlines()
    nouns = {line.split("|")[0].strip() for line in bank}
    assert set(CLASSES) <= nouns
    labels = {model.label for model in load_world(WORLDS / "loop.sdf").models}
    assert set(WORDS) <= labels


def test_shares_of_labels_add_up_to_shares_of_words():
    shares = word_shares({"ground": 0.5, "building": 0.2, "tree": 0.25, "mural": 0.1})
    assert list(shares) == ["building", "tree"]  # largest first
    assert shares == pytest.approx({"building": 0.3, "tree": 0.25})


@pytest.fixture(scope="module")
def views():
    return list(object_views(3, 7, ("tree", "traffic cone")))


def test_each_class_has_its_views_and_no_two_are_alike(views):
    words = [word for word, _ in views]
    assert sorted(words) == ["traffic cone"] * 3 + ["tree"] * 3
    for _, image in views:
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert image.std() > 8
    for (_, one), (_, other) in itertools.combinations(views, 2):
        assert np.abs(one.astype(int) - other).mean() > 5


def test_the_seed_decides_every_view(views):
    again = itertools.islice(object_views(3, 7, ("tree", "traffic cone")), 3)
    for (word, image), (same_word, same) in zip(views, again, strict=False):
        assert word == same_word
        assert np.array_equal(image, same)
    other = next(object_views(3, 8, ("tree", "traffic cone")))
    assert not np.array_equal(other[1], views[0][1])


def test_the_object_is_in_the_view(views):
    """A traffic cone is orange: what little else is, is not in every view."""
    for word, image in views:
        red, green, blue = (image[..., k].astype(int) for k in range(3))
        orange = (red > 1.5 * green) & (green > blue) & (red > 90)
        if word == "traffic cone":
            assert orange.mean() > 0.03


def test_the_command_writes_one_folder_a_class(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "CLASSES", ("car", "box"))
    output = tmp_path / "objects"
    real = command.object_views
    monkeypatch.setattr(command, "object_views", lambda n, s: real(n, s, ("car", "box")))
    assert run("-o", output, "--views", 2, "--seed", 3, "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == {"car": 2, "box": 2}
    assert sorted(path.name for path in output.iterdir()) == ["box", "car"]
    images = [cv2.imread(str(path)) for path in sorted(output.glob("*/*.png"))]
    assert [image.shape for image in images] == [(SIZE, SIZE, 3)] * 4
    with pytest.raises(InputError, match="exists"):
        run("-o", output)


def test_streets_and_rooms_show_what_they_are_made_of(tmp_path):
    rng = np.random.default_rng(2)
    write_texture_variants(tmp_path / "textures", rng)
    for build, expected in ((random_street, "building"), (random_room, "wall")):
        scene, poses = build(tmp_path, SIZE, rng)
        labels = {WORDS.get(label) for label in scene.labels.values()}
        assert expected in labels
        assert len(labels & set(CLASSES)) >= 4
        assert all(0.5 < pose.translation[2] < 1.3 for pose in poses)


@pytest.mark.parametrize("bad", [("--views", 0), ("--seed", -1)])
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises(InputError, match="allowed is"):
        run("-o", tmp_path / "objects", *bad)
    assert not (tmp_path / "objects").exists()
