# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.training.teachers import diffusion
from spike_perception.training.teachers.diffusion import conse, diffused, neighbours, unit
from spike_perception.training.teachers.lit_config import DiffusionConfig, LitConfig
from spike_perception.training.teachers.recipe import image_targets

CONFIG = DiffusionConfig(components=6, neighbours=4, rounds=8)


def groups(count=30, kinds=3, width=10, noise=0.3, seed=0):
    random = np.random.default_rng(seed)
    of = np.arange(count) % kinds
    centres = random.normal(size=(kinds, width)) * 3
    features = 4 + centres[of] + noise * random.normal(size=(count, width))
    return features.astype(np.float32), of


def test_conse_is_the_weighted_mean_of_class_directions():
    directions = unit(np.random.default_rng(0).normal(size=(3, 4)))
    logits = np.array([[2.0, 0.0, -2.0], [20.0, 0.0, 0.0]])
    shares = np.exp([1.0, 0.0, -1.0])
    found = conse(logits, directions, 2.0)
    np.testing.assert_allclose(found[0], unit(shares @ directions), atol=1e-6)
    np.testing.assert_allclose(conse(logits, directions, 2.0, 1), directions[[0, 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_neighbours_are_of_the_same_group_and_never_oneself():
    features, of = groups()
    graph = neighbours(features, CONFIG)
    assert graph.shape == (30, 4)
    assert (graph != np.arange(30)[:, None]).all()
    assert (of[graph] == of[:, None]).all()


def test_duplicates_do_not_make_an_image_its_own_neighbour():
    features, _ = groups(12)
    graph = neighbours(np.concatenate([features[:1]] * 6 + [features]), CONFIG)
    assert (graph != np.arange(18)[:, None]).all()


def test_a_large_set_is_searched_by_cells(monkeypatch):
    features, of = groups(400)
    exact = neighbours(features, CONFIG)
    monkeypatch.setattr(diffusion, "_EXACT", 100)
    found = neighbours(features, CONFIG)
    assert (of[found] == of[:, None]).mean() > 0.95
    assert found.shape == exact.shape


def test_neighbours_shrink_to_what_there_is():
    assert neighbours(groups(3)[0], CONFIG).shape == (3, 2)
    with pytest.raises(InputError) as caught:
        neighbours(groups(1)[0], CONFIG)
    assert caught.value.reason == "too_few_images"


def test_diffusion_mends_what_single_images_get_wrong():
    features, of = groups(90, noise=0.5)
    random = np.random.default_rng(1)
    directions = unit(random.normal(size=(3, 8)))
    noisy = unit(directions[of] + 0.9 * random.normal(size=(90, 8)))
    before = ((noisy @ directions.T).argmax(1) == of).mean()
    after = (diffused(noisy, neighbours(features, CONFIG), CONFIG) @ directions.T).argmax(1) == of
    assert before < 0.8
    assert after.mean() > before + 0.15


def test_one_round_by_hand_and_fixed_vectors():
    config = DiffusionConfig(keep=0.25, rounds=1)
    vectors = unit(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    graph = np.array([[1, 2], [0, 2], [0, 1]])
    found = diffused(vectors, graph, config, np.array([False, True, False]))
    expected = unit(0.25 * vectors[0] + 0.75 * unit(vectors[1] + vectors[2]))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_array_equal(found[1], vectors[1])


def test_targets_follow_the_views_and_keep_named_classes():
    features, of = groups(40)
    low = features.copy()
    low[20:] += 0.1  # the first half has no more pixels than the degraded view
    random = np.random.default_rng(2)
    class_texts = random.normal(size=(3, 2, 8)).astype(np.float32)
    label_texts = random.normal(size=(3, 2, 8)).astype(np.float32)
    labels = np.where(np.arange(40) % 8 == 0, of, -1)
    config = replace(LitConfig(), {"diffusion.neighbours": 4, "diffusion.components": 6})
    views = (features.astype(np.float16), low.astype(np.float16))
    logits = (5 * np.eye(3)[of]).astype(np.float16)
    found = image_targets(views, logits, class_texts, labels, label_texts, config)
    np.testing.assert_array_equal(found[0][:20], found[1][:20])
    assert np.abs(found[0][20:].astype(np.float32) - found[1][20:]).max() > 0
    known = labels >= 0
    own = unit(unit(label_texts).mean(1))[labels[known]]
    for each in found:
        np.testing.assert_allclose(each[known], own, atol=1e-3)
    off = replace(config, {"diffusion.enabled": False, "labels.anchors": False})
    plain = image_targets(views, logits, class_texts, labels, label_texts, off)
    expected = conse(logits, unit(unit(class_texts).mean(1)), 2.0)
    np.testing.assert_allclose(plain[1], expected, atol=1e-3)
