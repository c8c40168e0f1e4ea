# SPDX-License-Identifier: Apache-2.0
"""Engines that compute an exported network: OpenVINO, ONNX Runtime, and torch as the reference.

OpenVINO is the first choice by measurement (see ``spike-perception bench students``); the others
stand in where it is not installed.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Arrays = Sequence[NDArray[np.float32]]

#: In order of preference: module to import, precisions that it computes.
ENGINES = {
    "openvino": ("openvino", ("f32", "bf16", "int8")),
    "onnxruntime": ("onnxruntime", ("f32", "int8")),
    "torch": ("torch", ("f32", "int8")),
}
PRECISIONS = ("f32", "bf16", "int8")


class Engine(Protocol):
    """A network ready to run; calls from several threads wait for one another."""

    def run(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Outputs [B, ...] of float32 inputs [B, ...]; they belong to the caller."""


def installed(name: str) -> bool:
    """True if the engine's package can be imported, which is tried."""
    try:
        importlib.import_module(ENGINES[name][0])
    except ImportError:
        return False
    return True


def choose_engine(engine: str, precision: str) -> str:
    """The engine to use.

    Args:
        engine: a name, or ``auto`` for the first one that is installed and computes ``precision``.
        precision: ``f32``, ``bf16`` or ``int8``.

    Raises:
        InputError: ``unknown_engine``, ``unknown_precision`` or ``engine_missing``.
    """
    if precision not in PRECISIONS:
        raise InputError(
            "unknown_precision", f"precision {precision!r}; allowed are {', '.join(PRECISIONS)}"
        )
    if engine not in ("auto", *ENGINES):
        raise InputError(
            "unknown_engine", f"engine {engine!r}; allowed are auto, {', '.join(ENGINES)}"
        )
    able = [name for name, (_, computes) in ENGINES.items() if precision in computes]
    if engine not in ("auto", *able):
        raise InputError(
            "engine_missing",
            f"engine {engine} does not compute {precision}; {', '.join(able)} can, and it computes "
            f"{', '.join(ENGINES[engine][1])}",
        )
    wanted = able if engine == "auto" else [engine]
    for name in wanted:
        if installed(name):
            return name
    raise InputError(
        "engine_missing",
        f"engine {engine} with precision {precision} needs a package: pip install "
        f"{' or '.join(ENGINES[name][0] for name in wanted)}",
    )


class OpenVinoEngine:
    """OpenVINO on the CPU.

    A batch of one has a graph of its own, with all shapes fixed (15 % faster); all other batch
    sizes share a second one, compiled when it is first needed.
    """

    def __init__(self, onnx: bytes, precision: str, threads: int) -> None:
        import openvino

        self._core = openvino.Core()
        self._onnx = onnx
        self._options = {
            # 8-bit sums are exact whatever is said here; the potentials stay in 32 bits.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._lock = threading.Lock()
        self._single = self._request(1)
        self._any: Any = None

    def _request(self, batch: int) -> Any:
        model = self._core.read_model(self._onnx, b"")
        model.reshape(
            {each: [batch, *(list(each.get_partial_shape())[1:])] for each in model.inputs}
        )
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()

    def run(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """See :class:`Engine`."""
        with self._lock:
            request = self._single
            if inputs[0].shape[0] != 1:
                if self._any is None:
                    self._any = self._request(-1)
                request = self._any
            found = request.infer(list(inputs), share_inputs=True)
            return [np.array(each, np.float32) for each in found.values()]


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, onnx: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            onnx, options, providers=["CPUExecutionProvider"]
        )
        self._names = [each.name for each in self._session.get_inputs()]
        self._lock = threading.Lock()

    def run(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """See :class:`Engine`."""
        with self._lock:
            given = dict(zip(self._names, inputs, strict=True))
            return [np.asarray(each) for each in self._session.run(None, given)]


class TorchEngine:
    """The torch module itself. It uses the threads that torch was given (``set_num_threads``)."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()
        self._lock = threading.Lock()

    def run(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """See :class:`Engine`."""
        import torch

        with self._lock, torch.inference_mode():
            found = self._network(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
            return [each.numpy().copy() for each in found]


def make_engine(
    name: str,
    precision: str,
    threads: int,
    onnx: Callable[[], bytes],
    network: Callable[[], nn.Module] | None = None,
) -> Engine:
    """An engine from :func:`choose_engine` with its network.

    Args:
        name: the engine.
        precision: what it is to compute in.
        threads: threads for one inference.
        onnx: gives the graph, for the engines that need it.
        network: gives the module, for torch.
    """
    if name == "openvino":
        return OpenVinoEngine(onnx(), precision, threads)
    if name == "onnxruntime":
        return OnnxRuntimeEngine(onnx(), threads)
    if network is None:
        raise TypeError("engine torch needs the module")
    return TorchEngine(network())
