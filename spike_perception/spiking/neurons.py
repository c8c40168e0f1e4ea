# SPDX-License-Identifier: Apache-2.0
"""Spiking neurons whose state is a value: a step takes the potential and returns the next one."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.spiking.passes import LayerRecord, Pass
from spike_perception.spiking.surrogates import SURROGATES, clipped_round, heaviside


class Neuron(nn.Module):
    """A layer of spiking neurons.

    Attributes:
        label: name within its network, set by :func:`label_neurons`.
        levels: D, the largest integer that one neuron emits in one time step.
        threshold: V_th, the potential of one spike.
        substeps: 1 in the integer form; D after unfolding, when every time step emits D binary
            sub-steps in thermometer order, stacked along the first axis: [D*T*B, ...].
        kappa: learnable initial potential per channel in units of V_th, or None for rest
            (warm start W2: V[0] = kappa_c * V_th, our reading).
    """

    levels: int
    threshold: float

    def __init__(self, channels: int | None = None, axis: int = -1, kappa: float = 0.25) -> None:
        """Make the layer.

        Args:
            channels: number of channels if the initial potential is learnable, else None.
            axis: axis of the channels in a step's input [B, ...]: 1 for images, -1 for tokens.
            kappa: initial value of the learnable initial potential (V_th).
        """
        super().__init__()
        self.label = ""
        self.substeps = 1
        self.axis = axis
        self.kappa = None if channels is None else nn.Parameter(torch.full((channels,), kappa))

    @property
    @abstractmethod
    def memoryless(self) -> bool:
        """True if no potential is carried from one time step to the next."""

    @property
    def first_tie(self) -> float:
        """Lowest potential that makes a neuron spike; the next spikes follow at distance 1."""
        return self.threshold

    @abstractmethod
    def charge(self, current: Tensor, potential: Tensor | None) -> Tensor:
        """Potential before the spike, H[t], from X[t] and V[t-1] (None: zero)."""

    @abstractmethod
    def fire(self, potential: Tensor) -> Tensor:
        """Spikes of the potential H[t], integers 0..levels."""

    @abstractmethod
    def reset(self, potential: Tensor, spikes: Tensor) -> Tensor:
        """Potential after the spike, V[t]."""

    def initial_state(self, current: Tensor) -> Tensor:
        """Potential before the first step for an input shaped like ``current`` [B, ...]."""
        if self.kappa is None:
            return torch.zeros_like(current)
        shape = [1] * current.ndim
        shape[self.axis] = -1
        start = (self.kappa * self.threshold).to(current.dtype)
        return start.reshape(shape).expand_as(current)

    def step(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One time step.

        Args:
            current: X[t], [B, ...].
            state: V[t-1], same shape; None starts from :meth:`initial_state`.

        Returns:
            Spikes S[t] and potential V[t], both [B, ...]. No module state is read or written.
        """
        spikes, _, after = self._step(current, self._start(current, state))
        return spikes, after

    def _start(self, current: Tensor, state: Tensor | None) -> Tensor | None:
        if state is None:
            return None if self.kappa is None else self.initial_state(current)
        if state.shape != current.shape:
            raise InputError(
                "wrong_state",
                f"neuron layer {self.label!r} was given a state of shape {tuple(state.shape)} for "
                f"an input of shape {tuple(current.shape)}; the shapes must be equal",
            )
        return state

    def _step(self, current: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        potential = self.charge(current, state)
        spikes = self.fire(potential)
        return spikes, potential, self.reset(potential, spikes)

    def forward(self, current: Tensor, run: Pass) -> Tensor:
        """All T steps of a pass.

        Args:
            current: X, [T*B, ...], time outermost.
            run: the pass; gives V before the first step, takes V after the last.

        Returns:
            Spikes [T*B, ...], or [D*T*B, ...] once unfolded.
        """
        steps = 1 if self.memoryless else run.steps
        if steps == 1:
            spikes, potential, after = self._once(current, run)
        else:
            sequence = current.unflatten(0, (steps, -1))
            state = self._start(sequence[0], run.take())
            outputs = []
            for x in sequence:
                s, h, state = self._step(x, state)
                outputs.append((s, h))
            spikes = torch.cat([s for s, _ in outputs])
            potential = torch.cat([h for _, h in outputs])
            after = state
        if not self.memoryless and after is not None:
            run.give(after)
        if run.wants(self.label):
            run.records[self.label] = LayerRecord(
                potential.unflatten(0, (run.steps, -1)), spikes.unflatten(0, (run.steps, -1))
            )
        forced = run.forced(self.label)
        if forced is not None:
            spikes = forced.flatten(0, 1)
        return spikes if self.substeps == 1 else thermometer(spikes, self.substeps)

    def _once(self, current: Tensor, run: Pass) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.memoryless:
            potential = self.charge(current, None)
            return self.fire(potential), potential, None
        return self._step(current, self._start(current, run.take()))


class LIF(Neuron):
    """Leaky integrate-and-fire neuron with binary spikes, as in Spikformer and QKFormer.

    Charge ``H[t] = V[t-1] + (X[t] - (V[t-1] - V_reset)) / tau`` (``decay_input``; without it
    ``H[t] = V[t-1] - (V[t-1] - V_reset) / tau + X[t]``), spike ``S[t] = 1[H[t] >= V_th]``, hard
    reset ``V[t] = H[t] (1 - S[t]) + V_reset S[t]`` or soft reset ``V[t] = H[t] - V_th S[t]``.
    """

    levels = 1

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        reset_potential: float | None = 0.0,
        decay_input: bool = True,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        alpha: float | None = None,
        channels: int | None = None,
        axis: int = -1,
    ) -> None:
        """Make the layer.

        Args:
            tau: membrane time constant (steps), at least 1.
            threshold: V_th.
            reset_potential: V_reset of the hard reset; None for the soft reset (rest at 0).
            decay_input: True if the input is divided by tau too.
            detach_reset: True if no gradient flows through the reset.
            surrogate: slope of the backward pass, see ``surrogates.heaviside``.
            alpha: its width parameter; None for a peak of 1.
            channels: as in :class:`Neuron`.
            axis: as in :class:`Neuron`.
        """
        super().__init__(channels, axis)
        if surrogate not in SURROGATES:
            raise InputError(
                "unknown_surrogate",
                f"surrogate {surrogate!r} does not exist; there are {', '.join(SURROGATES)}",
            )
        self.tau = tau
        self.threshold = threshold
        self.reset_potential = reset_potential
        self.decay_input = decay_input
        self.detach_reset = detach_reset
        self.surrogate = surrogate
        self.alpha = alpha

    @property
    def memoryless(self) -> bool:
        """False: the membrane is carried over."""
        return False

    def charge(self, current: Tensor, potential: Tensor | None) -> Tensor:
        """H[t] of the class description."""
        rest = self.reset_potential or 0.0
        if potential is None:
            potential = torch.zeros_like(current)
        drift = potential - rest
        if self.decay_input:
            return potential + (current - drift) / self.tau
        return potential - drift / self.tau + current

    def fire(self, potential: Tensor) -> Tensor:
        """S[t] of the class description."""
        return heaviside(potential - self.threshold, self.surrogate, self.alpha)

    def reset(self, potential: Tensor, spikes: Tensor) -> Tensor:
        """V[t] of the class description."""
        s = spikes.detach() if self.detach_reset else spikes
        if self.reset_potential is None:
            return potential - self.threshold * s
        return potential * (1.0 - s) + self.reset_potential * s


class ILIF(Neuron):
    """Integer leaky integrate-and-fire neuron: emits 0..D spikes at once, trained as an integer.

    ``U[t] = beta (U[t-1] - s[t-1]) + X[t]``, ``s[t] = floor(clip(U[t], 0, D) + 0.5)``, soft reset
    by the emitted integer (detached), straight-through gradient inside [0, D]. With ``beta = 0``
    this is the T = 1 form of SVL and SDT-V3: no membrane, no state, no loop over time.

    One integer s stands for the D binary sub-steps ``b_d = 1[s >= d]`` (thermometer code). They are
    what an integrate-and-fire neuron with threshold 1, soft reset and no leak emits when it is
    pre-charged with U + 0.5 and then runs D sub-steps without input, here computed at once.
    """

    threshold = 1.0

    def __init__(
        self, levels: int = 4, beta: float = 0.0, channels: int | None = None, axis: int = -1
    ) -> None:
        """Make the layer.

        Args:
            levels: D, 1..255.
            beta: share of the potential kept from step to step; 0.25 in SpikeYOLO.
            channels: as in :class:`Neuron`; needs a membrane, so ``beta`` above 0.
            axis: as in :class:`Neuron`.
        """
        super().__init__(channels if beta > 0.0 else None, axis)
        self.levels = levels
        self.beta = beta

    @property
    def memoryless(self) -> bool:
        """True if ``beta`` is 0."""
        return self.beta == 0.0

    @property
    def first_tie(self) -> float:
        """0.5, since potentials are rounded half up."""
        return 0.5

    def charge(self, current: Tensor, potential: Tensor | None) -> Tensor:
        """U[t] of the class description."""
        return current if potential is None else self.beta * potential + current

    def fire(self, potential: Tensor) -> Tensor:
        """s[t] of the class description."""
        return clipped_round(potential, self.levels)

    def reset(self, potential: Tensor, spikes: Tensor) -> Tensor:
        """Potential after the spike, U[t] - s[t]."""
        return potential - spikes.detach()


def thermometer(spikes: Tensor, levels: int) -> Tensor:
    """Binary sub-steps ``b_d = 1[s >= d]``, d = 1..D, stacked along the first axis.

    Args:
        spikes: integers 0..D, [M, ...].
        levels: D.

    Returns:
        0 and 1 in the dtype of ``spikes``, [D*M, ...], all spikes first.
    """
    return torch.cat([(spikes >= d).to(spikes.dtype) for d in range(1, levels + 1)])


def label_neurons(network: nn.Module) -> None:
    """Give every neuron layer its path in the network as its label."""
    for name, module in network.named_modules():
        if isinstance(module, Neuron):
            module.label = name
