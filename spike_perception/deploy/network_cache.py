# SPDX-License-Identifier: Apache-2.0
"""Exported graphs kept between starts, so that a robot starts without torch and without export.

A graph is a function of the encoder's hash, the precision and the exporter's version; these name
its file in ``$XDG_CACHE_HOME/spike_perception`` (``~/.cache/spike_perception``). The file carries
its own checksum; one that is missing, damaged or of another version is made anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy import safe_file
from spike_perception.deploy.safe_file import SHA256, TEXT, Format, Limits
from spike_perception.errors import InputError

#: To be raised whenever the exported graph changes, so that no older one is taken from a cache.
EXPORT_VERSION = 1
FORMAT = Format(
    "spike_perception.network",
    EXPORT_VERSION,
    ("encoder_id", "precision", "form"),
    {"encoder_id": SHA256, "precision": TEXT, "form": TEXT},
)
_LIMITS = Limits(file_bytes=1 << 30)


@dataclass(frozen=True)
class Graph:
    """An exported network.

    Attributes:
        onnx: the ONNX model; its first axis, of every input and output, is a free batch size.
        state: what a step starts from, for a batch of one; () for a whole network.
    """

    onnx: bytes
    state: tuple[NDArray[np.float32], ...] = ()


def default_folder() -> Path:
    """Where graphs are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "spike_perception"


def kept_graph(
    folder: Path | None, encoder_id: str, precision: str, form: str, make: Callable[[], Graph]
) -> Graph:
    """The graph from the cache, or a new one, which then is kept.

    Args:
        folder: the cache, or None for none. If it cannot be written, nothing is kept.
        encoder_id: the bundle's hash.
        precision: ``f32`` (also for ``bf16``) or ``int8``.
        form: ``whole`` or ``step``.
        make: exports the graph.
    """
    if folder is None:
        return make()
    document = {"encoder_id": encoder_id, "precision": precision, "form": form}
    path = folder / f"{encoder_id[:32]}-{precision}-{form}-{EXPORT_VERSION}.safetensors"
    with contextlib.suppress(InputError, KeyError):
        header, tensors = safe_file.load(path, FORMAT, _LIMITS)
        if all(header.document[key] == value for key, value in document.items()):
            state = tuple(tensors[f"state_{i}"] for i in range(len(tensors) - 1))
            return Graph(tensors["onnx"].tobytes(), state)
    graph = make()
    tensors = {f"state_{i}": each for i, each in enumerate(graph.state)}
    tensors["onnx"] = np.frombuffer(graph.onnx, np.uint8)
    with contextlib.suppress(InputError, OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe_file.save(path, FORMAT, document, tensors)
    return graph
