# SPDX-License-Identifier: Apache-2.0
"""Transforms of a trained network for inference; each returns a new network."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from spike_perception.spiking.attention import SpikeProduct
from spike_perception.spiking.neurons import Neuron
from spike_perception.spiking.synapses import Synapses

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network) -> Network:
    """Copy of the network for inference, batch normalisation folded into weights and biases.

    The copy is in evaluation mode and its parameters want no gradient.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, Synapses):
            module.fold()
    return folded.requires_grad_(False)


def levels(network: nn.Module) -> int:
    """D, the largest integer that any neuron layer of the network emits in one time step."""
    return max((m.levels for m in network.modules() if isinstance(m, Neuron)), default=1)


def largest_input(network: nn.Module) -> int:
    """The largest integer that any connection of the network sees in one time step.

    D where only spikes reach connections; networks that add spikes to spikes state their own.
    """
    return int(getattr(network, "largest_input", levels(network)))


def quantise_weights(network: Network) -> Network:
    """Folded copy of the network with int8 weights, one scale per output channel.

    Everything that is summed in such a network is an integer (see ``Synapses.quantise``), so it
    and its unfolded form agree bit for bit. The analogue first layers are quantised alike, but
    their inputs are real numbers.
    """
    quantised = fold_batch_norm(network)
    largest = largest_input(quantised)
    for module in quantised.modules():
        if isinstance(module, Synapses):
            module.quantise(largest)
        elif isinstance(module, SpikeProduct):
            module.quantise(levels(quantised))
    return quantised
