# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.training.teachers.lit import (
    LOSSES,
    Batch,
    Heads,
    LitArrays,
    LitTensors,
    fold_standardisation,
    rate,
    ridge_start,
    standardisation,
    text_to_image_recall,
    train_projections,
)
from spike_perception.training.teachers.lit_config import LitConfig

FEATURES, TEXT, CLASSES, COUNT = 12, 8, 5, 60
CONFIG = replace(
    LitConfig(),
    {
        "project.steps": 200,
        "project.learning_rate": 5e-3,
        "project.batch": 32,
        "captions.batch": 16,
        "project.dropout": 0.0,
    },
)


def arrays(captions=True, labels=False):
    """Images whose features are a linear map of their class's text, with noise."""
    random = np.random.default_rng(0)
    nouns = random.normal(size=(CLASSES, 1, TEXT))
    classes = (nouns + 0.2 * random.normal(size=(CLASSES, 2, TEXT))).astype(np.float32)
    mixing = random.normal(size=(TEXT, FEATURES))
    of = np.arange(COUNT) % CLASSES
    own = classes[of, 0] + 0.3 * random.normal(size=(COUNT, TEXT))
    features = 5 + own @ mixing
    rows = np.arange(COUNT if captions else 0).repeat(2)
    direction = nouns[of, 0] / np.linalg.norm(nouns[of, 0], axis=1, keepdims=True)
    return LitArrays(
        (features.astype(np.float16), (features + 0.1).astype(np.float16)),
        (direction.astype(np.float16),) * 2,
        (8 * np.eye(CLASSES)[of]).astype(np.float16),
        classes,
        rows,
        (own[rows] + 0.05 * random.normal(size=(len(rows), TEXT))).astype(np.float32),
        random.normal(size=(20, TEXT)).astype(np.float32),
        of if labels else np.full(COUNT, -1),
        classes if labels else np.zeros((0, 2, TEXT), np.float32),
    )


def heads(text=True):
    torch.manual_seed(0)
    image = nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, TEXT))
    return image, nn.Linear(TEXT, TEXT, bias=False) if text else nn.Identity()


def embeddings(image, text, data):
    with torch.no_grad():
        pictures = image(torch.from_numpy(data.views[0].astype(np.float32)))
        words = text(torch.from_numpy(data.captions))
        names = text(torch.from_numpy(data.class_texts)).mean(1)
    return [functional.normalize(each, dim=-1).numpy() for each in (pictures, words, names)]


def test_training_aligns_images_with_captions_and_classes():
    data = arrays()
    image, text = heads()
    before, words, _ = embeddings(image, text, data)
    start = text_to_image_recall(before, words, data.caption_rows)["recall_at_1"]
    fitted = train_projections(image, text, data, CONFIG, progress=False)
    pictures, words, names = embeddings(image, text, data)
    assert start < 0.1
    assert text_to_image_recall(pictures, words, data.caption_rows)["recall_at_1"] > 0.5
    assert ((pictures @ names.T).argmax(1) == np.arange(COUNT) % CLASSES).mean() > 0.9
    assert set(fitted.losses) == {"captions", "conse", "geometry"}
    assert 0 < fitted.logit_scale <= 100


@pytest.mark.parametrize("name", ["conse", "classes", "labels"])
def test_each_loss_alone_teaches_the_classes(name):
    off = {f"{each}.weight": 0.0 for each in LOSSES}
    config = replace(CONFIG, {**off, f"{name}.weight": 1.0})
    data = arrays(captions=False, labels=True)
    image, text = heads(text=False)
    fitted = train_projections(image, text, data, config, progress=False)
    pictures, _, names = embeddings(image, text, data)
    assert set(fitted.losses) == {name}
    assert ((pictures @ names.T).argmax(1) == np.arange(COUNT) % CLASSES).mean() > 0.95


def test_the_same_seed_gives_the_same_projections():
    results = []
    for seed in (0, 0, 1):
        image, text = heads()
        config = replace(CONFIG, {"project.steps": 20, "project.dropout": 0.2})
        train_projections(image, text, arrays(), config, seed=seed, progress=False)
        results.append(image[0].weight.detach().numpy().copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-4


def test_nothing_to_learn_from_is_refused():
    config = replace(CONFIG, {"conse.weight": 0.0})
    with pytest.raises(InputError) as caught:
        train_projections(*heads(), arrays(captions=False), config, progress=False)
    assert caught.value.reason == "no_loss"


def test_arrays_that_do_not_fit_together_are_refused():
    data = arrays()
    with pytest.raises(InputError, match="do not fit"):
        dataclasses.replace(data, logits=data.logits[:-1])


def test_a_ridge_start_is_the_closed_form():
    data = arrays(captions=False)
    layer, text = nn.Linear(FEATURES, TEXT), nn.Linear(TEXT, TEXT, bias=False)
    mean, deviation = standardisation(data.views)
    ridge_start(layer, text, data, mean, deviation, 3.0)
    rows = [(view.astype(np.float64) - mean) / deviation for view in data.views]
    rows = np.concatenate([np.concatenate(rows), np.ones((2 * COUNT, 1))], 1)
    with torch.no_grad():
        wanted = text(torch.from_numpy(data.targets[0].astype(np.float32)))
    wanted = functional.normalize(wanted, dim=-1).numpy()
    # Ridge regression is least squares with rows of sqrt(strength) that want zero.
    padded = np.concatenate([rows, np.sqrt(3.0) * np.eye(FEATURES + 1)])
    goal = np.concatenate([wanted, wanted, np.zeros((FEATURES + 1, TEXT))])
    expected = np.linalg.lstsq(padded, goal, rcond=None)[0]
    np.testing.assert_allclose(layer.weight.detach().T, expected[:-1], atol=1e-4)
    np.testing.assert_allclose(layer.bias.detach(), expected[-1], atol=1e-4)


def test_losses_are_least_where_they_should_be():
    data = arrays(labels=True)
    model = Heads(nn.Identity(), nn.Identity(), 100.0)
    texts = LitTensors(torch.from_numpy(data.class_texts), torch.from_numpy(data.label_texts))
    names = model.prompted(texts.class_texts)
    one_hot = 1e4 * torch.eye(CLASSES)
    words = torch.from_numpy(data.words)
    right = Batch(names, names, one_hot, torch.arange(CLASSES), names, names, words)
    turned = names.roll(1, 0)
    wrong = Batch(turned, names, one_hot, torch.arange(CLASSES), turned, names, words)
    for name, loss in LOSSES.items():
        at_right = float(loss(model, right, texts, CONFIG).detach())
        if name == "geometry":
            assert at_right == pytest.approx(0, abs=1e-12)
            twisted = Heads(nn.Identity(), nn.Linear(TEXT, TEXT), 1.0)
            assert float(loss(twisted, right, texts, CONFIG).detach()) > 1e-3
        else:
            assert at_right == pytest.approx(0, abs=1e-3), name
            assert float(loss(model, wrong, texts, CONFIG).detach()) > 0.1, name


def test_folding_keeps_what_the_projection_says():
    values = (7 + 3 * np.random.default_rng(0).normal(size=(50, FEATURES))).astype(np.float16)
    mean, deviation = standardisation((values,))
    plain = torch.from_numpy(values.astype(np.float32))
    standard = (plain - torch.from_numpy(mean)) / torch.from_numpy(deviation)
    assert standard.std(0).numpy() == pytest.approx(1.0, abs=0.05)
    image, _ = heads()
    before = image(standard).detach()
    fold_standardisation(image, mean, deviation)
    torch.testing.assert_close(image(plain).detach(), before, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError):
        fold_standardisation(nn.Linear(FEATURES, 2, bias=False), mean, deviation)


def test_the_rate_rises_and_falls():
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[-1] < 0.001


def test_recall_counts_ties_against_the_model():
    images = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    texts = np.array([[1, 0], [0, 1]], np.float32)
    found = text_to_image_recall(images, texts, np.array([0, 1]), (1, 2))
    assert found == {"recall_at_1": 0.5, "recall_at_2": 1.0}
