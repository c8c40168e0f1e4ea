# SPDX-License-Identifier: Apache-2.0
"""Integer networks as binary spiking networks: the transform, and how equal the two are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeCounter, SpikeMatmul
from spike_perception.spiking.folding import fold_batch_norm
from spike_perception.spiking.neurons import Neuron
from spike_perception.spiking.passes import LayerRecord
from spike_perception.spiking.synapses import Synapses

Network = TypeVar("Network", bound=nn.Module)


def unfold(network: Network) -> Network:
    """Folded copy of the network that runs T x D binary steps and yields the same result.

    An integer spike s becomes D binary sub-steps in thermometer order, ``b_d = 1[s >= d]``, and
    since ``W s = sum_d W b_d``:

    * every linear layer and convolution runs on the D binary sub-steps and sums their currents;
      the bias (batch normalisation folded into it) is added once;
    * neurons integrate all D sub-steps before they round, then emit D sub-steps themselves;
    * maximum pooling acts on each sub-step, with which the thermometer code commutes;
    * attention, trilinear in Q, K, V, runs D x D binary coincidence passes for K^T V and D for Q;
    * membrane shortcuts are sums of such currents and stay as they are.

    Only the layers marked analogue still see real numbers, once per time step and not D times.
    With int8 weights (:func:`quantise_weights`) the result is the same bit for bit; with float
    weights the order of summation differs, see :func:`flip_report`.

    Raises:
        InputError: ``mixed_levels`` if neuron layers with different D occur.
    """
    unfolded = fold_batch_norm(network)
    found = {m.levels for m in unfolded.modules() if isinstance(m, Neuron)}
    if len(found) != 1:
        raise InputError(
            "mixed_levels",
            f"the neuron layers emit up to {sorted(found)} spikes a step; unfolding needs one D",
        )
    (substeps,) = found
    for module in unfolded.modules():
        if isinstance(module, (Neuron, SpikeMatmul, SpikeCounter)) or (
            isinstance(module, Synapses) and not module.analogue
        ):
            module.substeps = substeps
    return unfolded


class Recorded(Protocol):
    """What a recorded pass holds."""

    @property
    def layers(self) -> Mapping[str, LayerRecord]:
        """Potential and spikes by label."""


class Recordable(Protocol):
    """A network that can be run with records and forced spikes; students are."""

    def modules(self) -> Iterator[nn.Module]:
        """As in ``nn.Module``."""

    def run(
        self,
        sequence: Tensor,
        state: Any = None,
        record: Collection[str] | None = (),
        forced: Mapping[str, Tensor] | None = None,
    ) -> Recorded:
        """All steps of a prepared sequence [T, B, ...]."""


@dataclass(frozen=True)
class FlipReport:
    """How often the spikes of two forms of a network differ.

    Attributes:
        compared: binary spikes compared: neurons x T x D x batch.
        rate: share of them that differ when every layer is given the same input spikes, so that
            each layer is judged by itself. This is the figure that is bounded by 1e-5.
        bound: share that could differ at most: potentials that lie no farther from a rounding tie
            than the layer's potentials differ between the two forms; 0 where they never differ.
        end_to_end_rate: share that differs when the second network runs by itself; one early flip
            changes the input of all that follows, so this is either 0 or far larger.
        largest_difference: largest difference of two potentials (V_th).
        layers: ``rate`` by neuron layer.
    """

    compared: int
    rate: float
    bound: float
    end_to_end_rate: float
    largest_difference: float
    layers: Mapping[str, float]


@torch.no_grad()
def flip_report(network: Recordable, other: Recordable, sequence: Tensor) -> FlipReport:
    """Compare a network in evaluation mode with another form of it, spike by spike.

    Args:
        network: the reference, such as a folded student.
        other: the form to judge, such as ``unfold(student)``.
        sequence: prepared input [T, B, ...].
    """
    reference = network.run(sequence, record=None).layers
    spikes = {label: layer.spikes for label, layer in reference.items()}
    alone = other.run(sequence, record=None).layers
    guided = other.run(sequence, record=None, forced=spikes).layers
    neurons = {m.label: m for m in network.modules() if isinstance(m, Neuron)}
    compared, flips, apart, close, largest = 0, 0.0, 0.0, 0.0, 0.0
    rates: dict[str, float] = {}
    for label, layer in reference.items():
        neuron = neurons[label]
        count = layer.spikes.numel() * neuron.levels
        difference = (guided[label].potential - layer.potential).abs().max().item()
        here = (guided[label].spikes - layer.spikes).abs().sum().item()
        compared += count
        flips += here
        apart += (alone[label].spikes - layer.spikes).abs().sum().item()
        if difference > 0:
            close += (_to_nearest_tie(layer.potential, neuron) <= difference).sum().item()
        largest = max(largest, difference)
        rates[label] = here / count
    return FlipReport(
        compared, flips / compared, close / compared, apart / compared, largest, rates
    )


def _to_nearest_tie(potential: Tensor, neuron: Neuron) -> Tensor:
    """Distance to the nearest potential at which the spike count changes."""
    first = neuron.first_tie
    ties = torch.clamp(torch.round(potential - first), 0, neuron.levels - 1) + first
    return (potential - ties).abs()
