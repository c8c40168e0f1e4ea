# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.deploy import safe_file
from spike_perception.deploy.safe_file import Limits
from spike_perception.errors import InputError
from spike_perception.zero_shot import pack as pack_module
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import Teacher, VocabularyPack
from spike_perception.zero_shot.rejection import Rejection

from .example import ENCODER, folded, pack, rows

OTHER = "0" * 64


def full() -> VocabularyPack:
    return pack(
        5,
        32,
        negatives=("far",),
        thresholds=[-1, 0.1, 0.2, -1, 0.3],
        parents=[-1, 0, 0, -1, 3],
        feature_mean=np.arange(32, dtype=np.float32) / 7,
        prompts=("a photo of a {name}", "{name}"),
        teacher=Teacher("ViT-B-32", "a" * 64),
        text_projection_sha256="b" * 64,
        temperature=0.031,
        rejection=Rejection("negative_labels", 0.4, 10, 9000),
    )


@pytest.mark.parametrize("original", [full(), pack(1, 4), pack(3, 8, seed=2)])
def test_what_is_saved_is_loaded(tmp_path, original):
    file = tmp_path / "words.safetensors"
    assert original.save(file) == original.vocabulary_id
    loaded = VocabularyPack.load(file, encoder_id=ENCODER)
    assert loaded.vocabulary_id == original.vocabulary_id
    for name in ("names", "negatives", "parents", "prompts", "teacher", "temperature", "rejection"):
        assert getattr(loaded, name) == getattr(original, name)
    for name in ("rows", "bias", "thresholds", "feature_mean"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(original, name))
    np.testing.assert_array_equal(loaded.quantised.values, original.quantised.values)
    counts = np.arange(original.embedding_dim)
    assert Head(loaded).decide(counts) == Head(original).decide(counts)


def test_names_keep_their_type_through_the_file(tmp_path):
    names = ("1e5", "no", "null", "1.0", "椅子")
    VocabularyPack.build(names, rows(5, 8), ENCODER).save(tmp_path / "p")
    assert VocabularyPack.load(tmp_path / "p").names == names


def test_a_pack_for_another_encoder_is_refused_naming_both(tmp_path):
    pack().save(tmp_path / "p")
    with pytest.raises(InputError) as caught:
        VocabularyPack.load(tmp_path / "p", encoder_id=OTHER)
    assert caught.value.reason == "wrong_encoder"
    assert ENCODER in str(caught.value) and OTHER in str(caught.value)
    assert VocabularyPack.load(tmp_path / "p").encoder_id == ENCODER


def test_any_flipped_byte_of_the_rows_is_found(tmp_path):
    file = tmp_path / "p"
    full().save(file)
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for at in np.random.default_rng(0).integers(start, len(content), 30):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            VocabularyPack.load(file)
        assert caught.value.reason == "wrong_checksum"
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match="expected"):
        VocabularyPack.load(file)


def test_size_limit(tmp_path):
    full().save(tmp_path / "p")
    with pytest.raises(InputError, match="allowed are 500"):
        VocabularyPack.load(tmp_path / "p", limits=Limits(file_bytes=500))


def forged(tmp_path, document=None, tensors=None):
    """A file with a right checksum whose contents were never a pack."""
    p = full()
    fields = {**p._document(), **(document or {})}
    arrays = {k: v for k, v in {**p._tensors(), **(tensors or {})}.items() if v is not None}
    file = tmp_path / "forged"
    safe_file.save(file, pack_module.FORMAT, fields, arrays)
    return file


@pytest.mark.parametrize(
    ("document", "tensors", "reason"),
    [
        ({"names": [1, 2, 3, 4, 5]}, {}, "bad_name"),
        ({"names": ["a", "a", "b", "c", "d"]}, {}, "duplicate_name"),
        ({"negatives": ["word 1"]}, {}, "duplicate_name"),
        ({"names": ["a", "b"]}, {}, "bad_pack"),
        ({"negatives": []}, {}, "bad_pack"),
        ({"templates_sha256": OTHER}, {}, "bad_pack"),
        ({"scale": 1e-9}, {}, "bad_pack"),
        ({}, {"rows": None}, "bad_pack"),
        ({}, {"rows": np.zeros((6, 32), np.float32)}, "bad_pack"),
        ({}, {"rows": np.full((6, 32), np.nan, np.float32)}, "bad_pack"),
        ({}, {"rows": rows(6, 32).astype(np.float64)}, "bad_pack"),
        ({}, {"rows": rows(6, 32, seed=5)}, "bad_pack"),
        ({}, {"rows_int8": np.zeros((6, 32), np.int8)}, "bad_pack"),
        ({}, {"rows_int8": np.zeros((6, 31), np.int8)}, "bad_pack"),
        ({}, {"rows_common": np.zeros(31, np.int32)}, "bad_pack"),
        ({}, {"bias": np.full(6, np.inf, np.float32)}, "bad_pack"),
        ({}, {"bias": np.zeros(5, np.float32)}, "bad_pack"),
        ({}, {"thresholds": np.zeros(6, np.float32)}, "bad_pack"),
        ({}, {"thresholds": np.full(5, np.nan, np.float32)}, "bad_pack"),
        ({}, {"parents": np.array([1, 0, 0, -1, 3], np.int32)}, "bad_hierarchy"),
        ({}, {"parents": np.array([-1, 0, 0, -1, 99], np.int32)}, "bad_hierarchy"),
        ({}, {"parents": np.zeros(4, np.int32)}, "bad_pack"),
        ({}, {"feature_mean": np.zeros((2, 2), np.float32)}, "bad_pack"),
    ],
)
def test_contents_that_do_not_fit_together(tmp_path, document, tensors, reason):
    file = forged(tmp_path, document, tensors)
    with pytest.raises(InputError) as caught:
        VocabularyPack.load(file)
    assert caught.value.reason == reason
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"names": []},
        {"names": {"a": 1}},
        {"temperature": 0},
        {"scale": -1},
        {"encoder_id": "short"},
        {"teacher": "ViT"},
        {"rejection": {"method": "energy"}},
        {"rejection": {"method": "exec", "threshold": 0, "count_low": 0, "count_high": 1,
                       "true_positive_rate": 1}},
        {"prompts": ["a\nb"]},
        {"more": 1},
    ],
)  # fmt: skip
def test_the_schema_is_checked(tmp_path, document):
    with pytest.raises(InputError) as caught:
        forged(tmp_path, document)
    assert caught.value.reason == "bad_metadata"


def test_a_bundle_is_no_vocabulary(tmp_path):
    file = tmp_path / "p"
    full().save(file)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = header["__metadata__"]["spike_perception"]
    header["__metadata__"]["spike_perception"] = text.replace(".vocabulary", ".bundle")
    changed = json.dumps(header).encode()
    file.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(InputError, match=r"expected 'spike_perception[.]vocabulary'"):
        VocabularyPack.load(file)


@pytest.mark.parametrize(
    "arguments",
    [
        {"names": [], "rows": np.zeros((0, 3))},
        {"names": ["a"], "rows": np.ones((1, 3))},
        {"names": ["a"], "rows": np.eye(3)},
        {"names": ["a"], "rows": np.ones(3)},
        {"names": ["a"], "rows": np.eye(1), "temperature": 0.0},
        {"names": ["a"], "rows": np.eye(1), "rejection": Rejection("negative_labels", 0.5)},
        {"names": ["a"], "rows": np.eye(1), "feature_mean": np.zeros(2)},
        {"names": ["a"], "rows": np.eye(1), "parents": [-1, -1]},
    ],
)
def test_packs_that_cannot_be_built(arguments):
    with pytest.raises(InputError):
        VocabularyPack.build(encoder_id=ENCODER, **arguments)


def test_folded_text_keeps_its_bias():
    p = VocabularyPack.of(["a", "b"], folded(2, 8), ENCODER, temperature=0.5)
    assert p.temperature == 0.5
    assert (p.bias == 0).all()


def test_a_class_more_and_a_class_changed():
    p = full()
    row = np.random.default_rng(1).standard_normal(32)
    more = p.with_class("new", row, parent=3, threshold=0.4)
    assert more.names == (*p.names, "new") and more.parents[-1] == 3
    np.testing.assert_array_equal(more.rows[-1], p.rows[-1])
    np.testing.assert_allclose(more.rows[5], row / np.linalg.norm(row), rtol=1e-6)
    np.testing.assert_allclose(more.bias, -more.rows @ more.feature_mean, rtol=1e-5)
    assert more.vocabulary_id != p.vocabulary_id
    changed = p.with_class("word 1", row)
    assert changed.names == p.names
    np.testing.assert_allclose(changed.bias, -changed.rows @ changed.feature_mean, rtol=1e-5)
    with pytest.raises(InputError):
        p.with_class("far", row)
    with pytest.raises(InputError):
        p.with_class("new", row[:5])


def test_arrays_cannot_be_changed_behind_a_head():
    p = full()
    for array in (p.rows, p.bias, p.thresholds, p.feature_mean):
        with pytest.raises(ValueError):
            array[0] = 1
