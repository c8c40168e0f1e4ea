# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import TemporalConfig
from spike_perception.training.vl2spike.temporal import (
    consistency_weight,
    membrane_consistency,
    rate_consistency,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.0),
        (0.1, 0.0),
        (0.15, 0.1 * 0.5 * (1 - 0.5**0.5)),
        (0.2, 0.05),
        (0.3, 0.1),
        (1.0, 0.1),
    ],
)
def test_warm_start_follows_its_schedule(progress, expected):
    assert consistency_weight(progress, TemporalConfig()) == pytest.approx(expected, abs=1e-12)


def test_the_schedules_corners():
    assert consistency_weight(0.0, TemporalConfig(warm_start=False)) == 0.1
    step = TemporalConfig(width=0.0)
    assert [consistency_weight(e, step) for e in (0.0, 0.0999, 0.1, 1.0)] == [0.0, 0.0, 0.1, 0.1]
    values = [consistency_weight(e / 100, TemporalConfig()) for e in range(101)]
    assert values == sorted(values)
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError) as caught:
            consistency_weight(progress, TemporalConfig())
        assert caught.value.reason == "wrong_progress"


def test_unchanging_dynamics_cost_nothing():
    potential = torch.randn(3, 5, 7).expand(4, 3, 5, 7)
    assert membrane_consistency(potential).item() == pytest.approx(0.0, abs=1e-10)
    assert rate_consistency(torch.ones(4, 3, 5, 7)).item() == 0.0
    assert rate_consistency(torch.zeros(4, 3, 5, 7)).item() == 0.0


def test_standardising_ignores_gain_and_offset_per_channel():
    first = torch.randn(1, 8, 7)
    potential = torch.stack([first, 3.0 * first + torch.randn(7)])
    assert membrane_consistency(potential).item() == pytest.approx(0.0, abs=1e-6)
    # The same numbers with the channels taken from another axis are not standardised away.
    assert membrane_consistency(potential, axis=1).item() > 0.01


def test_known_membrane_value():
    # Standardised, the steps are (-1, 1), (1, -1) and (-1, 1). The average before step 3 is zero.
    potential = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]).reshape(3, 2, 1)
    assert membrane_consistency(potential).item() == pytest.approx((4 + 1) / 2, abs=1e-3)
    # Only the last step counts with decay 0: both steps then are opposite to the one before.
    assert membrane_consistency(potential, decay=0.0).item() == pytest.approx(4.0, abs=1e-3)


def test_known_rate_value():
    # Running rates 1, 1/2, 1/3, 1/2.
    spikes = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1)
    expected = (0.5**2 + 0.0 + (1 / 6) ** 2) / 3
    assert rate_consistency(spikes).item() == pytest.approx(expected)
    assert rate_consistency(2.0 * spikes, levels=2).item() == pytest.approx(expected)


def test_one_step_of_integers_counts_as_substeps_or_not_at_all():
    # s = 1 of D = 4: running rates 1, 1/2, 1/3, final 1/4.
    one = torch.ones(1, 1, 1, 1)
    expected = ((3 / 4) ** 2 + (1 / 4) ** 2 + (1 / 12) ** 2) / 3
    assert rate_consistency(one, levels=4).item() == pytest.approx(expected)
    assert rate_consistency(one, levels=4, substeps=False).item() == 0.0
    assert rate_consistency(one, levels=1).item() == 0.0
    assert rate_consistency(4 * one, levels=4).item() == 0.0
    assert rate_consistency(0 * one, levels=4).item() == 0.0
    assert membrane_consistency(one).item() == 0.0


def test_targets_get_no_gradient():
    potential = torch.randn(3, 4, 5, requires_grad=True)
    membrane_consistency(potential).backward()
    assert potential.grad[0].abs().sum() == 0  # the first step is only ever a target
    assert (potential.grad[1:].abs().sum((1, 2)) > 0).all()
    spikes = torch.rand(3, 4, 5, requires_grad=True)
    rate_consistency(spikes).backward()
    assert spikes.grad[-1].abs().sum() == 0  # the last step is in the final rate alone
    assert (spikes.grad[:-1].abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize("loss", [membrane_consistency, rate_consistency])
@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (0, 2, 3), (3, 0, 2)])
def test_wrong_shapes_are_refused(loss, shape):
    with pytest.raises(InputError) as caught:
        loss(torch.zeros(shape))
    assert caught.value.reason == "wrong_shape"
