# SPDX-License-Identifier: Apache-2.0
"""Energy estimate: arithmetic, counting rules, a hand-counted network, both forms alike."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from spike_perception.spiking.attention import SpikeCounter, SpikeMatmul
from spike_perception.spiking.energy import energy_mj, energy_report, sram_access_pj
from spike_perception.spiking.folding import fold_batch_norm
from spike_perception.spiking.neurons import ILIF, LIF
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import Synapses, convolution
from spike_perception.spiking.unfolding import unfold


def test_the_published_example():
    assert energy_mj(0.347e9, 6.518e9) == pytest.approx(7.46, abs=0.005)


def test_sram_energy_grows_with_size():
    assert sram_access_pj(1) == sram_access_pj(8 << 10) == 10
    assert sram_access_pj(32 << 10) == 20
    assert sram_access_pj(16 << 10) == 15
    assert sram_access_pj(1 << 20) == sram_access_pj(1 << 30) == 100


class Toy(nn.Module):
    """Analogue 2 -> 3, neurons, 3 -> 2, neurons; weights that can be followed by hand."""

    def __init__(self, neuron=lambda: ILIF(4)):
        super().__init__()
        self.first = Synapses(nn.Linear(2, 3, bias=False), norm=False, analogue=True)
        self.n1 = neuron()
        self.second = Synapses(nn.Linear(3, 2, bias=False), norm=False)
        self.n2 = neuron()
        self.counter = SpikeCounter()
        with torch.no_grad():
            self.first.layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
            self.second.layer.weight.fill_(0.5)

    def forward(self, x):
        run = Pass()
        return self.counter(self.n2(self.second(self.n1(self.first(x), run)), run))


def test_a_network_counted_by_hand():
    # Currents 1, 2, 3: spikes 1, 2, 3, sum 6 over 3 neurons, mean 2; then 3 and 3.
    report = energy_report(Toy(), torch.tensor([[1.0, 2.0]]), head=5, teacher_macs=1e6)
    first, second = report.layers
    assert (first.type, first.loose_type, first.operations, first.sops) == ("MAC", "MAC", 6, 6)
    assert (second.type, second.loose_type, second.operations) == ("MAC", "AC", 6)
    assert (second.rate, second.max_input, second.sops) == (2.0, 3.0, 12.0)
    assert report.student_mj == pytest.approx((6 * 4.6 + 12 * 0.9) / 1e9)
    assert report.student_strict_mj == report.ann_twin_mj == pytest.approx(12 * 4.6 / 1e9)
    assert report.ratio_to_ann_twin == pytest.approx((6 * 4.6 + 12 * 0.9) / (12 * 4.6))
    assert report.head_sops == 5 * 6 and report.head_mj == pytest.approx(30 * 0.9 / 1e9)
    assert report.neuron_updates == 5 * 4
    assert report.mean_firing_rate == 12 / 5 and report.mean_sub_step_rate == 12 / 20
    assert report.total_mj == pytest.approx(
        report.student_mj + report.head_mj + report.neuron_updates_mj
    )
    assert report.teacher_mj == pytest.approx(0.0046)


def test_the_unfolded_network_is_additions_only_and_costs_the_same():
    x = torch.tensor([[1.0, 2.0], [0.3, 3.3]])
    integer, binary = energy_report(Toy(), x), energy_report(unfold(Toy()), x)
    assert [each.type for each in binary.layers] == ["MAC", "AC"]
    assert [each.sops for each in binary.layers] == [each.sops for each in integer.layers]
    assert binary.student_strict_mj == binary.student_mj == integer.student_mj
    assert binary.mean_firing_rate == integer.mean_firing_rate


def test_two_values_outside_zero_to_one_are_no_spikes():
    layer = nn.Sequential(Synapses(nn.Linear(2, 1), norm=False), LIF())

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.neuron = layer

        def forward(self, x):
            return self.neuron(self.layer(x), Pass())

    def kind(values):
        return energy_report(Network(), torch.tensor([values])).layers[0].type

    assert kind([0.0, 1.0]) == kind([0.0, 0.5]) == "AC"
    assert kind([0.0, 2.0]) == kind([-1.0, 1.0]) == "MAC"


def test_attention_counts_coincidences():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.first = LIF(), SpikeMatmul()
            self.second, self.counter = SpikeMatmul(counts=True), SpikeCounter()

        def forward(self, x):
            s = self.neuron(x, Pass())
            return self.counter(self.second(s, self.first(s.transpose(-1, -2), s))).sum(1)

    # Spikes [[1, 1], [0, 1]]: K^T V = [[1, 1], [1, 2]], 5 coincidences; 3 spikes of Q add 2 each.
    report = energy_report(Network(), torch.tensor([[[9.0, 9.0], [0.0, 9.0]]]))
    first, second = report.layers
    assert (first.type, first.operations, first.sops) == ("AC", 8, 5)
    assert (second.type, second.operations, second.sops) == ("AC", 8, 6)


def test_operations_of_convolutions_are_right():
    assert convolution(6, 8, 3, 2, groups=2).operations(torch.zeros(2, 6, 9, 10)) == (
        5 * 5 * 8 * 3 * 9
    )


def test_hooks_are_gone_afterwards_and_the_report_is_plain_json():
    network = Toy()
    report = energy_report(network, torch.tensor([[1.0, 2.0]]))
    assert not any(m._forward_hooks for m in network.modules())
    again = json.loads(json.dumps(report.to_json()))
    keys = {"student_mj", "ann_twin_mj", "ratio_to_ann_twin", "mean_firing_rate", "layers"}
    assert keys <= set(again) and again["nature"] == "estimated, not measured"
    assert "second" in report.text() and "not measured" in report.text()


def test_folding_changes_nothing():
    x = torch.tensor([[1.0, 2.0]])
    assert energy_report(fold_batch_norm(Toy()), x) == energy_report(Toy(), x)
