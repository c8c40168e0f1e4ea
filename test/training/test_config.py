# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from spike_perception.config import settings
from spike_perception.errors import InputError
from spike_perception.students.registry import create_student
from spike_perception.training.config import (
    DataConfig,
    DistillConfig,
    DistillSettings,
    dump_yaml,
    load_config,
    load_yaml,
    parse_data,
    parse_setting,
    preset_names,
)


@pytest.mark.parametrize("name", ["tiny", "cpu", "full"])
def test_presets_make_students_and_survive_yaml(name, tmp_path):
    config = load_config(name)
    create_student(config.settings.student.name, config.overrides)
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config.document()))
    assert load_config(file) == config


def test_presets_come_with_the_package():
    assert set(preset_names()) >= {"tiny", "cpu", "full"}


def test_every_leaf_is_a_setting_with_a_description():
    assert all(each.description for each in settings(DistillSettings))
    assert all(each.description for each in settings(DataConfig))


@pytest.mark.parametrize(
    ("text", "reason", "named"),
    [
        ("trainer: {epoch: 3}", "unknown_setting", "trainer.epoch"),
        ("trainer: {epochs: many}", "invalid_setting", "trainer.epochs"),
        ("data: [{path: a, label: true}]", "unknown_setting", "label"),
        ("data: here", "invalid_setting", "list"),
        ("student: {overrides: 3}", "invalid_setting", "overrides"),
        ("loss: {logits: {weight: -1}}", "invalid_setting", "loss.logits.weight"),
        ("- a\n- b", "bad_config", "mapping"),
        ("{a", "bad_config", "YAML"),
        ("a: !!python/object/apply:os.getcwd []", "bad_config", "YAML"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, text, reason, named):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=named) as caught:
        load_config(file)
    assert caught.value.reason == reason and str(file) in str(caught.value)


def test_a_file_that_is_not_there_and_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="tiny") as caught:
        load_yaml(tmp_path / "none.yaml")
    assert caught.value.reason == "config_missing"
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == DistillConfig()


def test_changes_by_dotted_path():
    config = load_config("tiny").changed({"trainer.seed": 3, "student.overrides.blocks": 2})
    assert config.settings.trainer.seed == 3 and config.overrides["blocks"] == 2
    with pytest.raises(InputError, match=r"trainer\.sed"):
        config.changed({"trainer.sed": 3})


@pytest.mark.parametrize(
    ("path", "split", "name"),
    [
        ("data/cifar10.zip/train", "", "cifar10/train"),
        ("data/cifar10.zip", "test", "cifar10/test"),
        ("data/photos", "", "photos"),
        ("data/tiny/val", "", "tiny/val"),
        ("val", "", "val"),
    ],
)
def test_names_of_image_sets(path, split, name):
    assert DataConfig(path=path, split=split).name == name


def test_values_of_the_command_line():
    assert parse_setting("a.b=1e-3") == ("a.b", 1e-3)
    assert parse_setting("a=true") == ("a", True)
    assert parse_setting("a=x=y") == ("a", "x=y")
    assert parse_setting("a=") == ("a", "")
    assert parse_data("d.zip/train,weight=2,labels=true") == DataConfig(
        path="d.zip/train", weight=2.0, labels=True
    )
    for text in ("a", "=3"):
        with pytest.raises(InputError):
            parse_setting(text)
    with pytest.raises(InputError):
        parse_data("a,wait=3")
