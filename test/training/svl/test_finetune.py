# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest
import torch

from spike_perception.bags.labelled_events import open_event_set
from spike_perception.deploy.runtime import load_runtime, load_stream
from spike_perception.errors import InputError
from spike_perception.training.run_folder import RunFolder
from spike_perception.training.svl.config import FinetuneConfig, parse_entry
from spike_perception.training.svl.event_batches import window_points
from spike_perception.training.svl.finetune import VOCABULARY, FinetuneScene, finetune
from spike_perception.training.svl.head import ClassHead
from spike_perception.training.svl.objective import firing_rates
from spike_perception.training.svl.shapes import open_shapes
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

pytest.importorskip("lightning_fabric")
QUICK = {
    "input.points": 64,
    "trainer.batch": 16,
    "trainer.precision": "32-true",
    "trainer.accelerator": "cpu",
    "trainer.log_every": 5,
    "trainer.optimiser.learning_rate": 0.005,
}


def quick(preset, run, **values):
    """A preset with the small student of the fixtures."""
    loaded = dataclasses.replace(FinetuneConfig.load(preset), overrides=run.config.overrides)
    return loaded.changed({**QUICK, **values})


@pytest.fixture(scope="module")
def points(run, solids, tmp_path_factory):
    """A finished run on solids, from the aligned student's weights."""
    config = dataclasses.replace(
        quick("finetune", run, **{"trainer.epochs": 6.0, "student.initial": str(run.out)}),
        data=(parse_entry(f"{solids.shapes},split=train"),),
        evaluate=(parse_entry(f"{solids.shapes},split=dev"),),
    )
    out = tmp_path_factory.mktemp("points")
    return argparse.Namespace(config=config, out=out, document=finetune(config, out, "finetune"))


@pytest.fixture(scope="module")
def events(run, solids, tmp_path_factory):
    """A finished run on event recordings with three windows each."""
    own = {"student.overrides.point_features": 1, "student.overrides.steps": 3}
    config = dataclasses.replace(
        quick("events", run, **own, **{"trainer.epochs": 30.0}),
        data=(parse_entry(f"{solids.folder / 'events'},first=30"),),
        evaluate=(parse_entry(f"{solids.folder / 'events'},last=10"),),
    )
    out = tmp_path_factory.mktemp("events")
    return argparse.Namespace(config=config, out=out, document=finetune(config, out, "finetune"))


def test_the_head_on_the_robot_has_the_accuracy_that_was_reported(points, solids):
    bundle = RunFolder(points.out).bundle()
    pack = VocabularyPack.load(points.out / VOCABULARY, encoder_id=bundle.encoder_id)
    assert pack.names == ("ball", "rod", "plate")
    runtime = load_runtime(bundle, engine="torch", threads=1, cache=None)
    shapes = open_shapes(solids.shapes, "dev")
    counts = runtime.infer(runtime.prepare_points(list(shapes.points)))
    right = (Head(pack).nearest(counts) == shapes.labels).mean()
    figure = points.document["metrics"]["shapes/dev.int8.overall_accuracy"]
    assert right == pytest.approx(figure, abs=1e-9) and figure > 0.8
    assert points.document["teacher"] is None


def test_training_starts_from_the_weights_given(run, points):
    from spike_perception.deploy.bundle import Bundle

    scene = FinetuneScene(points.config)
    held = Bundle.load(run.out / "bundle.safetensors").tensors["patch_1.layer.weight"]
    found = scene.objective().student.state_dict()["patch_1.layer.weight"]
    np.testing.assert_array_equal(found.numpy(), held.astype(np.float32))
    fresh = FinetuneScene(points.config.changed({"student.initial": ""})).objective().student
    assert not torch.equal(found, fresh.state_dict()["patch_1.layer.weight"])


def test_probabilities_of_the_pack_are_those_of_the_training(points):
    student = FinetuneScene(points.config).objective().student.eval()
    head = ClassHead(5, student.feature_dim, 20.0)
    with torch.no_grad():
        head.centre.uniform_(0.0, 0.3)
        prepared = student.prepare(torch.randn(7, 64, 3))
        rates = firing_rates(student, prepared)
        wanted = head(rates).softmax(1).numpy()
        counts = student.run(prepared[None]).counts.sum(0).numpy()
    pack = head.pack(["a", "b", "c", "d", "e"], student, "0" * 64)
    np.testing.assert_allclose(Head(pack).probabilities(counts), wanted, atol=1e-4)


def test_events_are_told_apart_by_polarity(events):
    figures = events.document["metrics"]
    assert figures["events[last=10].f32.overall_accuracy"] >= 0.9
    assert figures["events[last=10].int8.overall_accuracy"] >= 0.9
    bundle = RunFolder(events.out).bundle()
    assert bundle.kind == "events" and bundle.timesteps == 3
    assert bundle.preprocessing["channels"] == ["x", "y", "z", "polarity"]
    assert bundle.preprocessing["window_ms"] == 0.0


def test_window_by_window_gives_what_the_whole_sequence_gives(events, solids):
    """Streaming with explicit state, as in the node, against the offline pass of the training."""
    bundle = RunFolder(events.out).bundle()
    recordings = open_event_set(solids.folder / "events")
    settings = events.config.settings
    clouds = np.stack(
        [
            window_points(recordings.events(index), recordings.size, settings.events, 3, 64)
            for index in range(4)
        ]
    )
    from spike_perception.deploy.network import deployed_form, student_of

    student = deployed_form(student_of(bundle), "int8")
    with torch.no_grad():
        offline = student(torch.from_numpy(clouds)).numpy()
    stream = load_stream(bundle, engine="torch", threads=1, cache=None)
    state, total = stream.initial_state(4), 0.0
    for step in range(3):
        counts, state = stream.step(stream.prepare_points(list(clouds[:, step])), state)
        total = total + counts
    np.testing.assert_array_equal(total, offline)
    # The membrane carries something over: windows on their own count differently.
    alone = sum(
        stream.step(stream.prepare_points(list(clouds[:, step])), stream.initial_state(4))[0]
        for step in range(3)
    )
    assert not np.array_equal(alone, offline)


def test_windows_are_t_even_where_events_stop(events, solids):
    recordings = open_event_set(solids.folder / "events")
    config = dataclasses.replace(events.config.settings.events, window_ms=200.0)
    cut = window_points(recordings.events(0), recordings.size, config, 4, 32)
    assert cut.shape == (4, 32, 4)  # 300 ms make two windows of 200 ms
    np.testing.assert_array_equal(cut[1], cut[2])
    np.testing.assert_array_equal(cut[2], cut[3])
    assert set(np.unique(cut[..., 3])) == {-1.0, 1.0}
    rng = np.random.default_rng
    drawn = [window_points(recordings.events(0), recordings.size, config, 4, 32, rng(k))
             for k in (1, 1, 2)]  # fmt: skip
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_class_that_was_not_learnt_is_refused(points, solids):
    part = dataclasses.replace(
        points.config, data=(parse_entry(f"{solids.shapes},split=train,only=ball+rod"),)
    )
    with pytest.raises(InputError, match="class plate, which no set"):
        FinetuneScene(part)
    with pytest.raises(InputError, match="point_features=1"):
        FinetuneScene(points.config.changed({"kind": "events"}))
    with pytest.raises(InputError, match="first and last choose recordings"):
        FinetuneScene(
            dataclasses.replace(
                points.config, data=(parse_entry(f"{solids.shapes},split=train,first=3"),)
            )
        )
