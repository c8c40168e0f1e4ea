# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.training.data.images import open_images
from spike_perception.training.teachers import adapt
from spike_perception.training.teachers.encoder import Preprocessing
from spike_perception.training.teachers.lit_config import AdaptConfig
from spike_perception.training.teachers.towers import MEAN, STD, load_image_tower

CONFIG = AdaptConfig(enabled=True, smallest=8, largest=12, steps=6, batch=4, save_every=2)


@pytest.fixture
def tower(image_weights):
    return load_image_tower(f"test_efficientnet={image_weights}")


def adapted(tower, photos, folder):
    sets = (open_images(photos / "images"), open_images(photos / "labelled"))
    size = Preprocessing((32, 32), MEAN, STD)
    return adapt.adapted_tower(tower, sets, size, CONFIG, folder, progress=False)


def test_a_killed_adaptation_goes_on_with_the_same_result(tower, photos, tmp_path, monkeypatch):
    whole = adapted(tower, photos, tmp_path / "whole")
    saved = adapt._save

    def killed(file, network, optimiser, step):
        saved(file, network, optimiser, step)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        adapted(tower, photos, tmp_path / "killed")
    monkeypatch.setattr(adapt, "_save", saved)
    resumed = adapted(tower, photos, tmp_path / "killed")
    assert resumed.id == whole.id != tower.id
    before = tower.network.state_dict()
    changed = 0
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, atol=0, rtol=0)
        changed += not torch.equal(before[name], value)
    assert changed > 10
    assert not list(tmp_path.rglob("*.state"))


def test_a_damaged_state_is_refused(tower, photos, tmp_path, monkeypatch):
    result = tmp_path / "tower.safetensors"
    result.with_suffix(".state").write_bytes(b"damaged")
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(InputError) as caught:
        adapt._restore(result.with_suffix(".state"), torch.nn.Linear(1, 1), optimiser)
    assert caught.value.reason == "bad_cache"


def test_losses_vanish_on_the_same_input():
    x = torch.randn(4, 6, generator=torch.manual_seed(0))
    assert float(adapt.feature_loss(x, 2 * x)) == pytest.approx(0, abs=1e-6)
    assert float(adapt.distribution_loss(x, x, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(adapt.distribution_loss(x, -x, 2.0)) > 0.01
