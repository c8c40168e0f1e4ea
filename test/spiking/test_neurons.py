# SPDX-License-Identifier: Apache-2.0
"""Neurons: hand-computed traces, resets, gradients, explicit state, binary sub-steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.spiking.neurons import ILIF, LIF, thermometer
from spike_perception.spiking.passes import Pass


def drive(neuron, currents, state=None):
    """Spikes and potentials after each step for one neuron."""
    spikes, potentials = [], []
    for current in currents:
        s, state = neuron.step(torch.tensor([[float(current)]]), state)
        spikes.append(s.item())
        potentials.append(state.item())
    return spikes, potentials


def test_lif_hard_reset_by_hand():
    # H = (V + X) / 2: 0.75, 1.125 (spike), 0.75, 1.125 (spike), 1.5 (spike), 0
    spikes, potentials = drive(LIF(), [1.5, 1.5, 1.5, 1.5, 3.0, 0.0])
    assert spikes == [0, 1, 0, 1, 1, 0]
    assert potentials == [0.75, 0.0, 0.75, 0.0, 0.0, 0.0]


def test_lif_soft_reset_by_hand():
    # H: 1.5 -> V 0.5; H (0.5 + 1) / 2 = 0.75; H (0.75 + 3) / 2 = 1.875 -> V 0.875
    spikes, potentials = drive(LIF(reset_potential=None), [3.0, 1.0, 3.0])
    assert spikes == [1, 0, 1]
    assert potentials == [0.5, 0.75, 0.875]


def test_lif_without_decay_of_the_input_by_hand():
    # H = V / 2 + X: 0.75, 1.125 (spike), 0.75
    spikes, potentials = drive(LIF(decay_input=False), [0.75, 0.75, 0.75])
    assert spikes == [0, 1, 0]
    assert potentials == [0.75, 0.0, 0.75]


def test_lif_rests_at_its_reset_potential():
    # From 0: H = 0 + (0 - (0 + 0.5)) / 2 = -0.25, then -0.375, towards -0.5.
    _, potentials = drive(LIF(reset_potential=-0.5), [0.0, 0.0])
    assert potentials == [-0.25, -0.375]


def test_lif_constant_input_of_one_never_fires_and_two_fires_at_once():
    assert sum(drive(LIF(), [1.0] * 20)[0]) == 0
    assert drive(LIF(), [2.0])[0] == [1]


def test_lif_threshold():
    assert drive(LIF(threshold=0.5), [1.0, 0.9])[0] == [1, 0]


def test_detached_reset_carries_no_gradient():
    gradients = {}
    for detach in (True, False):
        x = torch.tensor([[2.2]], dtype=torch.float64, requires_grad=True)
        neuron = LIF(detach_reset=detach)
        spikes, potential = neuron.step(x)
        assert spikes.item() == 1
        potential.sum().backward()
        gradients[detach] = x.grad.item()
    # V = H (1 - S): dV/dX = (1 - S) / 2 = 0 when detached, else -H S'(H - 1) / 2 on top.
    h = torch.tensor(1.1, dtype=torch.float64)
    sigmoid = torch.sigmoid(4 * (h - 1))
    assert gradients[True] == 0.0
    assert gradients[False] == pytest.approx((-h * 4 * sigmoid * (1 - sigmoid) / 2).item())


def test_lif_gradient_through_time_by_hand():
    x = torch.tensor([0.4, 1.0], dtype=torch.float64, requires_grad=True)
    neuron = LIF()
    _, state = neuron.step(x[0:1])
    spikes, _ = neuron.step(x[1:2], state)
    spikes.sum().backward()
    # H2 = (H1 + X2) / 2 = 0.6, H1 = X1 / 2
    sigmoid = torch.sigmoid(torch.tensor(4 * (0.6 - 1.0), dtype=torch.float64))
    slope = (4 * sigmoid * (1 - sigmoid)).item()
    assert x.grad.tolist() == pytest.approx([slope / 4, slope / 2])


def test_ilif_membrane_by_hand():
    # beta 0.25: U = 1.4 -> 1, V 0.4; U = 0.1 + 2.4 = 2.5 -> 3 (tie upwards), V -0.5;
    # U = -0.125 + 9 -> 4, V 4.875; U = 1.21875 + 0 -> 1, V 0.21875
    spikes, potentials = drive(ILIF(4, 0.25), [1.4, 2.4, 9.0, 0.0])
    assert spikes == [1, 3, 4, 1]
    assert potentials == pytest.approx([0.4, -0.5, 4.875, 0.21875])


def test_ilif_reset_is_detached():
    x = torch.tensor([1.4, 0.3], dtype=torch.float64, requires_grad=True)
    neuron = ILIF(4, 0.25)
    _, state = neuron.step(x[0:1])
    spikes, _ = neuron.step(x[1:2], state)
    spikes.sum().backward()
    assert x.grad.tolist() == [0.25, 1.0]


def test_ilif_without_membrane_has_no_state():
    neuron = ILIF(4)
    run = Pass(steps=3)
    current = torch.tensor([0.2, 1.5, 7.0])[:, None]
    assert neuron(current, run).flatten().tolist() == [0, 2, 4]
    assert run.state == []


@pytest.mark.parametrize("neuron", [LIF(), LIF(reset_potential=None), ILIF(4, 0.25)])
def test_multi_step_equals_single_steps(neuron):
    currents = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)) * 2
    run = Pass(steps=5)
    together = neuron(currents.flatten(0, 1), run).unflatten(0, (5, 2))
    state = None
    for t in range(5):
        spikes, state = neuron.step(currents[t], state)
        assert torch.equal(spikes, together[t])
    assert torch.equal(run.state[0], state)


def test_a_step_changes_nothing_in_the_module():
    neuron = LIF()
    x = torch.full((1, 4), 1.5)
    first, state = neuron.step(x)
    again, _ = neuron.step(x)
    assert torch.equal(first, again)
    assert neuron.step(x, state)[0].sum() == 4
    assert not list(neuron.buffers())


def test_initial_potential_is_learned_per_channel():
    neuron = LIF(channels=2, axis=1)
    with torch.no_grad():
        neuron.kappa.copy_(torch.tensor([0.0, 0.5]))
    current = torch.full((1, 2, 1, 1), 1.6)
    spikes, _ = neuron.step(current)
    assert spikes.flatten().tolist() == [0, 1]  # H = 0.8 and 1.05
    assert neuron.initial_state(current).flatten().tolist() == [0.0, 0.5]
    spikes.sum().backward()
    assert (neuron.kappa.grad > 0).all()


def test_a_state_of_the_wrong_shape_is_refused():
    with pytest.raises(InputError, match="state of shape") as caught:
        LIF().step(torch.zeros(2, 3), torch.zeros(2, 4))
    assert caught.value.reason == "wrong_state"


def test_an_unknown_surrogate_is_refused():
    with pytest.raises(InputError, match="sigmoid, atan, rectangle"):
        LIF(surrogate="step")


def integrate_and_fire(potential, sub_steps):
    """The binary neuron itself: pre-charged, threshold 1, soft reset, no leak, no further input."""
    membrane = potential + 0.5
    train = []
    for _ in range(sub_steps):
        spike = (membrane >= 1.0).float()
        membrane = membrane - spike
        train.append(spike)
    return torch.cat(train)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.lists(st.floats(-3, 12, width=32), min_size=1, max_size=30))
def test_sub_steps_are_those_of_an_integrate_and_fire_neuron(levels, values):
    x = torch.tensor([*values, *(d + 0.5 for d in range(-1, 10))])
    binary = ILIF(levels)
    binary.substeps = levels
    train = binary(x, Pass())
    assert torch.equal(train, integrate_and_fire(x, levels))
    train = train.unflatten(0, (levels, -1))
    assert torch.equal(train.sum(0), ILIF(levels)(x, Pass()))
    assert (train[1:] <= train[:-1]).all()  # thermometer order: no spike after a pause


def test_thermometer_commutes_with_the_maximum():
    counts = torch.randint(0, 5, (6, 50), generator=torch.Generator().manual_seed(0)).float()
    train = thermometer(counts, 4).unflatten(0, (4, 6))
    assert torch.equal(train.amax(1).sum(0), counts.amax(0))
