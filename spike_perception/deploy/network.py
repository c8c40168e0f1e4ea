# SPDX-License-Identifier: Apache-2.0
"""A bundle's student as a network for inference: torch modules, and the ONNX graph made of them.

Three forms of a student are deployed, by precision:

* ``f32``: batch normalisation folded, nothing else. What was trained.
* ``int8``: besides, the weights of every layer that sees spikes are rounded to int8, one scale per
  output channel. Their inputs are integers 0..D, exact in eight bits with scale 1, so every sum is
  an exact integer in any engine and any order: engines agree spike for spike. Against ``f32`` the
  weights' rounding is the only change. Layers on a sensor's values keep float weights.
* ``bf16``: the graph of ``f32``, which OpenVINO runs in bfloat16: weights and potentials are
  rounded to eight significant bits.

The graph is written by torch's TorchScript exporter: of the routes tried it needs neither onnx nor
onnxscript, takes one or two seconds (OpenVINO's own converter of torch modules: three to nine, for
a graph that runs no faster) and serves both engines.
"""

from __future__ import annotations

import io
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.network_cache import Graph
from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeProduct
from spike_perception.spiking.folding import fold_batch_norm, largest_input, levels
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import Synapses
from spike_perception.students.registry import student_from_json
from spike_perception.students.student import Student

OPSET = 17
MOST_EIGHT_BIT = 255


def student_of(bundle: Bundle) -> Student:
    """The bundle's trained student, in evaluation mode.

    Raises:
        InputError: the reasons of ``student_from_json``, ``weights_do_not_fit``, or
            ``bad_metadata`` where T, D or C contradict the student's own settings.
    """
    student = student_from_json(bundle.architecture)
    stated = (bundle.timesteps, bundle.levels, bundle.embedding_dim)
    own = (student.config.steps, levels(student), student.feature_dim)
    if stated != own:
        raise InputError(
            "bad_metadata",
            f"the bundle states T, D, C = {stated}, its student has {own}; export it again",
        )
    weights = {name: torch.from_numpy(each.copy()) for name, each in bundle.student_tensors.items()}
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "weights_do_not_fit", f"the bundle's weights are not those of its student: {error}"
        ) from error
    return student.eval().requires_grad_(False)


def deployed_form(student: Student, precision: str) -> Student:
    """The student that a runtime of that precision computes; ``bf16`` is that of ``f32``.

    Use it to evaluate, in torch, exactly what a robot will run.

    Raises:
        InputError: ``not_quantisable`` if sums of int8 weights could leave the exact range, or
            inputs eight bits; attention that could leave it raises when it is first run.
    """
    form = fold_batch_norm(student)
    if precision == "int8":
        largest = largest_input(form)
        if largest > MOST_EIGHT_BIT:
            raise InputError(
                "not_quantisable",
                f"connections of this student see integers up to {largest}, int8 networks take up "
                f"to {MOST_EIGHT_BIT}; run this bundle with precision f32",
            )
        for module in form.modules():
            if isinstance(module, SpikeProduct):
                module.quantise(levels(form))
            elif isinstance(module, Synapses) and not module.analogue:
                try:
                    module.quantise(largest)
                except ValueError as error:
                    raise InputError(
                        "not_quantisable", f"{error}; run this bundle with precision f32"
                    ) from error
    return form


class Whole(nn.Module):
    """All T steps of a prepared batch [B, ...], every step with the same input: F, [B, C]."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """F as a tuple of one."""
        steps = self.student.config.steps
        if steps == 1:
            return (self.student.encode(x, Pass()),)
        sequence = x.unsqueeze(0).expand(steps, *x.shape)
        counts = self.student.encode(sequence.flatten(0, 1), Pass(steps))
        return (counts.unflatten(0, (steps, -1)).sum(0),)


class Step(nn.Module):
    """One time step with the state as tensors: ``(x, *state) -> (counts, *state)``."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Spike counts of this step [B, C], then the potentials for the next."""
        run = Pass(1, state)
        counts = self.student.encode(x, run)
        return (counts, *run.state)


def export(student: Student, sample: Tensor, streaming: bool = False) -> Graph:
    """Write a deployed form as an ONNX graph of plain operators.

    Args:
        student: from :func:`deployed_form`.
        sample: prepared input for a batch of one, [1, ...].
        streaming: True for one step with state tensors, False for all T steps from rest.
    """
    inputs = (sample, *student.initial_state(sample)) if streaming else (sample,)
    network = Step(student) if streaming else Whole(student)
    outputs = ["counts", *(f"next_{i}" for i in range(len(inputs) - 1))]
    names = ["input", *(f"state_{i}" for i in range(len(inputs) - 1))]
    hooks = _eight_bit_layers(student) if _is_int8(student) else []
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter announces its successor, and names shapes that are fixed on purpose.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                inputs,
                stream,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
            )
    finally:
        for restore in hooks:
            restore()
    return Graph(stream.getvalue(), tuple(each.numpy() for each in inputs[1:]))


def _is_int8(student: Student) -> bool:
    return any(isinstance(m, Synapses) and m.scale is not None for m in student.modules())


def _eight_bit_layers(student: Student) -> list[Any]:
    """Let quantised layers be traced as 8-bit ones; returns what undoes it."""
    undo: list[Any] = []
    for module in student.modules():
        if isinstance(module, Synapses) and module.scale is not None:
            module.forward = _EightBit(module)  # type: ignore[method-assign]
            undo.append(partial(delattr, module, "forward"))
    return undo


class _EightBit:
    """A quantised layer's forward pass with input and weights in the graph as eight bits.

    The input is marked here and not where the spikes come from: OpenVINO 2026.4 sums and reduces
    8-bit tensors in eight bits (counts above 255 are cut off, and of a batch only the first row is
    summed), so spikes must reach everything but these layers as floats.
    """

    def __init__(self, synapses: Synapses) -> None:
        self.layer = synapses.layer
        self.weight = synapses.integer_weight()
        self.scale = synapses.scale

    def __call__(self, x: Tensor) -> Tensor:
        x = _EightBitSpikes.apply(x)
        weight = _Dequantised.apply(self.weight, self.scale)
        if isinstance(self.layer, nn.Linear):
            return functional.linear(x, weight, self.layer.bias)
        conv = self.layer
        return functional.conv2d(
            x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )


class _Dequantised(torch.autograd.Function):
    """int8 weights times one scale per output channel."""

    @staticmethod
    def forward(_ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        return weight.float() * scale.reshape(-1, *[1] * (weight.ndim - 1))

    @staticmethod
    def symbolic(g: Any, weight: Any, scale: Any) -> Any:
        zeros = torch.zeros(scale.type().sizes()[0], dtype=torch.int8)
        return g.op("DequantizeLinear", weight, scale, g.op("Constant", value_t=zeros), axis_i=0)


class _EightBitSpikes(torch.autograd.Function):
    """The identity on integers 0..255, which tells engines that they fit in eight bits."""

    @staticmethod
    def forward(_ctx: Any, spikes: Tensor) -> Tensor:
        return spikes.clone()

    @staticmethod
    def symbolic(g: Any, spikes: Any) -> Any:
        one = g.op("Constant", value_t=torch.tensor(1.0))
        zero = g.op("Constant", value_t=torch.tensor(0, dtype=torch.uint8))
        eight = g.op("QuantizeLinear", spikes, one, zero)
        back = g.op("DequantizeLinear", eight, one, zero)
        back.setType(spikes.type())
        return back
