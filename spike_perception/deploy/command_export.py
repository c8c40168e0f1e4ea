# SPDX-License-Identifier: Apache-2.0
"""Write a bundle's binary form as a NIR graph for neuromorphic tools."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from spike_perception.cli import add_json, emit
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.runtime import sample_shape


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, help="model bundle (.safetensors)")
    parser.add_argument("out", type=Path, help="file to write (.nir, HDF5)")
    parser.add_argument(
        "--products",
        action="store_true",
        help="leave attention's products of spikes to the host, as inputs and outputs of the graph",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export and say what the graph holds."""
    bundle = Bundle.load(arguments.bundle)
    # Imported here: a damaged bundle is refused before torch is loaded.
    from spike_perception.deploy.network import student_of
    from spike_perception.deploy.nir_export import to_nir, write_nir

    graph = to_nir(student_of(bundle), sample_shape(bundle), arguments.products)
    write_nir(graph, arguments.out)
    nodes = dict(Counter(type(each).__name__ for each in graph.nodes.values()))
    result: dict[str, Any] = {
        "bundle": str(arguments.bundle),
        "encoder_id": bundle.encoder_id,
        "out": str(arguments.out),
        "file_bytes": arguments.out.stat().st_size,
        "nodes": nodes,
        "edges": len(graph.edges),
    }
    listed = ", ".join(f"{count} {name}" for name, count in sorted(nodes.items()))
    emit(
        arguments,
        result,
        f"{arguments.out}: {result['file_bytes']} bytes, {listed}, {len(graph.edges)} edges",
    )
    return 0
