# SPDX-License-Identifier: Apache-2.0
"""Students by name: presets, published parameter counts, configurations as JSON."""

from __future__ import annotations

import json

import pytest

from spike_perception.config import to_flat
from spike_perception.errors import InputError
from spike_perception.students.registry import (
    create_student,
    student_config_to_json,
    student_from_json,
    student_names,
)


def parameters(name, **settings):
    return sum(p.numel() for p in create_student(name, **settings).parameters())


def test_presets():
    names = student_names()
    for family in ("spikformer", "pointformer", "spike-pointnet"):
        assert {f"{family}-{size}" for size in "sml"} <= set(names)
        counts = [parameters(f"{family}-{size}") for size in "sml"]
        assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("published-spikformer-4-256", 4.155),
        ("published-spikformer-2-384", 5.765),
        ("published-spikformer-4-384", 9.325),
    ],
)
def test_published_spikformer_counts_with_ten_classes(name, millions):
    assert parameters(name, classes=10) / 1e6 == pytest.approx(millions, abs=0.0005)


def test_published_point_counts():
    assert parameters("pointformer-l", point_features=3) / 1e6 == pytest.approx(21.9, abs=0.05)
    assert parameters("spike-pointnet-m") / 1e6 == pytest.approx(3.57, abs=0.05)


def test_the_camera_preset_stays_below_five_million():
    assert parameters("spikformer-m") < 5e6


@pytest.mark.parametrize("name", student_names())
def test_json_round_trip(name):
    student = create_student(name)
    value = json.loads(json.dumps(student_config_to_json(student)))
    again = student_from_json(value)
    assert again.config == student.config and type(again) is type(student)
    assert student_from_json(json.dumps(value)).config == student.config


def test_overrides_as_mapping_and_as_keywords():
    student = create_student("spikformer-s", {"blocks": 1}, steps=2)
    assert (student.config.blocks, student.config.steps) == (1, 2)
    assert student.config.channels == create_student("spikformer-s").config.channels


def test_what_is_absent_from_json_keeps_its_default():
    student = student_from_json({"student": "spike-pointnet", "config": {"features": 64}})
    assert to_flat(student.config)["features"] == student.feature_dim == 64


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "invalid_student"),
        ("[]", "invalid_student"),
        ({"student": "spikformer"}, "invalid_student"),
        ({"student": "spikformer", "config": {}, "code": 1}, "invalid_student"),
        ({"student": "spikformer", "config": []}, "invalid_student"),
        ({"student": "resnet", "config": {}}, "unknown_student"),
        ({"student": ["spikformer"], "config": {}}, "unknown_student"),
        ({"student": "spikformer", "config": {"depth": 3}}, "unknown_setting"),
        ({"student": "spikformer", "config": {"blocks": "3"}}, "invalid_setting"),
        ({"student": "spikformer", "config": {"blocks": 10**9}}, "invalid_setting"),
        ({"student": "spikformer", "config": {"channels": 100, "heads": 7}}, "invalid_setting"),
        ({"student": "spikformer", "config": {"first_stride": 3}}, "invalid_setting"),
        ({"student": "spikformer", "config": {"height": 100}}, "wrong_image_size"),
        (
            {
                "student": "spikformer",
                "config": {"channels": 2048, "blocks": 48, "mlp_ratio": 8},
            },
            "student_too_large",
        ),
    ],
)
def test_bad_json_is_refused(value, reason):
    with pytest.raises(InputError) as caught:
        student_from_json(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["spikformer", "spikformer-xl", "nothing-s", "", "-"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match="spikformer-m") as caught:
        create_student(name)
    assert caught.value.reason == "unknown_student"
