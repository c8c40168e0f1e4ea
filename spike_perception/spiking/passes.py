# SPDX-License-Identifier: Apache-2.0
"""One call of a spiking network: the steps it covers, the state it starts from, what it records.

Modules hold weights only. Whatever belongs to a call, above all the membrane potentials, travels
in a :class:`Pass` that the caller makes and drops, so two calls can never influence each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from spike_perception.errors import InputError

#: Membrane potentials after a step, one tensor per neuron layer that has a memory, in the order
#: in which the network calls them. An empty tuple for networks without memory (T = 1).
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class LayerRecord:
    """What one neuron layer did in a pass.

    Attributes:
        potential: membrane potential before the spike, [T, B, ...].
        spikes: spikes emitted, integers, [T, B, ...] (in an unfolded network [T, B, ...] too: the
            count over the sub-steps).
    """

    potential: Tensor
    spikes: Tensor


class Pass:
    """Bookkeeping of one call over ``steps`` time steps."""

    def __init__(
        self,
        steps: int = 1,
        state: State | None = None,
        record: Collection[str] | None = (),
        forced: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Start a pass.

        Args:
            steps: T; tensors in the network have T*B as first axis, time outermost.
            state: membrane potentials to start from; None means rest (the initial potential).
            record: labels of the neuron layers to record; None records every one.
            forced: spikes [T, B, ...] by label that replace what those layers emit, after
                recording. This is how layers are compared on equal input.
        """
        self.steps = steps
        self.records: dict[str, LayerRecord] = {}
        self.state: list[Tensor] = []
        self._record = None if record is None else frozenset(record)
        self._forced = forced or {}
        self._start = state
        self._taken = 0

    def take(self) -> Tensor | None:
        """Next neuron layer's starting potential; None means its initial potential."""
        if self._start is None:
            return None
        if self._taken >= len(self._start):
            raise InputError(
                "wrong_state",
                f"the state holds {len(self._start)} potentials, the network needs more; "
                "pass the state that a step of this network returned, or none",
            )
        self._taken += 1
        return self._start[self._taken - 1]

    def give(self, potential: Tensor) -> None:
        """Hand in a neuron layer's potential after the last step."""
        self.state.append(potential)

    def wants(self, label: str) -> bool:
        """True if the layer of that label is to be recorded."""
        return self._record is None or label in self._record

    def forced(self, label: str) -> Tensor | None:
        """Spikes that are to replace that layer's, or None."""
        return self._forced.get(label)
