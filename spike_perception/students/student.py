# SPDX-License-Identifier: Apache-2.0
"""What every student is: sensor data in, spike counts out, all state in the caller's hands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeCounter
from spike_perception.spiking.neurons import ILIF, LIF, Neuron, label_neurons
from spike_perception.spiking.passes import LayerRecord, Pass, State
from spike_perception.spiking.synapses import Synapses


@dataclass(frozen=True)
class SpikingConfig:
    """Settings of the neurons, common to all students."""

    neuron: str = setting(
        "ilif",
        "neuron model: ilif emits integers 0..levels, lif binary spikes",
        choices=("ilif", "lif"),
        fixed=True,
    )
    steps: int = setting(1, "time steps T", minimum=1, maximum=64, fixed=True)
    levels: int = setting(4, "integer levels D of ilif", minimum=1, maximum=16, fixed=True)
    beta: float = setting(
        0.25,
        "share of the membrane that ilif keeps from step to step (without effect for one step)",
        minimum=0.0,
        maximum=1.0,
        fixed=True,
    )
    tau: float = setting(2.0, "membrane time constant of lif (steps)", minimum=1.0, fixed=True)
    reset: str = setting("hard", "reset of lif", choices=("hard", "soft"), fixed=True)
    surrogate: str = setting(
        "sigmoid",
        "shape of lif's surrogate gradient",
        choices=("sigmoid", "atan", "rectangle"),
        fixed=True,
    )
    learn_initial: bool = setting(
        False,
        "learn an initial membrane potential per channel (needs a membrane: lif, or steps > 1)",
        fixed=True,
    )


def make_neuron(
    config: SpikingConfig, channels: int, axis: int = -1, threshold: float = 1.0
) -> Neuron:
    """Neuron layer of the configured model.

    Args:
        config: the student's configuration.
        channels: channels of the layer.
        axis: their axis in a step's input: 1 for images, -1 for tokens.
        threshold: V_th of lif (V); ilif always has 1.
    """
    learned = channels if config.learn_initial else None
    if config.neuron == "ilif":
        beta = config.beta if config.steps > 1 else 0.0
        return ILIF(config.levels, beta, learned, axis)
    return LIF(
        tau=config.tau,
        threshold=threshold,
        reset_potential=0.0 if config.reset == "hard" else None,
        surrogate=config.surrogate,
        channels=learned,
        axis=axis,
    )


@dataclass(frozen=True)
class Trace:
    """Everything a pass hands out, with gradients.

    Attributes:
        counts: spike counts of the last spiking layer, one row per time step, [T, B, C].
        tokens: spikes of the last layer that still has tokens, [T, B, N, C'].
        state: membrane potentials after the last step; () without membranes.
        layers: potential and spikes of the recorded neuron layers, by label.
    """

    counts: Tensor
    tokens: Tensor
    state: State
    layers: Mapping[str, LayerRecord]

    @property
    def feature(self) -> Tensor:
        """F, the spike counts summed over time, [B, C]."""
        return self.counts.sum(0)


class Student(nn.Module):
    """A spiking network whose output is the spike count of its last layer.

    Attributes:
        config_type: class of its configuration.
        presets: what differs from that class's defaults, by size.
        config: its frozen configuration; the network is a function of it and of the weights.
        feature_dim: C, the number of output channels.
        tokens_from: label of the last neuron layer that still has tokens.
        block_layers: labels of the last neuron layer of each block, in order.
    """

    config_type: ClassVar[type[SpikingConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, object]]]
    config: SpikingConfig
    feature_dim: int
    tokens_from: str
    block_layers: tuple[str, ...]
    #: Axes of one prepared sample, without batch and time.
    sample_axes: ClassVar[int]

    def __init__(self, config: SpikingConfig) -> None:
        """Keep the configuration; subclasses build the layers and call ``finish``."""
        super().__init__()
        if config.learn_initial and config.neuron == "ilif" and config.steps == 1:
            raise InputError(
                "invalid_setting",
                "learn_initial needs a membrane: set neuron to lif or steps above 1",
            )
        self.config = config
        self.counter = SpikeCounter()

    def finish(self) -> None:
        """Name the neuron layers; to be called at the end of construction."""
        label_neurons(self)

    @abstractmethod
    def encode(self, x: Tensor, run: Pass) -> Tensor:
        """Spike counts [T*B, C] of prepared input [T*B, ...]; the network itself."""

    def prepare(self, samples: Tensor) -> Tensor:
        """Sensor data [B, ...] to network input [B, ...]; here unchanged.

        Not differentiable and not part of an exported graph.
        """
        return samples

    def run(
        self,
        sequence: Tensor,
        state: State | None = None,
        record: Collection[str] | None = (),
        forced: Mapping[str, Tensor] | None = None,
    ) -> Trace:
        """All steps of a prepared sequence.

        Args:
            sequence: prepared input, [T, B, ...].
            state: what an earlier pass left; None starts from rest.
            record: labels of neuron layers to record; None for all.
            forced: spikes that replace those of neuron layers, by label (see ``Pass``).

        Raises:
            InputError: ``wrong_input`` or ``wrong_state`` for shapes that do not fit.
        """
        if sequence.ndim != self.sample_axes + 2:
            raise InputError(
                "wrong_input",
                f"a prepared sequence for {type(self).__name__} has {self.sample_axes + 2} axes "
                f"(time, batch, sample), this one has shape {tuple(sequence.shape)}",
            )
        steps = sequence.shape[0]
        labels = None if record is None else {*record, self.tokens_from}
        run = Pass(steps, state, labels, forced)
        counts = self.encode(sequence.flatten(0, 1), run).unflatten(0, (steps, -1))
        if state is not None and len(state) != len(run.state):
            raise InputError(
                "wrong_state",
                f"the state holds {len(state)} potentials, the network has {len(run.state)}; "
                "pass the state that a step of this network returned, or none",
            )
        return Trace(counts, run.records[self.tokens_from].spikes, tuple(run.state), run.records)

    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One time step of streaming: the same result as the multi-step call, step by step.

        Args:
            x_t: prepared input of this step, [B, ...].
            state: what the step before returned; None starts from rest.

        Returns:
            Spike counts of this step [B, C], and the state for the next.
        """
        trace = self.run(x_t[None], state)
        return trace.counts[0], trace.state

    @torch.no_grad()
    def initial_state(self, x_t: Tensor) -> State:
        """The resting state for prepared input shaped like ``x_t`` [B, ...].

        Same as starting with ``state=None``, as tensors: what an exported step takes first.
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            trace = self.run(x_t[None], record=None)
        finally:
            for module, mode in modes.items():
                module.training = mode
        neurons = {m.label: m for m in self.modules() if isinstance(m, Neuron)}
        return tuple(
            neurons[label].initial_state(layer.potential[0]).clone()
            for label, layer in trace.layers.items()
            if not neurons[label].memoryless
        )

    def sequence(self, samples: Tensor) -> Tensor:
        """Prepared sequence [T, B, ...] of sensor data.

        One sample per item, [B, ...], is repeated for the T configured steps (direct coding);
        [B, T, ...] gives one sample per step, T then being free.
        """
        single = self.raw_axes + 1
        if samples.ndim not in (single, single + 1):
            raise InputError(
                "wrong_input",
                f"{type(self).__name__} takes a batch with {single} axes, or {single + 1} with "
                f"one sample per step, but was given shape {tuple(samples.shape)}",
            )
        if samples.ndim == single:
            prepared = self.prepare(samples)
            return prepared.unsqueeze(0).expand(self.config.steps, *prepared.shape)
        batch, steps = samples.shape[:2]
        prepared = self.prepare(samples.flatten(0, 1))
        return prepared.unflatten(0, (batch, steps)).transpose(0, 1)  # type: ignore[no-any-return]

    @property
    def raw_axes(self) -> int:
        """Axes of one sample as the sensor gives it, without batch and time."""
        return self.sample_axes

    def trace(self, samples: Tensor, record: Collection[str] | None = ()) -> Trace:
        """Multi-step pass over sensor data, with what distillation needs; see :meth:`run`."""
        return self.run(self.sequence(samples), record=record)

    def forward(self, samples: Tensor) -> Tensor:
        """F, the spike counts of the last layer summed over time.

        Args:
            samples: [B, ...] (repeated T times) or [B, T, ...], see :meth:`sequence`.

        Returns:
            [B, C], integers in floating point.
        """
        return self.trace(samples).feature

    def neurons(self) -> dict[str, Neuron]:
        """Neuron layers by label, in order of declaration."""
        return {m.label: m for m in self.modules() if isinstance(m, Neuron)}

    def analogue_layers(self) -> tuple[str, ...]:
        """Names of the layers that see a sensor's values; only they multiply."""
        return tuple(
            name for name, m in self.named_modules() if isinstance(m, Synapses) and m.analogue
        )
