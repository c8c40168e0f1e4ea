# SPDX-License-Identifier: Apache-2.0
"""What images show, in the text tower's space: ConSE, then diffused among similar images.

The classifier sees small images poorly, but its features still bring alike ones together. So every
image's text vector moves towards those of its nearest neighbours, round by round, while images
whose class is named keep theirs. No list of the classes to be recognised is used (our own recipe,
after label propagation: Zhou et al., Learning with Local and Global Consistency, NIPS 2003).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.training.teachers.lit_config import DiffusionConfig

Float = NDArray[np.float32]
_ROWS = 8192
_EXACT = 200_000


def conse(
    logits: NDArray[np.floating], directions: Float, temperature: float, top: int = 0
) -> Float:
    """Convex combinations of class directions (Norouzi et al., arXiv 1312.5650, eq. 4).

    Args:
        logits: of a classifier, [N, K].
        directions: unit vectors of its class names, [K, E].
        temperature: of the softmax; above 1 more than the likeliest class counts.
        top: number of likeliest classes that count; 0 for all.

    Returns:
        Unit vectors, float32 [N, E].
    """
    found = np.empty((len(logits), directions.shape[1]), np.float32)
    for start in range(0, len(logits), _ROWS):
        values = np.asarray(logits[start : start + _ROWS], np.float32) / temperature
        shares = np.exp(values - values.max(1, keepdims=True))
        if 0 < top < shares.shape[1]:
            least = np.partition(shares, -top, axis=1)[:, -top, None]
            shares = np.where(shares >= least, shares, 0)
        found[start : start + _ROWS] = unit(shares @ directions)
    return found


def neighbours(features: NDArray[np.floating], config: DiffusionConfig) -> NDArray[np.int64]:
    """Nearest other images of each image by half-whitened principal components, int64 [N, k].

    Half-whitened: components are divided by the square root of their deviation, between raw
    distances, which a few strong components rule, and whitened ones, which noise rules.

    Args:
        features: [N, F].
        config: components and k; both shrink to what there is.

    Raises:
        InputError: ``too_few_images`` for less than two.
    """
    import faiss

    count = len(features)
    if count < 2:
        raise InputError("too_few_images", f"{count} images have no neighbours; give more")
    mean, deviation, axes, spread = _components(features, config.components)
    places = np.empty((count, len(axes)), np.float32)
    for start in range(0, count, _ROWS):
        part = (np.asarray(features[start : start + _ROWS], np.float32) - mean) / deviation
        places[start : start + _ROWS] = unit((part @ axes.T) / np.sqrt(spread))
    k = min(config.neighbours, count - 1)
    # Exact search grows with the square of the number of images.
    index = faiss.IndexFlatIP(places.shape[1]) if count <= _EXACT else _cells(places)
    index.add(places)
    _, found = index.search(places, k + 1)
    own = np.arange(count)[:, None]
    found = np.where(found < 0, own, found)
    # An image mostly is its own nearest, but not among duplicates: put it first wherever it is.
    order = np.argsort(found != own, axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)[:, 1:].astype(np.int64)


def diffused(
    vectors: Float,
    graph: NDArray[np.int64],
    config: DiffusionConfig,
    fixed: NDArray[np.bool_] | None = None,
) -> Float:
    """Unit vectors after rounds of ``h <- unit(keep h + (1 - keep) unit(neighbours' mean))``.

    Args:
        vectors: unit vectors, [N, E].
        graph: neighbours, int64 [N, k].
        config: rounds and share kept.
        fixed: vectors that stay, bool [N].

    Returns:
        float32 [N, E].
    """
    now = unit(vectors)
    for _ in range(config.rounds):
        fresh = np.empty_like(now)
        for start in range(0, len(now), _ROWS):
            rows = slice(start, start + _ROWS)
            total = np.zeros_like(now[rows])
            for column in range(graph.shape[1]):
                total += now[graph[rows, column]]
            fresh[rows] = unit(config.keep * now[rows] + (1.0 - config.keep) * unit(total))
        if fixed is not None:
            fresh[fixed] = now[fixed]
        now = fresh
    return now


def unit(vectors: NDArray[np.floating]) -> Float:
    """Vectors along the last axis scaled to length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def _cells(places: Float) -> Any:
    """An index that searches the 32 likeliest of sqrt(N) cells."""
    import faiss

    width = places.shape[1]
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(width), width, int(np.sqrt(len(places))), faiss.METRIC_INNER_PRODUCT
    )
    index.train(places[:: max(1, len(places) // _EXACT)])
    index.nprobe = 32
    return index


def _components(features: NDArray[np.floating], count: int) -> tuple[Float, Float, Float, Float]:
    """Mean, deviation [F], principal axes [d, F] of the standardised features, their deviation."""
    rows = np.linspace(0, len(features) - 1, min(len(features), 20_000)).astype(np.int64)
    values = np.asarray(features[rows], np.float64)
    mean, deviation = values.mean(0), values.std(0)
    deviation = deviation + max(1e-6, 1e-2 * float(deviation.mean()))
    values = (values - mean) / deviation
    variance, axes = np.linalg.eigh(values.T @ values / len(values))
    wanted = min(count, len(rows) - 1, values.shape[1])
    spread = np.sqrt(np.maximum(variance[::-1][:wanted], 1e-12))
    parts = (mean, deviation, axes.T[::-1][:wanted], spread)
    mean32, deviation32, axes32, spread32 = (np.ascontiguousarray(p, np.float32) for p in parts)
    return mean32, deviation32, axes32, spread32
