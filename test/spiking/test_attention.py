# SPDX-License-Identifier: Apache-2.0
"""Spike products: associativity, scale, counts kept exact under mixed precision."""

from __future__ import annotations

import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeMatmul, SpikeProduct
from spike_perception.spiking.neurons import ILIF
from spike_perception.spiking.passes import Pass


def spikes(*shape, seed=0):
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def test_the_scale_is_a_power_of_two():
    assert SpikeProduct(3).scale == 0.125
    assert SpikeProduct(0).scale == 1.0


def test_neurons_on_the_map_are_another_function():
    q, k, v = (spikes(1, 2, 30, 16, seed=s) for s in range(3))
    associative = SpikeProduct(8)(q, k, v, Pass())
    assert not torch.equal(SpikeProduct(8, ILIF(4))(q, k, v, Pass()), associative)


def test_counts_stay_exact_under_autocast():
    k, v = spikes(1, 300, 8).transpose(-1, -2), spikes(1, 300, 8, seed=1)
    exact = (k.long() @ v.long()).float()
    assert (exact > 256).any() and (exact % 2 == 1).any()
    with torch.autocast("cpu", torch.bfloat16):
        counts = SpikeMatmul()(k.bfloat16(), v.bfloat16())
    assert torch.equal(counts, exact)


@pytest.mark.parametrize("neuron", [None, ILIF(4)])
def test_counts_that_could_leave_float32_are_refused(neuron):
    product = SpikeProduct(0, neuron)
    tokens = 1 << (16 if neuron is None else 20)
    q = torch.zeros(1, 1, tokens, 4)
    product.quantise(4)
    with pytest.raises(InputError, match="not exact") as caught:
        product(q, q, q, Pass())
    assert caught.value.reason == "not_quantisable"
    few = spikes(1, 1, 20, 4)
    assert torch.isfinite(product(few, few, few, Pass())).all()
