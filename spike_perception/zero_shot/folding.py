# SPDX-License-Identifier: Apache-2.0
"""Rep-VLI: fold text embeddings into the rows of a classification head (SVL eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spike_perception.errors import InputError

Float32 = NDArray[np.float32]

# Rows count as unit rows within this; float16 embeddings, once renormalised, are well inside.
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class FoldedText:
    """The text side, folded.

    Attributes:
        rows: W [K, C] float32, one unit row a class.
        bias: b [K] float32, ``-W @ feature_mean``, zero without a mean.
        feature_mean: mean spike counts [C] that scores are centred on, or None.
    """

    rows: Float32
    bias: Float32
    feature_mean: Float32 | None


def fold(
    text_embeddings: Sequence[ArrayLike],
    *,
    projection: ArrayLike | None = None,
    text_mean: ArrayLike | None = None,
    feature_mean: ArrayLike | None = None,
    template_weights: ArrayLike | None = None,
) -> FoldedText:
    """Fold a text tower's output into W and b so that ``argmax(W @ F + b)`` is the cosine argmax.

    ``W_j = normalise(P_T normalise(mean_k normalise(e_jk) - text_mean))``: the prompt ensemble is
    averaged, then the trained text projection applied (SVL trains and uses one). Rows are unit, so
    the temperature, T and the norm of F drop out of the argmax. Centring on a mean feature,
    ``W_j.(F - mu) = W_j.F + b_j``, costs a bias.

    Args:
        text_embeddings: for each class, embeddings of its prompts [templates, C_T], or one [C_T].
        projection: P_T [C, C_T] applied as ``P_T @ e``, the layout of ``torch.nn.Linear.weight``.
            (open_clip's own ``text_projection`` is applied as ``e @ P`` and so is its transpose.)
        text_mean: [C_T], subtracted from every class; it reduces the modality gap.
        feature_mean: mu [C], mean spike counts of the encoder over training data.
        template_weights: weight of each template in the ensemble [templates]; equal if None.

    Raises:
        InputError: ``bad_embeddings`` for wrong shapes, zero or non-finite vectors.
    """
    if len(text_embeddings) == 0:
        raise InputError(
            "bad_embeddings", "there are no text embeddings to fold; give at least one"
        )
    means = np.stack(
        [_ensemble(each, template_weights, j) for j, each in enumerate(_same(text_embeddings))]
    )
    if text_mean is not None:
        means = means - _vector(text_mean, means.shape[1], "text_mean")
    rows = unit(means)
    if projection is not None:
        matrix = np.asarray(projection, np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != rows.shape[1]:
            raise InputError(
                "bad_embeddings",
                f"the projection has shape {list(matrix.shape)}, expected [C, {rows.shape[1]}], "
                "applied as projection @ embedding; transpose it if it is applied from the right",
            )
        rows = unit(rows @ matrix.T)
    mean = None
    bias = np.zeros(len(rows))
    if feature_mean is not None:
        mean = _vector(feature_mean, rows.shape[1], "feature_mean")
        bias = -rows @ mean
    return FoldedText(
        rows.astype(np.float32),
        bias.astype(np.float32),
        None if mean is None else mean.astype(np.float32),
    )


def rows_from_classifier(classifier: ArrayLike, classes: int) -> Float32:
    """Rows [K, C] from a classifier in open_clip's layout [C, K], one unit column a class.

    Raises:
        InputError: ``bad_embeddings`` if it is not in that layout. A square one is told by which
            of its sides is normalised.
    """
    matrix = np.asarray(classifier, np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != classes or not is_unit(matrix.T):
        raise InputError(
            "bad_embeddings",
            f"the classifier has shape {list(matrix.shape)}, expected [C, {classes}] with unit "
            "columns; rows [K, C] need no conversion",
        )
    return unit(matrix.T).astype(np.float32)


def unit(vectors: ArrayLike) -> NDArray[np.float64]:
    """Vectors along the last axis, each divided by its Euclidean norm.

    Raises:
        InputError: ``bad_embeddings`` for a zero or non-finite vector.
    """
    array = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 1e-12).all():
        raise InputError("bad_embeddings", "a vector is zero or not finite and has no direction")
    return np.asarray(array / norms)


def is_unit(rows: NDArray[np.floating]) -> bool:
    """True if every row [..., C] has norm 1 within :data:`UNIT_TOLERANCE`."""
    return bool((np.abs(np.linalg.norm(rows, axis=-1) - 1) < UNIT_TOLERANCE).all())


def _same(text_embeddings: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    arrays = [np.atleast_2d(np.asarray(each, np.float64)) for each in text_embeddings]
    width = arrays[0].shape[-1]
    for j, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != width:
            raise InputError(
                "bad_embeddings",
                f"class {j} has embeddings of shape {list(array.shape)}, expected "
                f"[templates, {width}] as for class 0",
            )
    return arrays


def _ensemble(
    prompts: NDArray[np.float64], weights: ArrayLike | None, index: int
) -> NDArray[np.float64]:
    if weights is None:
        return np.asarray(unit(prompts).mean(axis=0))
    given = np.asarray(weights, np.float64)
    if given.shape != prompts.shape[:1] or not (given >= 0).all() or not given.sum() > 0:
        raise InputError(
            "bad_embeddings",
            f"class {index} has {len(prompts)} prompts, template_weights has shape "
            f"{list(given.shape)}; expected one non-negative weight a prompt, not all zero",
        )
    return np.asarray(given @ unit(prompts) / given.sum())


def _vector(value: ArrayLike, length: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(value, np.float64)
    if array.shape != (length,) or not np.isfinite(array).all():
        raise InputError(
            "bad_embeddings",
            f"{name} has shape {list(array.shape)}, expected [{length}] finite numbers",
        )
    return array
