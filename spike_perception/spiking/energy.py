# SPDX-License-Identifier: Apache-2.0
"""Estimated energy of a spiking network: operations counted in a real forward pass, times pJ.

An estimate by the field's common formula (Horowitz, 45 nm, 32-bit floating point: 4.6 pJ for a
multiply-accumulate, MAC; 0.9 pJ for an accumulate, AC), never a measurement: a CPU or GPU running
a spiking network saves nothing of the kind. Two ways of counting are in use, both are reported:

* strict: a layer's operations are ACs only if its whole input has at most two distinct values,
  within [0, 1]; otherwise all of its operations are MACs;
* loose: bounded integers count as that many spikes, so synaptic operations (SOPs) are operations
  times mean input. For an integer network this is what its unfolded, binary form costs, and that
  form is AC under the strict rule too.

Layers on a sensor's values are MACs under both, at every time step. Batch normalisation (folded),
pooling and membrane shortcuts are left out, as is usual; neuron updates and the classifying head
are listed apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spike_perception.spiking.attention import SpikeMatmul
from spike_perception.spiking.neurons import Neuron
from spike_perception.spiking.synapses import Synapses

MAC_PJ = 4.6
AC_PJ = 0.9
PJ_PER_MJ = 1e9

#: Memory-aware column: 32-bit integer arithmetic (pJ), as in the proxies of Lemaire et al. and
#: Dampfhoffer et al.; energy of one 32-bit access to an on-chip SRAM of that many bytes (pJ,
#: Horowitz), interpolated in the logarithm of the size.
INTEGER_MAC_PJ = 3.2
INTEGER_AC_PJ = 0.1
SRAM_PJ = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
MEMORY_ASSUMPTION = (
    "32-bit words in on-chip SRAM large enough for the layer's weights and outputs (10 pJ per "
    "access at 8 KiB, 20 at 32 KiB, 100 from 1 MiB); a MAC reads weight and input and an output "
    "is written once; an AC reads its weight and reads and writes its accumulator"
)


def energy_mj(macs: float, acs: float) -> float:
    """Estimated energy (mJ) of ``macs`` multiply-accumulates and ``acs`` accumulates."""
    return (macs * MAC_PJ + acs * AC_PJ) / PJ_PER_MJ


def sram_access_pj(size: float) -> float:
    """Energy (pJ) of one 32-bit access to an SRAM of ``size`` bytes, as assumed above."""
    points = [(math.log2(bytes_), pj) for bytes_, pj in SRAM_PJ]
    at = math.log2(max(size, 1.0))
    if at <= points[0][0]:
        return points[0][1]
    for (low, low_pj), (high, high_pj) in pairwise(points):
        if at <= high:
            return low_pj + (high_pj - low_pj) * (at - low) / (high - low)
    return points[-1][1]


@dataclass(frozen=True)
class LayerEnergy:
    """One layer's line; figures are for one sample, over all time steps unless stated.

    Attributes:
        name: path in the network.
        kind: ``linear``, ``convolution`` or ``attention``.
        type: MAC or AC, strict counting.
        loose_type: MAC or AC, loose counting.
        operations: dense products of ONE time step.
        steps: T.
        rate: SOPs per operation and time step: the mean input integer (attention: coincidences).
        max_input: largest value of the input.
        sops: synaptic operations over all T (x D) steps; for analogue layers operations x T.
        strict_pj: estimated energy, strict counting (pJ).
        loose_pj: estimated energy, loose counting (pJ).
        memory_pj: estimated energy with memory accesses, loose counting (pJ).
        twin_memory_pj: the same for the ANN twin, MACs once (pJ).
    """

    name: str
    kind: str
    type: str
    loose_type: str
    operations: int
    steps: int
    rate: float
    max_input: float
    sops: float
    strict_pj: float
    loose_pj: float
    memory_pj: float
    twin_memory_pj: float


@dataclass(frozen=True)
class EnergyReport:
    """Estimated energy of one inference, averaged over the samples given.

    Attributes:
        layers: one line per layer that multiplies or accumulates.
        student_mj: all layers, loose counting, that is as binary spikes (mJ).
        student_strict_mj: all layers of the network as it was run, strict counting (mJ).
        ann_twin_mj: the same layers in an ordinary network: every operation one MAC, once (mJ).
        ratio_to_ann_twin: ``student_mj / ann_twin_mj``.
        strict_ratio_to_ann_twin: ``student_strict_mj / ann_twin_mj``.
        neuron_updates: membrane updates, one per neuron, step and sub-step.
        neuron_updates_mj: at one AC each (the leak's shift is not counted) (mJ).
        head_sops: additions of a K x C head on the spike counts; 0 without one.
        head_mj: at one AC each (mJ).
        total_mj: student, neuron updates and head (mJ).
        memory_mj: layers with memory accesses (mJ), see ``memory_assumption``.
        ann_twin_memory_mj: the ANN twin with memory accesses (mJ).
        teacher_mj: the teacher's MACs at 4.6 pJ, if given (mJ).
        ratio_to_teacher: ``student_mj / teacher_mj``.
        mean_firing_rate: spikes per neuron and time step.
        mean_sub_step_rate: spikes per neuron and binary sub-step (that over D).
        samples: samples averaged over.
    """

    layers: tuple[LayerEnergy, ...]
    student_mj: float
    student_strict_mj: float
    ann_twin_mj: float
    ratio_to_ann_twin: float
    strict_ratio_to_ann_twin: float
    neuron_updates: float
    neuron_updates_mj: float
    head_sops: float
    head_mj: float
    total_mj: float
    memory_mj: float
    ann_twin_memory_mj: float
    teacher_mj: float | None
    ratio_to_teacher: float | None
    mean_firing_rate: float
    mean_sub_step_rate: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the assumptions in words."""
        return {
            **asdict(self),
            "layers": [asdict(layer) for layer in self.layers],
            "nature": "estimated, not measured",
            "assumption": f"{MAC_PJ} pJ per MAC, {AC_PJ} pJ per AC (45 nm, 32-bit float)",
            "memory_assumption": MEMORY_ASSUMPTION,
        }

    def text(self) -> str:
        """The table for people."""
        head = (
            f"{'layer':<34}{'kind':<13}{'type':<10}{'M ops/step':>11}{'rate':>8}{'max':>7}"
            f"{'M SOPs':>9}{'strict uJ':>11}{'loose uJ':>10}{'memory uJ':>11}"
        )
        rows = [
            f"{_shorten(each.name):<34}{each.kind:<13}{each.type + '/' + each.loose_type:<10}"
            f"{each.operations / 1e6:>11.3f}{each.rate:>8.3f}{each.max_input:>7.1f}"
            f"{each.sops / 1e6:>9.3f}{each.strict_pj / 1e6:>11.3f}{each.loose_pj / 1e6:>10.3f}"
            f"{each.memory_pj / 1e6:>11.3f}"
            for each in self.layers
        ]
        teacher = (
            ""
            if self.teacher_mj is None
            else f"teacher {self.teacher_mj:.4f} mJ, ratio {self.ratio_to_teacher:.4f}\n"
        )
        return (
            f"Estimated energy per inference (not measured), mean of {self.samples} samples; "
            "type is strict/loose\n"
            + "\n".join((head, *rows))
            + f"\nstudent {self.student_mj:.4f} mJ (strict {self.student_strict_mj:.4f}), "
            f"ANN twin {self.ann_twin_mj:.4f} mJ, ratio {self.ratio_to_ann_twin:.4f} "
            f"(strict {self.strict_ratio_to_ann_twin:.4f})\n"
            + teacher
            + f"apart: neuron updates {self.neuron_updates_mj:.4f} mJ, head {self.head_mj:.4f} mJ; "
            f"all together {self.total_mj:.4f} mJ\n"
            f"with memory {self.memory_mj:.4f} mJ, ANN twin {self.ann_twin_memory_mj:.4f} mJ\n"
            f"mean firing rate {self.mean_firing_rate:.4f} spikes per neuron and step, "
            f"{self.mean_sub_step_rate:.4f} per binary sub-step"
        )


def _shorten(name: str) -> str:
    return name if len(name) <= 32 else "..." + name[-29:]


def of_a_window(energy: EnergyReport, windows: int) -> EnergyReport:
    """An estimate over a sequence of different windows, one a time step, as one of a window.

    The twin has no state, so it would have to look at every window too. Lines of layers and the
    head stay those of the sequence.
    """
    parts = ("student_mj", "student_strict_mj", "neuron_updates", "neuron_updates_mj", "memory_mj")
    student = {name: getattr(energy, name) / windows for name in parts}
    return replace(
        energy,
        **student,
        ratio_to_ann_twin=energy.ratio_to_ann_twin / windows,
        strict_ratio_to_ann_twin=energy.strict_ratio_to_ann_twin / windows,
        total_mj=student["student_mj"] + student["neuron_updates_mj"] + energy.head_mj,
    )


class _Counter:
    """Collects lines and neuron figures through forward hooks."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.layers: list[LayerEnergy] = []
        self.neurons = 0.0
        self.sub_steps = 0.0
        self.spikes = 0.0

    def synapses(self, name: str) -> Callable[..., None]:
        def hook(module: Synapses, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            x = arguments[0].detach()
            steps = x.shape[0] // (self.samples * module.substeps)
            operations = module.operations(x)
            linear = isinstance(module.layer, nn.Linear)
            mean = x.double().mean().item() * module.substeps
            self._add(
                name,
                "linear" if linear else "convolution",
                operations,
                steps,
                operations * steps if module.analogue else operations * steps * mean,
                _is_binary(x) and not module.analogue,
                module.analogue,
                x.max().item(),
                module.layer.weight.numel(),
                result[0].numel(),
            )

        return hook

    def matmul(self, name: str) -> Callable[..., None]:
        def hook(module: SpikeMatmul, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            left, right = (each.detach().double() for each in arguments)
            binary = _is_binary(left) and (module.counts or _is_binary(right))
            largest = left.max().item()
            if module.substeps > 1:
                left = left.unflatten(0, (module.substeps, -1)).sum(0)
                right = right if module.counts else right.unflatten(0, (module.substeps, -1)).sum(0)
            operations = left[0].numel() * right.shape[-1]
            if module.counts:
                sops = left.sum().item() * right.shape[-1]
            else:
                sops = (left.sum(-2) * right.sum(-1)).sum().item()
            steps = left.shape[0] // self.samples
            self._add(
                name,
                "attention",
                operations,
                steps,
                sops / self.samples,
                binary,
                False,
                largest,
                right[0].numel(),
                result[0].numel(),
            )

        return hook

    def neuron(self, module: Neuron, _arguments: object, result: Tensor) -> None:
        spikes = result.detach()
        self.spikes += spikes.double().sum().item()
        neurons = spikes.numel() / module.substeps
        self.neurons += neurons
        self.sub_steps += neurons * module.levels

    def _add(
        self,
        name: str,
        kind: str,
        operations: int,
        steps: int,
        sops: float,
        binary: bool,
        analogue: bool,
        largest: float,
        weights: int,
        outputs: int,
    ) -> None:
        dense = operations * steps
        access = sram_access_pj(4.0 * (weights + outputs))

        def with_mac(count: float, writes: float) -> float:
            return count * (INTEGER_MAC_PJ + 2 * access) + writes * access

        self.layers.append(
            LayerEnergy(
                name=name,
                kind=kind,
                type="AC" if binary else "MAC",
                loose_type="MAC" if analogue else "AC",
                operations=operations,
                steps=steps,
                rate=sops / dense,
                max_input=largest,
                sops=sops,
                strict_pj=sops * AC_PJ if binary else dense * MAC_PJ,
                loose_pj=dense * MAC_PJ if analogue else sops * AC_PJ,
                memory_pj=with_mac(dense, outputs * steps)
                if analogue
                else sops * (INTEGER_AC_PJ + 3 * access),
                twin_memory_pj=with_mac(operations, outputs),
            )
        )


def _is_binary(x: Tensor) -> bool:
    """True if there are at most two distinct values, within [0, 1]."""
    return bool(x.min() >= 0 and x.max() <= 1 and torch.unique(x).numel() <= 2)


@torch.no_grad()
def energy_report(
    network: nn.Module,
    inputs: Tensor,
    head: Tensor | int | None = None,
    teacher_macs: float | None = None,
) -> EnergyReport:
    """Count the operations of a forward pass and estimate their energy.

    Args:
        network: a student in evaluation mode, in integer or unfolded form; called as
            ``network(inputs)`` it returns spike counts [B, C].
        inputs: real data, [B, ...]; the rates, and so the energy, depend on it.
        head: rows of the classifying head, as a matrix [K, C] or the number K.
        teacher_macs: MACs of the teacher for one sample.

    Returns:
        Figures for one sample, averaged over the batch.
    """
    samples = inputs.shape[0]
    counter = _Counter(samples)
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, Synapses):
            handles.append(module.register_forward_hook(counter.synapses(name)))
        elif isinstance(module, SpikeMatmul):
            handles.append(module.register_forward_hook(counter.matmul(name)))
        elif isinstance(module, Neuron):
            handles.append(module.register_forward_hook(counter.neuron))
    try:
        feature = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    layers = tuple(counter.layers)
    student = sum(each.loose_pj for each in layers) / PJ_PER_MJ
    strict = sum(each.strict_pj for each in layers) / PJ_PER_MJ
    twin = energy_mj(sum(each.operations for each in layers), 0)
    rows = 0 if head is None else head if isinstance(head, int) else head.shape[0]
    head_sops = rows * feature.double().sum().item() / samples
    updates = counter.sub_steps / samples
    teacher = None if teacher_macs is None else energy_mj(teacher_macs, 0)
    return EnergyReport(
        layers=layers,
        student_mj=student,
        student_strict_mj=strict,
        ann_twin_mj=twin,
        ratio_to_ann_twin=student / twin,
        strict_ratio_to_ann_twin=strict / twin,
        neuron_updates=updates,
        neuron_updates_mj=energy_mj(0, updates),
        head_sops=head_sops,
        head_mj=energy_mj(0, head_sops),
        total_mj=student + energy_mj(0, updates) + energy_mj(0, head_sops),
        memory_mj=sum(each.memory_pj for each in layers) / PJ_PER_MJ,
        ann_twin_memory_mj=sum(each.twin_memory_pj for each in layers) / PJ_PER_MJ,
        teacher_mj=teacher,
        ratio_to_teacher=None if teacher is None else student / teacher,
        mean_firing_rate=counter.spikes / counter.neurons,
        mean_sub_step_rate=counter.spikes / counter.sub_steps,
        samples=samples,
    )
