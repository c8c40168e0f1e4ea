# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.training.teachers import folder as teacher_folder
from spike_perception.training.teachers.encoder import EncoderConfig
from spike_perception.training.teachers.lit_config import LitConfig
from spike_perception.training.teachers.recipe import build
from spike_perception.training.teachers.teacher import load_teacher
from spike_perception.training.teachers.towers import MEAN, STD, TextTower, load_image_tower

TORCH = EncoderConfig(engine="torch", batch=4)
SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def vit(open_clip, tmp_path_factory):
    """Name, checkpoint and model of a tiny open_clip ViT."""
    from safetensors.torch import save_file

    where = tmp_path_factory.mktemp("vit")
    (where / "tiny-vit.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(where)
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-vit")
    save_file(model.state_dict(), where / "weights.safetensors")
    torch.save(model.state_dict(), where / "weights.pt")
    return "tiny-vit", where / "weights.safetensors", model.eval(), preprocess


@pytest.fixture(scope="module")
def own(text_tower, image_weights, tmp_path_factory):
    """Folder of a tiny teacher of our own and the model in it."""
    config = replace(LitConfig(), {"views.size": 64, "project.channels": 32})
    tower = load_image_tower(f"test_efficientnet={image_weights}")
    torch.manual_seed(0)
    text = TextTower(text_tower, 16)
    model, model_config = build(tower, text, config)
    place = tmp_path_factory.mktemp("own") / "teacher"
    preprocessing = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    teacher_folder.save(
        place, "tiny-own", model_config, preprocessing, model.state_dict(), text.folder, {"seed": 0}
    )
    return place, model


def pictures(count=5, size=(40, 56)):
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_an_open_clip_model_says_what_open_clip_says(vit, open_clip):
    name, checkpoint, model, preprocess = vit
    teacher = load_teacher(name, checkpoint, TORCH)
    images = pictures()
    with torch.no_grad():
        stack = torch.stack([preprocess(Image.fromarray(each)) for each in images])
        expected = model.encode_image(stack, normalize=True).numpy()
        texts = ["a dog", "a cat on a mat", "a dog"]
        words = model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True).numpy()
    found = teacher.encode_images(images)
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    np.testing.assert_allclose(teacher.encode_text(texts), words, atol=1e-5)
    assert found.tokens.shape == (5, 4, 4, 32)
    assert teacher.channels == 16
    assert teacher.image_size == (32, 32)
    assert teacher.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_a_vits_tokens_are_its_patches_row_by_row(vit):
    name, checkpoint, _, _ = vit
    teacher = load_teacher(name, checkpoint, TORCH)
    plain = np.full((1, 32, 32, 3), 128, np.uint8)
    marked = plain.copy()
    marked[:, 8:16, 24:32] = 255  # patch in row 1, column 3
    change = np.abs(teacher.encode_images(marked).tokens - teacher.encode_images(plain).tokens).sum(
        (0, 3)
    )
    assert np.unravel_index(change.argmax(), change.shape) == (1, 3)


def test_the_identity_follows_the_weights(vit, tmp_path):
    from safetensors.torch import save_file

    name, checkpoint, model, _ = vit
    ids = [load_teacher(name, checkpoint, TORCH).id for _ in range(2)]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    weights["logit_scale"] += 0.1
    save_file(weights, tmp_path / "other.safetensors")
    assert ids[0] == ids[1] != load_teacher(name, tmp_path / "other.safetensors", TORCH).id
    assert len(ids[0]) == 64


def test_a_state_dict_of_torch_is_loaded_too(vit):
    name, checkpoint, _, _ = vit
    both = [
        load_teacher(name, path, TORCH).encode_images(pictures(1)).features
        for path in (checkpoint, checkpoint.with_suffix(".pt"))
    ]
    np.testing.assert_array_equal(*both)


class Code:
    def __reduce__(self):
        return (print, ("code was run",))


def test_bad_checkpoints_are_refused(vit, tmp_path, capsys):
    name, checkpoint, _, _ = vit
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint.read_bytes()[:1000])
    noise = tmp_path / "noise.pt"
    noise.write_bytes(b"no weights at all")
    code = tmp_path / "code.pt"
    code.write_bytes(pickle.dumps({"state_dict": Code()}))
    short = tmp_path / "short.pt"
    torch.save({"logit_scale": torch.zeros(())}, short)
    for file in (cut, noise, code, short, checkpoint.with_name("tiny-vit.json")):
        with pytest.raises(InputError, match=file.name) as caught:
            load_teacher(name, file, TORCH)
        assert caught.value.reason == "bad_checkpoint"
    assert "code was run" not in capsys.readouterr().out


def test_missing_checkpoints_and_unknown_models_are_refused(vit, tmp_path):
    for file in (None, tmp_path / "none.pt"):
        with pytest.raises(InputError) as caught:
            load_teacher(vit[0], file)
        assert caught.value.reason == "checkpoint_missing"
    with pytest.raises(InputError, match="tiny-vit") as caught:
        load_teacher("tiny-vitt")
    assert caught.value.reason == "unknown_teacher"


def test_our_own_teacher_loads_wherever_it_lies(own, tmp_path, open_clip):
    place, model = own
    images = pictures()
    before = load_teacher(str(place), config=TORCH)
    moved = tmp_path / "elsewhere"
    shutil.copytree(place, moved)
    after = load_teacher(str(moved), config=TORCH)
    assert before.id == after.id
    assert after.name == "tiny-own"
    found = after.encode_images(images)
    np.testing.assert_array_equal(before.encode_images(images).features, found.features)
    assert found.tokens.shape == (5, 2, 2, 256)
    # A tower of timm: the mean of its tokens is what its head takes.
    with torch.no_grad():
        pooled = torch.from_numpy(found.tokens).mean((1, 2))
        expected = functional.normalize(model.visual.head(pooled), dim=-1).numpy()
    np.testing.assert_allclose(found.features, expected, atol=1e-5)


def test_our_own_teacher_loads_through_open_clip_alone(own, tmp_path, open_clip):
    place, _ = own
    moved = tmp_path / "moved"
    shutil.copytree(place, moved)
    name, weights = teacher_folder.register(moved)
    assert json.loads((moved / f"{name}.json").read_text())["text_cfg"]["hf_model_name"] == str(
        moved
    )
    document = teacher_folder.read_config(moved)["preprocess_cfg"]
    model, _, preprocess = open_clip.create_model_and_transforms(
        name,
        pretrained=str(weights),
        image_mean=tuple(document["mean"]),
        image_std=tuple(document["std"]),
    )
    model.eval()
    teacher = load_teacher(str(moved), config=TORCH)
    images, texts = pictures(2), ["a red car", "a dog , a cat"]
    with torch.no_grad():
        stack = torch.stack([preprocess(Image.fromarray(each)) for each in images])
        features = model.encode_image(stack, normalize=True).numpy()
        rows = model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True).numpy()
    np.testing.assert_allclose(teacher.encode_images(images).features, features, atol=1e-5)
    np.testing.assert_allclose(teacher.encode_text(texts), rows, atol=1e-5)


def test_a_folder_that_is_no_teacher_is_refused(own, tmp_path):
    place, _ = own
    bad = tmp_path / "bad"
    shutil.copytree(place, bad)
    (bad / teacher_folder.CONFIG).write_text("{")
    empty = tmp_path / "empty"
    empty.mkdir()
    fetching = tmp_path / "fetching"
    shutil.copytree(place, fetching)
    document = json.loads((fetching / teacher_folder.CONFIG).read_text())
    document["model_cfg"]["vision_cfg"]["timm_model_name"] = "hf-hub:some/where"
    (fetching / teacher_folder.CONFIG).write_text(json.dumps(document))
    for each in (bad, empty, fetching):
        with pytest.raises(InputError) as caught:
            load_teacher(str(each))
        assert caught.value.reason == "bad_teacher"
    cut = tmp_path / "cut"
    shutil.copytree(place, cut)
    (cut / teacher_folder.WEIGHTS).write_bytes(b"short")
    with pytest.raises(InputError) as caught:
        load_teacher(str(cut))
    assert caught.value.reason == "bad_checkpoint"


def test_engines_agree(own):
    pytest.importorskip("openvino")
    place, _ = own
    images = list(pictures(3)) + list(pictures(3, (64, 64)))
    config = EncoderConfig(engine="openvino", precision="f32", batch=4)
    fast = load_teacher(str(place), config=config).encode_images(images)
    slow = load_teacher(str(place), config=TORCH).encode_images(images)
    np.testing.assert_allclose(fast.features, slow.features, atol=1e-4)
    np.testing.assert_allclose(fast.tokens, slow.tokens, atol=1e-3)


def test_texts_do_not_depend_on_their_company(own):
    teacher = load_teacher(str(own[0]), config=TORCH)
    texts = ["a dog", "a photo of a red car , a tree and the cat", "the", "a dog", "round"] * 2
    together = teacher.encode_text(texts)
    alone = np.concatenate([teacher.encode_text([each]) for each in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together[0], together[3])
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 8, 8, 3), "f4"), ((1, 8, 8, 1), "u1"), ((0, 8, 8, 3), "u1"), ((1, 0, 8, 3), "u1")],
)
def test_what_is_no_image_is_refused(own, shape, kind):
    with pytest.raises(InputError) as caught:
        load_teacher(str(own[0]), config=TORCH).encode_images(np.zeros(shape, kind))
    assert caught.value.reason == "wrong_image"


def test_a_device_that_is_not_there_is_refused(own):
    with pytest.raises(InputError) as caught:
        load_teacher(str(own[0]), config=EncoderConfig(device="no such device"))
    assert caught.value.reason == "no_device"
