# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.teachers import teacher as teachers
from spike_perception.training.teachers.text_table import (
    TabledTeacher,
    TextTable,
    reading_teacher,
)

NAMES = np.array(["Cup", "mixer_(kitchen_tool)", "sofa", "couch", "ice_cream", "apple"])


class Letters:
    """Embeds a text by its letters; its pictures are what it is given."""

    name, id = "letters", "e" * 64

    def __init__(self):
        self.read = []

    def encode_text(self, texts):
        self.read += texts
        counts = np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts])
        return unit(counts + 0.1)

    def encode_images(self, images):
        return images


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def rows(count, width=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


OPPOSITE = rows(6)
OPPOSITE[1] = -OPPOSITE[0]


@pytest.fixture
def table(tmp_path):
    synonyms = np.array(["cup", "mixer|blender", "sofa|couch|lounge", "couch", "", "apple"])
    file = saved(
        tmp_path / "clip.npz", names=NAMES, features=rows(6), synonyms=synonyms, prompt="one {name}"
    )
    return TextTable.load(file)


def test_names_synonyms_and_senses(table):
    assert table.prompt == "one {name}"
    assert table.names == (
        "cup", "mixer", "sofa", "couch", "ice cream", "apple", "blender", "lounge",
    )  # fmt: skip
    expected = rows(6)[[0, 1, 2, 3, 4, 5, 1, 2]]
    np.testing.assert_allclose(table.features, expected, atol=1e-6)


def test_a_name_of_several_rows_gets_their_mean(tmp_path):
    file = saved(tmp_path / "t.npz", names=np.array(["bat_(animal)", "bat_(stick)", "ball"]),
                 features=rows(3).astype(np.float16))  # fmt: skip
    table = TextTable.load(file)
    assert table.names == ("bat", "ball") and table.prompt == "a {name}"
    np.testing.assert_allclose(table.features[0], unit(rows(3)[:2].sum(0)), atol=1e-3)


def test_known_names_are_read_from_the_table(table, tmp_path):
    teacher = TabledTeacher(Letters(), table, tmp_path)
    found = teacher.encode_text(["one Cup", "one ice cream", "one teapot"])
    np.testing.assert_allclose(found[:2], table.features[[0, 4]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert teacher.looking.read[-1:] == ["one teapot"]  # and the others never
    assert teacher.prompts == ("one {name}",)
    images = np.zeros((1, 4, 4, 3), np.uint8)
    assert teacher.encode_images(images) is images


def test_the_right_article_still_finds_a_name(tmp_path):
    file = saved(tmp_path / "t.npz", names=NAMES, features=rows(6))
    table = TextTable.load(file)
    found = TabledTeacher(Letters(), table).encode_text(["an apple"])
    np.testing.assert_allclose(found[0], table.features[5], atol=1e-6)


def test_a_name_is_found_however_it_is_written(tmp_path):
    names = np.array(["T-shirt", "tv_stand", "e-scooter"])
    table = TextTable.load(saved(tmp_path / "t.npz", names=names, features=rows(3)))
    teacher = TabledTeacher(Letters(), table)
    teacher.looking.read.clear()
    found = teacher.encode_text(["a T-shirt", "a TV stand", "an E_Scooter"])
    np.testing.assert_array_equal(found, table.features)
    assert not teacher.looking.read


def test_other_texts_follow_the_teacher(tmp_path):
    """Where the table is a linear function of the teacher's embeddings, unknown names are met."""
    letters = Letters()
    rng = np.random.default_rng(1)
    words = ["".join(chr(97 + k) for k in rng.integers(0, 26, 6)) for _ in range(400)]
    turn = np.linalg.qr(rng.normal(size=(26, 26)))[0]
    true = unit(letters.encode_text([f"a {each}" for each in words]) @ turn)
    file = saved(tmp_path / "t.npz", names=np.array(words[:300]), features=true[:300])
    found = TabledTeacher(letters, TextTable.load(file)).encode_text(
        [f"a {each}" for each in words[300:]]
    )
    mean = true[:300].mean(0)
    cosines = (unit(found - mean) * unit(true[300:] - mean)).sum(1)
    assert cosines.min() > 0.9


def test_all_that_decides_the_answers_is_in_the_id(table, tmp_path):
    other = TextTable.load(saved(tmp_path / "o.npz", names=NAMES, features=rows(6, seed=1)))
    ids = {TabledTeacher(Letters(), each).id for each in (table, other)}
    assert len(ids) == 2 and Letters.id not in ids
    assert TabledTeacher(Letters(), table).id in ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": None}, "features"),
        ({"features": rows(5)}, "expected is one row each"),
        ({"features": np.zeros((6, 8))}, "zero"),
        ({"features": np.full((6, 8), np.nan)}, "not finite"),
        ({"features": np.zeros((6, 8), np.int64)}, "features: it is int64"),
        ({"names": np.array(list(NAMES), object)}, "names: it is object"),
        ({"names": NAMES[:1], "features": rows(1)}, "allowed are 2"),
        ({"synonyms": NAMES[:3]}, "3 synonyms for 6"),
        ({"prompt": np.array("a thing")}, "no place"),
        ({"prompt": np.array("{name} of {0}")}, "no place"),
        ({"prompt": np.array("a {name}}")}, "no place"),
        ({"names": np.array(["", " ", "_", "-", "", ""])}, "0 names"),
        ({"names": np.array(["cup", "Cup", "cup_", "", "", ""])}, "1 names"),
        ({"names": np.array(["a" * 1025, *"bcdef"])}, "more than 1024 characters"),
        ({"synonyms": np.array(["a" * 1025, *"bcdef"])}, "more than 1024 characters"),
        ({"synonyms": np.array(["|".join(map(str, range(1 << 14))), *"bcdef"])}, "16395 names"),
        ({"names": np.array([*"aabcde"]), "features": OPPOSITE}, "'a' cancel each other out"),
        (
            {
                "names": np.array([[0x110000], *[[97 + k] for k in range(5)]], np.uint32).view(
                    "<U1"
                )[:, 0]
            },
            "no characters",
        ),
        ({"names": np.array(["a\ud800", *"bcdef"])}, "no characters"),
    ],
)
def test_bad_tables_are_refused(tmp_path, change, message):
    arrays = {"names": NAMES, "features": rows(6), **change}
    file = saved(tmp_path / "t.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(InputError, match=message) as refused:
        TextTable.load(file)
    assert refused.value.reason == "bad_text_table"


def test_what_is_no_archive_is_refused(tmp_path):
    file = tmp_path / "t.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(InputError, match="zip"):
        TextTable.load(file)


def test_a_teacher_is_loaded_with_its_table_if_one_is_given(table, monkeypatch):
    monkeypatch.setattr(teachers, "load_teacher", lambda name, checkpoint: Letters())
    assert isinstance(reading_teacher("letters", None, "", None), Letters)
    tabled = reading_teacher("letters", None, str(table.path), None)
    assert isinstance(tabled, TabledTeacher) and tabled.name == "letters with the texts of clip"
