# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.runtime import load_runtime
from spike_perception.errors import InputError
from spike_perception.training.cli import main
from spike_perception.training.config import DataConfig, load_config, load_yaml
from spike_perception.training.data.images import open_images
from spike_perception.training.distill import configure, distill, resolve
from spike_perception.training.run_folder import CONFIG, RunFolder

from . import colours

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Image sets and a finished run on unlabelled images."""
    folder = tmp_path_factory.mktemp("world")
    colours.write_images(folder / "photos", 12, 0, labelled=False)
    colours.write_images(folder / "labelled", 6, 1)
    colours.write_images(folder / "held", 8, 2)
    teacher = colours.ColourTeacher()
    config = dataclasses.replace(
        colours.tiny_config(folder),
        data=(DataConfig(path=str(folder / "photos")), DataConfig(path=str(folder / "labelled"))),
        evaluate=(DataConfig(path=str(folder / "held")),),
    )
    document = distill(config, folder / "run", "spike-train distill ...", teacher=teacher)
    return argparse.Namespace(
        folder=folder, config=config, document=document, teacher=teacher, run=folder / "run"
    )


def test_without_a_label_it_learns_to_name_colours(world):
    figures = world.document["metrics"]
    assert figures["held.teacher.top_1"] == 1.0
    assert figures["held.f32.top_1"] > 0.8 and figures["held.int8.top_1"] > 0.8
    assert 0 < figures["energy_ratio_to_ann_twin_estimated"] < 1
    assert figures["mean_firing_rate"] > 0


def test_corrupt_images_are_counted_by_name(world):
    assert set(world.document["skipped"]) == {"labelled", "held"}
    assert set(world.document["skipped"]["labelled"]) == {"red/broken.png"}
    assert "photos, 36 images" in world.document["data"][0]
    assert "labelled, 18 images" in world.document["data"][1]


def test_the_run_folder_holds_what_robots_and_vocabularies_need(world):
    run = RunFolder(world.run)
    bundle, projection = run.bundle(), run.projection()
    assert bundle.kind == "image" and bundle.preprocessing["precision"] == "int8"
    assert bundle.provenance["teacher"] == {"name": "colours", "sha256": "c" * 64}
    assert {m["name"]: m["value"] for m in bundle.metrics} == run.metrics()["metrics"]
    assert projection.matrix.shape == (colours.CHANNELS, bundle.embedding_dim)
    assert projection.feature_mean.shape == (bundle.embedding_dim,)
    assert projection.encoder_id == bundle.encoder_id
    assert resolve_file(world.run / CONFIG) == world.config
    card = run.card()
    for part in ("# tiny", bundle.encoder_id, "held.int8.top_1", "Limits", "spike-train distill"):
        assert part in card


def resolve_file(path):
    return load_config(path)


def test_accuracy_is_that_of_the_runtime_on_the_files_themselves(world):
    """Decoding, sizing, int8 and head as on a robot give the accuracy that was reported."""
    from spike_perception.zero_shot.folding import fold
    from spike_perception.zero_shot.head import Head
    from spike_perception.zero_shot.pack import VocabularyPack

    run = RunFolder(world.run)
    projection = run.projection()
    runtime = load_runtime(run.bundle(), engine="torch", threads=1, cache=None)
    images = open_images(world.folder / "held")
    texts = [
        world.teacher.encode_text([f"a {name}", f"a photo of a {name}"]) for name in images.classes
    ]
    pack = VocabularyPack.of(
        images.classes, fold(texts, projection=projection.matrix.T), projection.encoder_id
    )
    good = [i for i, name in enumerate(images.names) if "broken" not in name]
    counts = runtime.infer(runtime.prepare_images([images.image(i) for i in good]))
    right = (Head(pack).nearest(counts) == images.labels[good]).mean()
    assert right == pytest.approx(world.document["metrics"]["held.int8.top_1"], abs=1e-9)


def test_features_and_texts_are_computed_once(world, tmp_path):
    before = world.teacher.images, world.teacher.texts
    config = world.config.changed({"trainer.steps": 1})
    distill(config, tmp_path / "run", "again", teacher=world.teacher)
    assert (world.teacher.images, world.teacher.texts) == before


def test_labels_bring_their_own_words_and_terms(world, tmp_path):
    labelled = DataConfig(path=str(world.folder / "labelled"), labels=True, weight=2.0)
    config = dataclasses.replace(
        world.config.changed({"trainer.steps": 4, "vocabulary.words": "coco"}),
        data=(*world.config.data[:1], labelled),
    )
    from spike_perception.training.scene import Scene

    scene = Scene.open(config, world.teacher)
    assert scene.words[-3:] == ["blue", "green", "red"] and len(scene.words) > 80
    batch = scene.batches(0, 0, 1)
    assert set(np.unique(batch["labels"])) <= {-1, len(scene.words) - 3, len(scene.words) - 2,
                                                len(scene.words) - 1}  # fmt: skip
    assert (batch["labels"] >= 0).any() and batch["images"].shape == (32, 3, 32, 32)
    total, scalars = scene.objective()(batch, 0.5, 1, True)
    assert {"loss/cross_entropy", "loss/prototypes", "loss/feature", "weight/logits"} <= set(
        scalars
    )
    assert any(name.startswith("rate/") for name in scalars) and total.requires_grad


def test_it_starts_from_bundles_and_runs(world, tmp_path):
    from spike_perception.training.scene import Scene

    bundle = RunFolder(world.run).bundle()
    for start in (world.run, world.run / "bundle.safetensors", world.run / "checkpoint.pt"):
        scene = Scene.open(world.config.changed({"student.initial": str(start)}), world.teacher)
        module = scene.objective()
        name = "blocks.0.mlp.widen.layer.weight"
        found = module.student.state_dict()[name].half().numpy()
        assert np.array_equal(found, bundle.tensors[name])
        own = module.loss.embedding.weight.detach().numpy()
        matrix = RunFolder(world.run).projection().matrix
        assert np.array_equal(own, matrix) == (start.suffix != ".safetensors")
    other = world.config.changed(
        {"student.initial": str(world.run), "student.overrides.features": 40}
    )
    with pytest.raises(InputError) as caught:
        Scene.open(other, world.teacher).objective()
    assert caught.value.reason == "weights_do_not_fit"


def test_other_settings_for_a_run_that_is_there_are_refused(world):
    with pytest.raises(InputError, match="weight_decay") as caught:
        distill(
            world.config.changed({"trainer.optimiser.weight_decay": 0.5}),
            world.run,
            "other",
            teacher=world.teacher,
        )
    assert caught.value.reason == "other_run"
    assert Bundle.load(world.run / "bundle.safetensors").provenance["command"].endswith("...")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocabulary.words": ""}, "words_missing"),
        ({"vocabulary.words": "nowhere"}, "unknown_words"),
        ({"student.name": "pointformer-s", "student.overrides.channels": 48}, "unknown_setting"),
        ({"student.overrides.height": 30}, "wrong_image_size"),
    ],
)
def test_what_cannot_be_used_is_said(world, tmp_path, changes, reason):
    with pytest.raises(InputError) as caught:
        distill(world.config.changed(changes), tmp_path, "bad", teacher=world.teacher)
    assert caught.value.reason == reason


def parsed(*words):
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args([*map(str, words)])


def test_options_change_the_configuration(tmp_path, capsys):
    found = resolve(
        parsed(
            "out", "--config", "tiny", "--teacher", "ViT", "--set", "student.overrides.blocks=2",
            "--set", "trainer.optimiser.learning_rate=1e-2", "--data", "a.zip/train,labels=true",
            "--evaluate", "b,split=test,limit=5",
        )
    )  # fmt: skip
    assert found.overrides["blocks"] == 2 and found.overrides["height"] == 32
    assert found.settings.trainer.optimiser.learning_rate == 0.01
    assert found.settings.teacher.name == "ViT"
    assert found.data == (DataConfig(path="a.zip/train", labels=True),)
    assert found.evaluate[0].name == "b/test" and found.evaluate[0].limit == 5
    assert main(["distill", "out", "--config", "tiny", "--show-config"]) == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    assert load_yaml(tmp_path / "shown.yaml") == load_config("tiny").document()
    assert main(["distill", str(tmp_path), "--config", "tiny"]) == 2
    assert "give --data" in capsys.readouterr().err
