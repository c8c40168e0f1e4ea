# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from spike_perception.config import replace, settings, to_flat
from spike_perception.errors import InputError
from spike_perception.training import chance
from spike_perception.training.augment import Augment, AugmentConfig

PROBABILITIES = ("crop", "flip", "jitter", "grey", "degrade", "blur", "noise", "erase")
OFF = dict.fromkeys(PROBABILITIES, 0.0)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (16, 40, 48, 3), dtype=np.uint8)


def keys(*parts):
    return chance.keys(7, *parts, np.arange(16))


def make(size=(32, 32), **changes):
    return Augment(replace(AugmentConfig(), {**OFF, **changes}), size)


def test_a_sample_depends_on_its_key_alone(pixels):
    everything = Augment(
        replace(AugmentConfig(), dict.fromkeys(PROBABILITIES, 0.5)), (32, 32), seed=3
    )
    whole = everything(pixels, keys(1))
    assert whole.shape == (16, 3, 32, 32) and whole.dtype == torch.float32
    turned = np.arange(16)[::-1].copy()
    torch.testing.assert_close(everything(pixels[turned], keys(1)[turned]), whole[turned.copy()])
    assert torch.equal(everything(torch.from_numpy(pixels[3:5]), keys(1)[3:5]), whole[3:5])
    assert not torch.equal(everything(pixels, keys(2)), whole)


def test_switched_off_it_only_normalises(pixels):
    off = make((40, 48))
    torch.testing.assert_close(off(pixels, keys()), off.clean(pixels))
    expected = (torch.from_numpy(pixels).float() / 255.0 - 0.5) / 0.25
    torch.testing.assert_close(off.clean(pixels), expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", PROBABILITIES)
def test_each_happens_as_often_as_asked(pixels, name):
    plain = make((40, 48)).clean(pixels)
    changed = {}
    for share in (0.5, 1.0):
        found = [
            (make((40, 48), **{name: share})(pixels, keys(e)) != plain).flatten(1).any(1)
            for e in range(12)
        ]
        changed[share] = torch.cat(found).float().mean().item()
    assert changed[1.0] > 0.95 and changed[0.5] == pytest.approx(0.5, abs=0.12)


def test_flip_and_grey_and_brightness_do_what_they_say(pixels):
    plain = make((40, 48)).clean(pixels)
    torch.testing.assert_close(make((40, 48), flip=1.0)(pixels, keys()), plain.flip(3))
    grey = make((40, 48), grey=1.0)(pixels, keys())
    torch.testing.assert_close(grey[:, 0], grey[:, 1])
    level = torch.from_numpy(pixels).float() @ torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(grey[:, 0], (level / 255 - 0.5) / 0.25, rtol=1e-4, atol=1e-4)
    even = np.full((16, 8, 8, 3), 100, np.uint8)
    jitter = {"jitter": 1.0, "contrast": 1.0, "saturation": 1.0, "brightness": 0.0}
    same = make((8, 8), **jitter)(even, keys())  # contrast turns about the mean, grey stays grey
    torch.testing.assert_close(same, make((8, 8)).clean(even), rtol=1e-4, atol=1e-4)


def test_lost_resolution_takes_detail_away(pixels):
    def detail(batch):
        return (batch[..., 1:] - batch[..., :-1]).abs().mean().item()

    lost = make((40, 40), degrade=1.0, degrade_least=8, degrade_most=10)
    assert detail(lost(pixels, keys())) < 0.5 * detail(make((40, 40))(pixels, keys()))


def test_crops_keep_at_least_their_area():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (16, 200, 200, 3)[1:3])
    images = np.broadcast_to(ramp[None, :, :, None], (16, 200, 200, 3)).copy()
    crop = make((64, 64), crop=1.0, crop_area=0.64, crop_aspect=1.0)
    values = (crop(images, keys())[:, 0] * 0.25 + 0.5) * 255.0
    height = values[:, -1].mean(1) - values[:, 0].mean(1)
    assert (height > 0.78 * 200).all() and (height < 0.9 * 200).any()


def test_the_configuration():
    assert all(each.default >= 0 for each in settings(AugmentConfig))
    assert set(PROBABILITIES) <= set(to_flat(AugmentConfig()))
    with pytest.raises(InputError):
        make(degrade_least=50, degrade_most=40)
