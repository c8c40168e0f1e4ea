# SPDX-License-Identifier: Apache-2.0
"""Export of a student's binary form to NIR (Pedersen et al., 2024), for neuromorphic tools.

How a student becomes a graph of NIR primitives, on every edge of which run binary spikes or the
currents they cause:

* connections: ``Conv2d`` with batch normalisation folded; a linear layer on tokens or points is a
  1 x 1 convolution over their grid; on a vector it is ``Affine``;
* ``ilif`` neurons without membrane (T = 1): D ``Threshold`` nodes side by side, at 0.5, 1.5, ...,
  D - 0.5: the thermometer code in space instead of in time. Whatever follows gets an edge from all
  D, and NIR adds up what arrives, so the bias counts once and the network is the same exactly;
* ``lif`` neurons: ``LIF`` with tau in time steps and dt = 1. NIR fires above the threshold, we
  fire at it too: the float32 number just below it is written;
* shortcuts: two edges into one node; sum over tokens: ``SumPool2d`` and ``Flatten``;
* maximum over points: ``SumPool2d`` and ``Threshold`` 0.5, on each binary plane; where it stands
  beside every point, the window reaches over all of them from each.

NIR has no node that multiplies two signals, so the product of attention cannot be expressed. A
Spikformer is exported up to these products where that is asked for: every block then has an
``Output`` of binary Q, K, V (in this order along the channels, heads within each) and an ``Input``
for ``2**-shift Q (K^T V)``, which the host or a coprocessor computes. Soft resets, membranes of
``ilif`` and learned initial potentials have no primitive either.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spike_perception.errors import InputError
from spike_perception.spiking.folding import fold_batch_norm
from spike_perception.spiking.neurons import ILIF, LIF, Neuron
from spike_perception.spiking.synapses import Synapses
from spike_perception.students.pointnet import SpikePointNet
from spike_perception.students.spikformer import Spikformer
from spike_perception.students.student import Student

if TYPE_CHECKING:
    from nir import NIRGraph

#: Nodes whose outputs are summed, and the shape of each, [C, rows, columns].
Signal = tuple[tuple[str, ...], tuple[int, ...]]


def to_nir(student: Student, sample_shape: Sequence[int], products: bool = False) -> NIRGraph:
    """The graph of a student.

    Inputs are one time step: an image [3, H, W], or points as [3 + F, N, 1]. The output ``output``
    is the spikes of the last layer, [C]; over the T steps they add up to the student's feature.

    Args:
        student: a Spike PointNet, or a Spikformer with ``products=True``.
        sample_shape: shape of one prepared sample, [3, H, W] or [N, 3 + F].
        products: True to leave the products of attention to the host.

    Raises:
        InputError: ``not_expressible``, saying which part NIR has no primitive for;
            ``engine_missing`` without the package nir.
    """
    try:
        import nir  # noqa: F401
    except ImportError as error:
        raise InputError(
            "engine_missing", "export needs the package nir: pip install nir"
        ) from error
    folded = fold_batch_norm(student)
    for label, neuron in folded.neurons().items():
        _check(label, neuron)
    if isinstance(folded, SpikePointNet):
        return _PointNet(folded).graph(sample_shape)
    if isinstance(folded, Spikformer) and products and not folded.config.map_spikes:
        return _Spikformer(folded).graph(sample_shape)
    if isinstance(folded, Spikformer):
        raise InputError(
            "not_expressible",
            "a Spikformer multiplies spikes with spikes in its attention, for which NIR has no "
            "node; export it with the products left to the host (--products; not with map_spikes)",
        )
    raise InputError(
        "not_expressible",
        f"{type(student).__name__} cannot be expressed in NIR, which has no node for products of "
        "spikes and none that groups points; Spike PointNet can, Spikformer but for its products",
    )


def write_nir(graph: NIRGraph, path: Path) -> None:
    """Write the graph as NIR's HDF5 file.

    Raises:
        InputError: ``cannot_write``.
    """
    import nir

    try:
        nir.write(path, graph)
    except OSError as error:
        raise InputError("cannot_write", f"{path}: cannot be written: {error}") from error


def _check(label: str, neuron: Neuron) -> None:
    if neuron.kappa is not None:
        why = "learned initial potentials"
    elif isinstance(neuron, ILIF) and not neuron.memoryless:
        why = "integer neurons with a membrane (steps above 1); use lif, or one step"
    elif isinstance(neuron, LIF) and (neuron.reset_potential is None or not neuron.decay_input):
        why = "a soft reset, or an input that does not decay"
    else:
        return
    raise InputError("not_expressible", f"neuron layer {label}: NIR has no primitive for {why}")


class _Builder:
    def __init__(self) -> None:
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def finish(self) -> NIRGraph:
        import nir

        return nir.NIRGraph(self.nodes, self.edges)

    def add(self, name: str, node: Any, sources: Signal) -> None:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources[0]]

    def input(self, name: str, shape: Sequence[int]) -> Signal:
        import nir

        self.nodes[name] = nir.Input({"input": np.array(shape)})
        return (name,), tuple(shape)

    def output(self, name: str, signal: Signal) -> None:
        import nir

        self.add(name, nir.Output({"output": np.array(signal[1])}), signal)

    def connect(
        self, name: str, synapses: Synapses, signal: Signal, part: slice | None = None
    ) -> Signal:
        """Weighted connections; ``part`` takes some of the input channels, without the bias."""
        import nir

        weight = synapses.layer.weight.detach().numpy()
        outputs = weight.shape[0]
        bias = np.zeros(outputs, np.float32)
        if synapses.layer.bias is not None and part is None:
            bias = synapses.layer.bias.detach().numpy()
        if len(signal[1]) == 1:
            self.add(name, nir.Affine(weight, bias), signal)
            return (name,), (outputs,)
        stride, padding = (1, 1), (0, 0)
        if isinstance(synapses.layer, torch.nn.Conv2d):
            stride, padding = synapses.layer.stride, synapses.layer.padding  # type: ignore[assignment]
        else:
            weight = (weight if part is None else weight[:, part])[:, :, None, None]
        shape = signal[1][1:]
        self.add(
            name,
            nir.Conv2d(shape, np.ascontiguousarray(weight), stride, padding, (1, 1), 1, bias),
            signal,
        )
        kernel = weight.shape[2:]
        rows, columns = ((shape[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))
        return (name,), (outputs, rows, columns)

    def fire(self, name: str, neuron: Neuron, signal: Signal) -> Signal:
        """Neurons; an ``ilif`` layer becomes D nodes."""
        import nir

        shape = signal[1]
        if isinstance(neuron, LIF):
            full = np.full(shape, 1.0, np.float32)
            threshold = np.nextafter(np.float32(neuron.threshold), np.float32(-np.inf))
            rest = np.float32(neuron.reset_potential or 0.0)
            node = nir.LIF(
                tau=full * np.float32(neuron.tau),
                r=full,
                v_leak=full * rest,
                v_threshold=full * threshold,
                v_reset=full * rest,
            )
            self.add(name, node, signal)
            return (name,), shape
        names = []
        for level in range(neuron.levels):
            names.append(f"{name}.{level + 1}")
            # At the tie itself we round up, a NIR threshold does not fire.
            tie = np.nextafter(np.float32(level + 0.5), np.float32(-np.inf))
            self.add(names[-1], nir.Threshold(np.full(shape, tie, np.float32)), signal)
        return tuple(names), shape

    def maximum(self, name: str, signal: Signal, everywhere: bool = False) -> Signal:
        """Largest value over all rows of binary planes: for each plane, whether any is 1.

        With ``everywhere`` every row gets the answer: the window then reaches over all rows from
        each of them. (A repetition of its own would be a grouped convolution, whose type nir 1.0
        gets wrong.)
        """
        import nir

        channels, rows, _ = signal[1]
        if everywhere:
            pool = nir.SumPool2d(
                np.array([2 * rows - 1, 1]), np.array([1, 1]), np.array([rows - 1, 0])
            )
        else:
            pool = self._pool((rows, 1))
        shape = (channels, rows if everywhere else 1, 1)
        names = []
        for index, source in enumerate(signal[0], 1):
            pooled, fired = f"{name}.pool.{index}", f"{name}.any.{index}"
            self.add(pooled, copy.copy(pool), ((source,), signal[1]))
            half = np.full(shape, 0.5, np.float32)
            self.add(fired, nir.Threshold(half), ((pooled,), ()))
            names.append(fired)
        return tuple(names), shape

    def total(self, name: str, signal: Signal, rows: int = 1, columns: int = 1) -> Signal:
        """Sum over each region of the grid, as a vector."""
        channels, height, width = signal[1]
        self.add(f"{name}.pool", self._pool((height // rows, width // columns)), signal)
        return self.flat(name, ((f"{name}.pool",), (channels, rows, columns)))

    def flat(self, name: str, signal: Signal) -> Signal:
        import nir

        node = nir.Flatten({"input": np.array(signal[1])}, 0, -1)
        self.add(name, node, signal)
        return (name,), (int(np.prod(signal[1])),)

    @staticmethod
    def _pool(size: Sequence[int]) -> Any:
        import nir

        return nir.SumPool2d(np.array(size), np.array(size), np.array([0, 0]))


def _both(a: Signal, b: Signal) -> Signal:
    return (*a[0], *b[0]), a[1]


class _PointNet(_Builder):
    def __init__(self, student: SpikePointNet) -> None:
        super().__init__()
        self.student = student

    def graph(self, sample_shape: Sequence[int]) -> NIRGraph:
        net = self.student
        count, width = sample_shape
        x = self.input("input", (width, count, 1))
        for name in ("first", "second"):
            layer = getattr(net, name)
            x = self.connect(f"{name}.synapses", layer.synapses, x)
            x = self.fire(f"{name}.neuron", layer.neuron, x)
        channels = x[1][0]
        whole = self.maximum("maximum", x, everywhere=True)
        third = net.third.synapses
        current = _both(
            self.connect("third.whole", third, whole, slice(0, channels)),
            self.connect("third.points", _biased(third, channels), x),
        )
        x = self.fire("third.neuron", net.third.neuron, current)
        x = self.connect("fourth.synapses", net.fourth.synapses, x)
        x = self.maximum("fourth.maximum", self.fire("fourth.neuron", net.fourth.neuron, x))
        stream = self.connect("enter", net.enter, self.flat("vector", x))
        for index, layer in enumerate(net.hidden):
            spikes = self.fire(f"hidden.{index}.neuron", layer.neuron, stream)  # type: ignore[arg-type]
            body = self.connect(f"hidden.{index}.synapses", layer.synapses, spikes)  # type: ignore[arg-type]
            stream = _both(stream, body)
        x = self.connect(
            "embed.synapses", net.embed.synapses, self.fire("neuron", net.neuron, stream)
        )
        self.output("output", self.fire("embed.neuron", net.embed.neuron, x))
        return self.finish()


def _biased(synapses: Synapses, start: int) -> Synapses:
    """The layer's input channels from ``start`` on, with its bias."""
    layer = synapses.layer
    part = torch.nn.Linear(layer.weight.shape[1] - start, layer.weight.shape[0])
    part.weight = torch.nn.Parameter(layer.weight[:, start:].detach(), requires_grad=False)
    part.bias = torch.nn.Parameter(
        torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach(),
        requires_grad=False,
    )
    return Synapses(part, norm=False)


class _Spikformer(_Builder):
    def __init__(self, student: Spikformer) -> None:
        super().__init__()
        self.student = student

    def _body(self, name: str, neuron: Neuron, synapses: Synapses, stream: Signal) -> Signal:
        return self.connect(name, synapses, self.fire(f"{name}.neuron", neuron, stream))

    def graph(self, sample_shape: Sequence[int]) -> NIRGraph:
        net = self.student
        stream = self.connect("first", net.first, self.input("input", sample_shape))
        stream = self._body("down_1", net.down_1.neuron, net.down_1.conv, stream)
        for index, conv in enumerate(net.middle):
            body = self._body(f"middle.{index}", conv.neuron, conv.conv, stream)  # type: ignore[arg-type]
            stream = _both(stream, body)
        stream = self._body("down_2", net.down_2.neuron, net.down_2.conv, stream)
        stream = _both(
            stream, self._body("position", net.position.neuron, net.position.conv, stream)
        )
        for index, block in enumerate(net.blocks):
            stream = self._block(f"blocks.{index}", block, stream)
        x = self._body("embed", net.neuron, net.embed, stream)
        x = self.fire("embed_neuron", net.embed_neuron, x)
        regions = net.config.regions_rows, net.config.regions_columns
        self.output("output", self.total("counts", x, *regions))
        return self.finish()

    def _block(self, name: str, block: Any, stream: Signal) -> Signal:
        attention, mlp = block.attention, block.mlp
        qkv = self._body(f"{name}.attention.qkv", attention.neuron, attention.qkv, stream)
        spikes = self.fire(f"{name}.attention.qkv_neuron", attention.qkv_neuron, qkv)
        self.output(f"{name}.attention.factors", spikes)
        product = self.input(f"{name}.attention.product", stream[1])
        out = self._body(f"{name}.attention.out", attention.out_neuron, attention.out, product)
        stream = _both(stream, out)
        hidden = self._body(f"{name}.mlp.widen", mlp.neuron, mlp.widen, stream)
        narrow = self._body(f"{name}.mlp.narrow", mlp.hidden_neuron, mlp.narrow, hidden)
        return _both(stream, narrow)
