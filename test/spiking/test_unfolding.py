# SPDX-License-Identifier: Apache-2.0
"""Unfolding, layer by layer: integer and binary form agree, exactly where integers are summed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeCounter, SpikeProduct
from spike_perception.spiking.folding import fold_batch_norm, levels, quantise_weights
from spike_perception.spiking.neurons import ILIF, LIF, label_neurons, thermometer
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import Synapses, convolution, linear
from spike_perception.spiking.unfolding import flip_report, unfold

D = 4


def integers(*shape, seed=0):
    return torch.randint(0, D + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def normalised(synapses):
    """Give the batch normalisation statistics worth folding."""
    generator = torch.Generator().manual_seed(3)
    norm = synapses.norm
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=generator)
        norm.bias.normal_(generator=generator)
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return synapses.eval()


LAYERS = {
    "linear": (lambda: linear(24, 10, bias=True), (3, 7, 24)),
    "convolution": (lambda: convolution(6, 9), (3, 6, 8, 8)),
    "strided": (lambda: convolution(6, 9, 3, 2), (3, 6, 9, 8)),
    "depthwise": (lambda: convolution(6, 6, groups=6), (3, 6, 8, 8)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_folding_keeps_the_output(kind):
    make, shape = LAYERS[kind]
    synapses = normalised(make())
    folded = fold_batch_norm(synapses)
    assert folded.norm is None and synapses.norm is not None
    x = integers(*shape)
    torch.testing.assert_close(folded(x), synapses(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_integer_weights_agree_bit_for_bit_with_the_bias_added_once(kind):
    make, shape = LAYERS[kind]
    quantised = quantise_weights(nn.Sequential(normalised(make()), ILIF(D)))[0]
    x = integers(*shape)
    expected = quantised(x)
    quantised.substeps = D
    assert torch.equal(quantised(thermometer(x, D)), expected)
    silent = quantised(torch.zeros_like(thermometer(x, D)))
    bias = quantised.layer.bias
    assert torch.equal(
        silent[0].flatten(1 if silent.ndim > 3 else 0),
        silent[1].flatten(1 if silent.ndim > 3 else 0),
    )
    assert torch.equal(
        silent.movedim(1 if silent.ndim == 4 else -1, -1)[0].reshape(-1, len(bias))[0], bias
    )


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_sums_equal_real_integer_arithmetic(kind):
    make, shape = LAYERS[kind]
    quantised = quantise_weights(nn.Sequential(normalised(make()), ILIF(D)))[0]
    weight = quantised.integer_weight()
    assert weight.dtype == torch.int8 and weight.abs().max() <= 127
    x = integers(*shape)
    if kind == "linear":
        exact = (x.long() @ weight.long().T).double()
        scale, bias = quantised.scale.double(), quantised.layer.bias.double()
    else:
        columns = functional.unfold(x, 3, padding=1).long()
        exact = (weight.long().flatten(1) @ columns).unflatten(-1, x.shape[-2:]).double()
        scale = quantised.scale.double().reshape(-1, 1, 1)
        bias = quantised.layer.bias.double().reshape(-1, 1, 1)
    accumulated = quantised._accumulate(x)
    assert torch.equal(accumulated.double(), exact)
    torch.testing.assert_close(quantised(x).double(), exact * scale + bias, rtol=1e-6, atol=1e-6)


def test_a_layer_whose_sums_could_leave_float32_is_refused():
    wide = Synapses(nn.Linear(40_000, 1), norm=False)
    with pytest.raises(ValueError, match="not exact"):
        wide.quantise(D)


@pytest.mark.parametrize("kind", LAYERS)
def test_float_weights_agree_closely(kind):
    make, shape = LAYERS[kind]
    folded = fold_batch_norm(normalised(make()))
    x = integers(*shape)
    expected = folded(x)
    folded.substeps = D
    torch.testing.assert_close(folded(thermometer(x, D)), expected, rtol=1e-5, atol=1e-5)


def test_maximum_pooling_commutes():
    x = integers(2, 5, 9, 9)
    pooled = functional.max_pool2d(thermometer(x, D), 3, 2, 1)
    assert torch.equal(
        SpikeCounter()(functional.max_pool2d(x, 3, 2, 1)), pooled.unflatten(0, (D, -1)).sum(0)
    )


@pytest.mark.parametrize("map_spikes", [False, True])
def test_attention_agrees_bit_for_bit(map_spikes):
    product = SpikeProduct(4, ILIF(D) if map_spikes else None)
    q, k, v = (integers(2, 3, 20, 8, seed=seed) for seed in range(3))
    expected = product(q, k, v, Pass())
    unfolded = unfold(nn.ModuleList([product, ILIF(D)]))[0]
    binary = [thermometer(each, D) for each in (q, k, v)]
    assert torch.equal(unfolded(*binary, Pass()), expected)
    if not map_spikes:
        exact = q.long() @ (k.long().transpose(-1, -2) @ v.long())
        assert torch.equal(expected, exact.float() / 16)
        assert torch.equal((q.long() @ k.long().transpose(-1, -2)) @ v.long(), exact)


class Mixed(nn.Module):
    """Convolution, pooling, attention, a membrane shortcut and dense layers, in a row."""

    def __init__(self, neuron=lambda: ILIF(D)):
        super().__init__()
        self.first = convolution(3, 8, analogue=True)
        self.n1, self.conv = neuron(), convolution(8, 12)
        self.n2, self.qkv = neuron(), linear(12, 36)
        self.n3, self.product, self.n4, self.out = (
            neuron(),
            SpikeProduct(5),
            neuron(),
            linear(12, 12),
        )
        self.n5, self.counter = neuron(), SpikeCounter()
        for module in self.modules():
            if isinstance(module, Synapses):
                normalised(module)
        label_neurons(self)

    def forward(self, x, run):
        spikes = functional.max_pool2d(self.n1(self.first(x), run), 2)
        stream = self.conv(spikes).flatten(2).transpose(1, 2)
        q, k, v = self.n3(self.qkv(self.n2(stream, run)), run).chunk(3, -1)
        y = self.product(q[:, None], k[:, None], v[:, None], run)[:, 0]
        stream = stream + self.out(self.n4(y, run))
        return self.counter(self.n5(stream, run).sum(1))

    def run(self, sequence, state=None, record=(), forced=None):
        run = Pass(sequence.shape[0], state, record, forced)
        counts = self(sequence.flatten(0, 1), run).unflatten(0, (sequence.shape[0], -1))
        result = nn.Module()
        result.layers, result.counts, result.state = run.records, counts, run.state
        return result


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_a_network_of_all_kinds_agrees_bit_for_bit_with_integer_weights(beta):
    network = quantise_weights(Mixed(lambda: ILIF(D, beta)).eval())
    binary = unfold(network)
    x = torch.randn(3, 2, 3, 10, 10, generator=torch.Generator().manual_seed(2))
    a, b = network.run(x, record=None), binary.run(x, record=None)
    assert a.counts.max() > D and torch.equal(a.counts, b.counts)
    for label, layer in a.layers.items():
        assert layer.spikes.unique().numel() > 2, label
        assert torch.equal(layer.potential, b.layers[label].potential), label
    for mine, other in zip(a.state, b.state, strict=True):
        assert torch.equal(mine, other)
    assert len(a.state) == (0 if beta == 0 else 5)


def test_flips_with_float_weights_are_counted_and_bounded():
    network = fold_batch_norm(Mixed().eval())
    x = torch.randn(1, 40, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    report = flip_report(network, unfold(network), x)
    assert report.compared > 1_000_000
    assert report.rate < 1e-5 and report.rate <= report.bound < 1e-4
    assert 0 < report.largest_difference < 1e-4
    assert set(report.layers) == {"n1", "n2", "n3", "n4", "n5"}


def test_flips_are_found_where_networks_differ():
    network = fold_batch_norm(Mixed().eval())
    other = fold_batch_norm(network)
    with torch.no_grad():
        other.conv.layer.bias.add_(0.1)
    report = flip_report(network, other, torch.randn(1, 2, 3, 16, 16))
    assert report.layers["n2"] > 0.005 and report.layers["n1"] == report.layers["n3"] == 0
    assert 0 < report.rate < report.end_to_end_rate


def test_the_trained_network_is_left_alone():
    network = Mixed().train()
    binary = unfold(network)
    assert network.training and network.conv.norm is not None and network.conv.substeps == 1
    assert not binary.training and binary.conv.norm is None and binary.conv.substeps == D
    assert binary.first.substeps == 1  # the analogue layer runs once per time step
    assert levels(network) == D
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in binary.parameters())


def test_different_levels_are_refused():
    with pytest.raises(InputError, match=r"\[1, 4\]"):
        unfold(nn.ModuleList([ILIF(4), LIF()]))
