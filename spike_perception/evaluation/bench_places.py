# SPDX-License-Identifier: Apache-2.0
"""Measure the place map and its index: latency, memory, build time, recall against exact search.

The places are synthetic: clusters of 20 unit vectors, each a cluster's centre plus noise of the
same length, and a query is one place plus noise (``--noise``: its length relative to the place).
Real maps differ; the latencies do not depend on the data, the recall does.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.places.descriptors import Kind
from spike_perception.places.index import PlaceIndex
from spike_perception.places.map import MapDescriptor, NewPlace, PlaceMap

CLUSTER = 20  # places that resemble one another, as neighbours along a road do
CLUSTER_SPREAD = 1.0  # length of a place's deviation relative to its cluster's centre
BATCH = 5000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--sizes", default="10000,100000,1000000", help="numbers of places, separated by commas"
    )
    parser.add_argument("--dimension", type=int, default=512, help="floats or bits of a descriptor")
    parser.add_argument("--queries", type=int, default=200, help="queries per size")
    parser.add_argument(
        "--noise", type=float, default=0.7, help="noise of a query, relative to the place's length"
    )
    parser.add_argument(
        "--additions", type=int, default=200, help="durable additions timed on a map file"
    )
    parser.add_argument("--folder", default=None, help="where the map file is made (default: /tmp)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    try:
        sizes = [int(word) for word in arguments.sizes.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 100 or arguments.dimension < 8 or arguments.dimension % 8:
        raise InputError(
            "invalid_option",
            f"--sizes {arguments.sizes} --dimension {arguments.dimension}: sizes are whole numbers "
            "from 100, separated by commas, and the dimension is a multiple of 8",
        )
    rows = [
        measure(kind, size, arguments.dimension, arguments.queries, arguments.noise)
        for size in sizes
        for kind in ("float", "bits")
    ]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        adding = measure_adding(Path(folder) / "bench.db", arguments.dimension, arguments.additions)
    result = {
        "dimension": arguments.dimension,
        "noise": arguments.noise,
        "cluster": CLUSTER,
        "search": rows,
        "add": adding,
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    emit(arguments, result, _table(result))
    return 0


def synthetic(size: int, dimension: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Clustered unit vectors, float32 [size, dimension]."""
    clusters = -(-size // CLUSTER)
    centres = _unit(rng.standard_normal((clusters, dimension), dtype=np.float32))
    places = np.empty((size, dimension), dtype=np.float32)
    for start in range(0, size, BATCH):
        number = np.arange(start, min(start + BATCH, size))
        noise = _unit(rng.standard_normal((number.size, dimension), dtype=np.float32))
        places[number] = _unit(centres[number // CLUSTER] + CLUSTER_SPREAD * noise)
    return places


def measure(kind: Kind, size: int, dimension: int, queries: int, noise: float) -> dict[str, Any]:
    """Build an index of synthetic places and query it.

    Returns:
        Milliseconds, bytes and recalls, as printed.
    """
    rng = np.random.default_rng(size)
    places = synthetic(size, dimension, rng)
    truth = rng.integers(size, size=queries)
    jitter = _unit(rng.standard_normal((queries, dimension), dtype=np.float32))
    asked = _unit(places[truth] + np.float32(noise) * jitter)
    vectors: NDArray[Any] = places if kind == "float" else np.packbits(places > 0, axis=1)
    probes: NDArray[Any] = asked if kind == "float" else np.packbits(asked > 0, axis=1)
    index = PlaceIndex(kind, dimension)
    ids = np.arange(1, size + 1)
    batches = range(0, size, BATCH)
    began = time.perf_counter()
    for start in tqdm(batches, desc=f"{kind} {size}", disable=None, leave=False):
        index.add(ids[start : start + BATCH], vectors[start : start + BATCH])
    built = time.perf_counter() - began
    # One by one, as a robot adds them: the slowest shows whether growth ever stalls.
    adding = []
    for number in range(500):
        began = time.perf_counter()
        index.add(np.array([size + 1 + number]), vectors[number % size][None])
        adding.append(time.perf_counter() - began)
    index.remove(np.arange(size + 1, size + 501))
    index.search(probes[0], 10)
    times, first, shared = [], 0, 0.0
    for probe in tqdm(probes, desc="queries", disable=None, leave=False):
        began = time.perf_counter()
        rows, _ = index.search(probe, 10)
        times.append(time.perf_counter() - began)
        exact = index.scores(probe[None])[0]
        # Distances of bits tie: whatever is as near as the tenth belongs to the ten nearest.
        tenth = np.partition(exact, size - 10)[size - 10]
        first += bool(exact[rows[0]] >= exact.max() - 1e-6)
        shared += float((exact[rows] >= tenth - 1e-6).mean())
    milliseconds = np.array(times) * 1e3
    return {
        "kind": kind,
        "places": size,
        "method": "exact" if index.exact or kind == "bits" else "hamming prefilter + exact re-rank",
        "build_s": built,
        "query_ms_median": float(np.median(milliseconds)),
        "query_ms_p95": float(np.quantile(milliseconds, 0.95)),
        "index_add_ms_median": float(np.median(adding) * 1e3),
        "index_add_ms_max": float(np.max(adding) * 1e3),
        "index_mib": index.nbytes / 2**20,
        "nearest_first": first / queries,
        "recall_at_10": shared / queries,
    }


def measure_adding(path: Path, dimension: int, additions: int) -> dict[str, Any]:
    """Time durable additions to a map file, each with a thumbnail of 4 KiB."""
    rng = np.random.default_rng(0)
    vectors = synthetic(additions, dimension, rng)
    identity = MapDescriptor("bench", "float", dimension, "none")
    times = []
    with PlaceMap.create(path, identity) as place_map:
        place_map.add_many([NewPlace(vectors[0], 1, thumbnail=bytes(4096))] * 1000)
        for number, vector in enumerate(vectors):
            began = time.perf_counter()
            place_map.add(vector, number + 1, "camera", None, bytes(4096))
            times.append(time.perf_counter() - began)
        places = len(place_map)
    began = time.perf_counter()
    PlaceMap.open(path, identity, read_only=True).close()
    opened = time.perf_counter() - began
    return {
        "additions": additions,
        "add_ms_median": float(np.median(times) * 1e3),
        "add_ms_p95": float(np.quantile(times, 0.95) * 1e3),
        "add_ms_max": float(np.max(times) * 1e3),
        "bytes_per_place": path.stat().st_size / places,
        "open_and_check_s": opened,
    }


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['dimension']}-d, clusters of {CLUSTER} synthetic places, query noise "
        f"{result['noise']:g}; top 10, one query at a time",
        f"{'kind':<6}{'places':>9}  {'query ms (p95)':>16}{'first':>7}{'R@10':>7}"
        f"{'add ms (max)':>16}{'build s':>9}{'MiB':>8}  method",
    ]
    for row in result["search"]:
        query = f"{row['query_ms_median']:.2f} ({row['query_ms_p95']:.2f})"
        add = f"{row['index_add_ms_median']:.3f} ({row['index_add_ms_max']:.1f})"
        lines.append(
            f"{row['kind']:<6}{row['places']:>9}  {query:>16}{row['nearest_first']:>7.3f}"
            f"{row['recall_at_10']:>7.3f}{add:>16}{row['build_s']:>9.2f}{row['index_mib']:>8.0f}  "
            f"{row['method']}"
        )
    add = result["add"]
    lines.append(
        f"durable add to the map file: {add['add_ms_median']:.2f} ms median, "
        f"{add['add_ms_p95']:.2f} p95, {add['add_ms_max']:.2f} max; "
        f"{add['bytes_per_place']:.0f} bytes a place with a 4 KiB thumbnail"
    )
    lines.append(f"peak resident memory {result['peak_resident_mib']:.0f} MiB")
    return "\n".join(lines)
