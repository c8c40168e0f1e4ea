# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from spike_perception.deploy.runtime import load_runtime
from spike_perception.errors import InputError
from spike_perception.students.registry import create_student
from spike_perception.training.cli import main
from spike_perception.training.run_folder import CONFIG, RunFolder
from spike_perception.training.svl.batches import ShapeBatches, TrainingShapes
from spike_perception.training.svl.command import configure, resolve, train_svl
from spike_perception.training.svl.config import (
    PRESETS,
    AblationConfig,
    FinetuneConfig,
    SVLConfig,
    parse_entry,
    preset_names,
)
from spike_perception.training.svl.objective import firing_rates, start_from
from spike_perception.training.svl.point_augment import PointAugment
from spike_perception.training.svl.scene import SVLScene
from spike_perception.training.svl.shapes import open_shapes
from spike_perception.training.teachers import teacher as teachers
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

pytest.importorskip("lightning_fabric")


def test_it_learns_to_name_solids(run):
    figures = run.document["metrics"]
    assert figures["shapes/dev.f32.top_1"] > 0.8 and figures["shapes/dev.int8.top_1"] > 0.8
    assert 0 < figures["energy_ratio_to_ann_twin_estimated"] < 1
    assert "shapes/dev.teacher.top_1" in figures


def test_the_run_folder_holds_what_robots_and_vocabularies_need(run):
    folder = RunFolder(run.out)
    bundle, projection = folder.bundle(), folder.projection()
    assert bundle.kind == "points" and bundle.preprocessing["normalise"] == "unit_sphere"
    assert bundle.preprocessing["precision"] == "int8"
    assert projection.matrix.shape == (16, bundle.embedding_dim)
    assert projection.encoder_id == bundle.encoder_id
    assert SVLConfig.load(str(run.out / CONFIG)) == run.config
    for part in (bundle.encoder_id, "shapes/dev.int8.top_1", "spike-train svl"):
        assert part in folder.card()


def test_fold_makes_a_pack_whose_accuracy_is_the_reported_one(run, solids, monkeypatch, tmp_path):
    """Preparing, grouping, int8 and head as on a robot give the accuracy that was reported."""
    monkeypatch.setattr(teachers, "load_teacher", lambda name, file: solids.teacher)
    words = tmp_path / "solids.txt"
    words.write_text("ball\nrod\nplate\n", encoding="utf-8")
    given = ["fold", run.out, tmp_path, "--teacher", "x", "--pack", words, "--bank", words,
             "--templates", "plain", "--cache", solids.folder / "cache",
             "--calibrate", f"{solids.shapes}/dev", "--json", tmp_path / "x.json"]  # fmt: skip
    assert main([*map(str, given)]) == 0
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["files"]
    assert written[0]["images"] == 18 and written[0]["top_1"] > 0.8
    bundle = RunFolder(run.out).bundle()
    pack = VocabularyPack.load(tmp_path / "solids.safetensors", encoder_id=bundle.encoder_id)
    runtime = load_runtime(bundle, engine="torch", threads=1, cache=None)
    shapes = open_shapes(solids.shapes, "dev")
    counts = runtime.infer(runtime.prepare_points(list(shapes.points)))
    right = (Head(pack).nearest(counts) == shapes.labels).mean()
    assert right == pytest.approx(run.document["metrics"]["shapes/dev.int8.top_1"], abs=1e-9)


def test_words_may_lie_in_the_space_of_a_table_and_pictures_in_the_teachers(
    run, solids, monkeypatch, tmp_path
):
    monkeypatch.setattr(teachers, "load_teacher", lambda name, file: solids.teacher)
    table, words = tmp_path / "table.npz", tmp_path / "solids.txt"
    np.savez(table, names=np.array(["ball", "rod", "plate"]), features=np.eye(3, 5) + 0.2)
    words.write_text("ball\nrod\nplate\n", encoding="utf-8")
    config = run.config.changed({"teacher.name": "x", "teacher.texts": str(table)})
    figures = train_svl(config, tmp_path / "run", "x")["metrics"]
    assert figures["shapes/dev.int8.top_1"] > 0.8 and "shapes/dev.teacher.top_1" in figures
    assert RunFolder(tmp_path / "run").projection().matrix.shape[0] == 5
    given = ["fold", tmp_path / "run", tmp_path, "--teacher", "x", "--pack", words,
             "--cache", solids.folder / "cache", "--calibrate", f"{solids.shapes}/dev",
             "--json", tmp_path / "x.json"]  # fmt: skip
    assert main([*map(str, given)]) == 2  # the run's words were the table's
    assert main([*map(str, given), "--texts", str(table), "--templates", "plain"]) == 2
    assert main([*map(str, given), "--texts", str(table)]) == 0
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["files"][0]
    assert written["top_1"] == pytest.approx(figures["shapes/dev.int8.top_1"], abs=1e-9)
    assert written["templates"] == "the table's"
    moved = shutil.copy(table, tmp_path / "moved.npz")
    there = config.changed({"teacher.texts": str(moved)})
    assert (
        train_svl(there, tmp_path / "run", "x")["encoder_id"]
        == RunFolder(tmp_path / "run").bundle().encoder_id
    )  # the same run
    np.savez(moved, names=np.array(["ball", "rod", "plate"]), features=np.eye(3, 5) + 0.3)
    with pytest.raises(InputError, match="teacher_id"):
        train_svl(there, tmp_path / "run", "x")


def test_a_run_cut_off_goes_on_to_the_same_weights(run, solids, tmp_path):
    config = run.config.changed({"trainer.steps": 6, "trainer.checkpoint_every": 2})
    whole = train_svl(config, tmp_path / "whole", "x", teacher=solids.teacher)
    steady, calls = PointAugment(config.settings.augment), []

    def failing(points, rng, count):
        calls.append(1)
        if len(calls) > 3 * config.settings.trainer.batch:  # in the middle of the fourth step
            raise KeyboardInterrupt
        return steady(points, rng, count)

    with pytest.raises(KeyboardInterrupt):
        train_svl(config, tmp_path / "cut", "x", teacher=solids.teacher, augment=failing)
    again = train_svl(config, tmp_path / "cut", "x", teacher=solids.teacher)
    assert again["encoder_id"] == whole["encoder_id"] and again["metrics"] == whole["metrics"]
    with pytest.raises(InputError, match=r"loss\.mse"):
        train_svl(config.changed({"loss.mse": 0.5}), tmp_path / "cut", "x", teacher=solids.teacher)


def test_a_validation_normalises_as_the_finished_student_does(run, solids):
    """Averaged weights have running statistics of nothing in particular."""
    scene = SVLScene(run.config, solids.teacher)
    objective = scene.objective()
    start_from(run.out, objective.student)
    matrix = torch.tensor(RunFolder(run.out).projection().matrix)
    variances = [v for k, v in objective.student.named_buffers() if k.endswith("running_var")]
    with torch.no_grad():
        objective.loss.projection.weight.copy_(matrix)
        for each in variances:
            each.fill_(1e4)
    assert scene.validate(objective.eval())["shapes/dev.top_1"] > 0.8
    assert variances and all((each == 1e4).all() for each in variances)  # left as they were


def test_batches_are_a_function_of_the_step(run, solids):
    batches = SVLScene(run.config, solids.teacher).batches
    one, other = batches(3, 0, 1), batches(3, 0, 1)
    assert set(one) == {"points", "labels", "texts", "images"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["points"].shape == (16, 8, 8, 6) and one["points"].dtype == torch.float32
    halves = [batches(3, rank, 2)["points"] for rank in range(2)]
    assert torch.equal(one["points"][::2], halves[0]) and torch.equal(
        one["points"][1::2], halves[1]
    )
    # Another epoch draws the same shape from another side, in another prompt.
    epochs = [batches(step, 0, 1) for step in range(6)]
    assert len({each["images"].numpy().tobytes() for each in epochs}) == 6


def test_every_view_and_prompt_is_drawn():
    points = np.zeros((1, 8, 3), np.float32)
    features = np.eye(3, dtype=np.float16)[None]
    prompts = np.eye(4, dtype=np.float32)[None]
    batches = ShapeBatches(
        [TrainingShapes(points, np.zeros(1, np.int64), features)], [1.0], 64, 8,
        lambda cloud, rng, count: cloud, lambda clouds: clouds, 0, prompts,
    )  # fmt: skip
    batch = batches(0, 0, 1)
    assert (batch["images"].sum(0) > 8).all() and (batch["texts"].sum(0) > 4).all()


def test_held_out_names_are_neither_learnt_nor_forgotten_in_the_figures(run, solids, tmp_path):
    seen = parse_entry(f"{solids.shapes},split=train,only=ball+rod")
    config = dataclasses.replace(run.config.changed({"trainer.steps": 1}), data=(seen,))
    scene = SVLScene(config, solids.teacher)
    assert scene.words == ["ball", "rod"]
    figures = train_svl(config, tmp_path / "run", "x", teacher=solids.teacher)["metrics"]
    assert {"shapes/dev.int8.top_1_seen", "shapes/dev.int8.top_1_unseen"} <= set(figures)
    unnamed = dataclasses.replace(seen, only="", labels=False)
    mixed = SVLScene(dataclasses.replace(config, data=(seen, unnamed)), solids.teacher)
    assert [set(each.labels.tolist()) for each in mixed.batches.sets] == [{0, 1}, {-1}]
    assert mixed.words == ["ball", "rod"]


def test_text_alone_needs_no_pictures(run, solids):
    def never(*_):
        raise AssertionError

    words = run.config.changed({"loss.image": 0.0, "loss.mse": 0.0, "teacher.evaluate": False})
    assert "images" not in SVLScene(words, solids.teacher, view_features=never).batches(0, 0, 1)
    nothing = dataclasses.replace(words, data=(dataclasses.replace(words.data[0], labels=False),))
    with pytest.raises(InputError, match="no set has class names"):
        SVLScene(nothing, solids.teacher)


def test_centred_features_have_little_mean_and_unit_length(run, solids):
    config = run.config.changed({"teacher.centre": True, "text.centre": True})
    scene, plain = (SVLScene(each, solids.teacher) for each in (config, run.config))
    before = np.asarray(plain.batches.sets[0].features, np.float64)
    features = np.asarray(scene.batches.sets[0].features, np.float64)
    np.testing.assert_allclose(np.linalg.norm(features, axis=2), 1.0, atol=2e-3)
    # Unit length brings a little of the mean back.
    assert np.linalg.norm(features.mean((0, 1))) < 0.5 * np.linalg.norm(before.mean((0, 1)))
    assert scene.text_mean.any()


def test_a_student_of_points_becomes_one_of_events(run):
    tiny = dict(run.config.overrides)
    points = create_student("pointformer-s", tiny).eval()
    start_from(run.out, points)
    events = create_student("pointformer-s", {**tiny, "point_features": 1, "steps": 2}).eval()
    start_from(run.out / "bundle.safetensors", events)
    cloud = torch.randn(2, 64, 3)
    # Its new column is zero: polarity says nothing yet.
    wide = torch.cat([cloud, torch.ones(2, 64, 1)], 2)
    one = firing_rates(points, points.prepare(cloud))
    assert torch.equal(one, firing_rates(points, points.prepare(cloud)))
    stepped = events.step(events.prepare(wide))[0] / 4
    torch.testing.assert_close(stepped, one)
    with pytest.raises(InputError, match="another student"):
        start_from(run.out, create_student("pointformer-s", {**tiny, "channels": 48}))


def test_presets_are_valid():
    written = {each.stem for each in PRESETS.glob("*.yaml")}
    assert written == set(
        preset_names(SVLConfig) + preset_names(FinetuneConfig) + preset_names(AblationConfig)
    )
    for kind in (SVLConfig, FinetuneConfig, AblationConfig):
        for name in preset_names(kind):
            config = kind.load(name)
            assert kind.of(config.document()) == config
            create_student(config.settings.student.name, config.overrides)


def test_a_command_names_the_presets_that_it_takes():
    assert {"cpu", "tiny", "full"} <= set(preset_names(SVLConfig))
    assert {"finetune", "events"}.isdisjoint(preset_names(SVLConfig))
    assert {"finetune", "events"} <= set(preset_names(FinetuneConfig))
    assert {"tiny", "full"}.isdisjoint(preset_names(FinetuneConfig))  # they speak of a teacher
    assert "ablation" in preset_names(AblationConfig)


def test_options_change_the_configuration():
    parser = argparse.ArgumentParser()
    configure(parser)
    given = ["out", "--data", "a.npz,split=train,without=modelnet10,labels=false,weight=2",
             "--set", "loss.mse=0", "--set", "student.overrides.blocks=1"]  # fmt: skip
    config = resolve(SVLConfig, parser.parse_args(given), {"teacher.name": "t"})
    entry = config.data[0]
    assert entry.name == "a/train[without=modelnet10]" and entry.weight == 2.0
    assert not entry.labels and "night stand" in entry.excluded and entry.chosen is None
    assert config.settings.loss.mse == 0.0 and config.overrides["blocks"] == 1
    assert config.settings.teacher.name == "t"
    with pytest.raises(InputError, match="no setting"):
        parse_entry("a,wieght=2")
    with pytest.raises(InputError, match=r"tiny.*|.*list of sets"):
        SVLConfig.of({"data": "a.npz"})


def test_the_command_says_what_is_missing(capsys, tmp_path):
    assert main(["svl", str(tmp_path)]) == 2
    assert "give --data" in capsys.readouterr().err
    assert main(["svl", str(tmp_path), "--data", "x"]) == 2
    assert "no teacher" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for more in ([], ["--fresh"]):
        assert main(["svl", str(tmp_path / "file"), "--data", "x", "--teacher", "t", *more]) == 2
        assert "is a file" in capsys.readouterr().err
    assert main(["svl", str(tmp_path), "--config", "tiny", "--show-config"]) == 0
    assert "mse_reduction: sample" in capsys.readouterr().out
