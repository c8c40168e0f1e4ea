# SPDX-License-Identifier: Apache-2.0
"""When to answer "unknown": scores, their calibration, and how well they separate.

Every score lies in [0, 1] and is higher for what is known, so one threshold and one message field
serve all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spike_perception.errors import InputError
from spike_perception.zero_shot.hierarchy import softmax

METHODS = ("max_softmax", "max_logit", "energy", "negative_labels")


@dataclass(frozen=True)
class Rejection:
    """A calibrated rule for "unknown".

    Attributes:
        method: one of :data:`METHODS`.
        threshold: smallest score that counts as known, in [0, 1].
        count_low: fewest spikes in all that a healthy input causes.
        count_high: most spikes in all that a healthy input causes.
        true_positive_rate: share of held-out known samples that pass, as asked for.
    """

    method: str
    threshold: float
    count_low: float = 0.0
    count_high: float = float(2**31)
    true_positive_rate: float = 0.95

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                "bad_rejection",
                f"rejection method is {self.method!r}, allowed are {', '.join(METHODS)}",
            )
        if not 0 <= self.threshold <= 1 or not 0 < self.true_positive_rate <= 1:
            raise InputError(
                "bad_rejection",
                f"rejection threshold {self.threshold} and true positive rate "
                f"{self.true_positive_rate} must lie in [0, 1]",
            )
        if not 0 <= self.count_low <= self.count_high < float("inf"):
            raise InputError(
                "bad_rejection",
                f"spike counts from {self.count_low} to {self.count_high} are no band",
            )


def known_scores(
    method: str, cosines: ArrayLike, classes: int, temperature: float
) -> NDArray[np.float64]:
    """How well known each sample is, in [0, 1].

    ``max_softmax`` is MCM's score: the greatest softmax probability of ``cos / temperature``.
    ``max_logit`` is the greatest cosine, ``energy`` the soft maximum
    ``temperature * log mean exp(cos / temperature)``, both mapped from [-1, 1] to [0, 1].
    ``negative_labels`` is NegLabel's share of the classes in the sum of ``exp(cos / temperature)``
    over classes and negative labels.

    Args:
        method: one of :data:`METHODS`.
        cosines: [..., K + M], classes first, negative labels after them.
        classes: K.
        temperature: divides the cosines.

    Returns:
        Scores [...], float64.

    Raises:
        InputError: ``bad_rejection`` for an unknown method or negative labels that are not there.
    """
    values = np.asarray(cosines, np.float64)
    positive = values[..., :classes]
    if method == "max_softmax":
        return np.asarray(softmax(positive / temperature).max(axis=-1))
    if method == "max_logit":
        return np.asarray(np.clip((1 + positive.max(axis=-1)) / 2, 0, 1))
    if method == "energy":
        top = positive.max(axis=-1)
        spread = np.exp((positive - top[..., None]) / temperature)
        return np.asarray(np.clip((1 + top + temperature * np.log(spread.mean(axis=-1))) / 2, 0, 1))
    if method == "negative_labels" and values.shape[-1] > classes:
        return np.asarray(softmax(values / temperature)[..., :classes].sum(axis=-1).clip(0, 1))
    raise InputError(
        "bad_rejection",
        f"rejection by {method!r} with {values.shape[-1] - classes} negative labels is not "
        f"possible; methods are {', '.join(METHODS)}, the last one needs negative labels",
    )


def threshold_at(scores_known: ArrayLike, true_positive_rate: float = 0.95) -> float:
    """The greatest threshold that at least this share of known samples reaches (``>=``).

    Raises:
        InputError: ``no_calibration_data`` without a finite score.
    """
    scores = np.sort(_scores(scores_known))[::-1]
    needed = int(np.ceil(true_positive_rate * len(scores) - 1e-9))
    return float(scores[max(needed, 1) - 1])


def count_band(
    totals: ArrayLike, quantile: float = 0.001, margin: float = 0.25
) -> tuple[float, float]:
    """The band of total spike counts that known, healthy inputs cause.

    The band spans the quantiles ``quantile`` and ``1 - quantile`` of held-out inputs, widened by
    ``margin`` of itself at both ends: it shall catch blank, saturated and dead sensors, not rare
    scenes.

    Args:
        totals: total spike counts of known samples [N].
        quantile: share cut off at either end.
        margin: widening, as a fraction of each bound.
    """
    low, high = np.quantile(_scores(totals), [quantile, 1 - quantile])
    return float(low * (1 - margin)), float(high * (1 + margin))


def auroc(scores_known: ArrayLike, scores_unknown: ArrayLike) -> float:
    """Area under the ROC curve, exact: P(known > unknown) + P(equal) / 2 (Mann-Whitney).

    Raises:
        InputError: ``no_calibration_data`` if one side has no finite score.
    """
    known, unknown = _scores(scores_known), _scores(scores_unknown)
    _, inverse, counts = np.unique(
        np.concatenate([known, unknown]), return_inverse=True, return_counts=True
    )
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_ranks[inverse.reshape(-1)[: len(known)]].sum()
    pairs = len(known) * len(unknown)
    return float((rank_sum - len(known) * (len(known) + 1) / 2) / pairs)


def false_positive_rate(
    scores_known: ArrayLike, scores_unknown: ArrayLike, true_positive_rate: float = 0.95
) -> float:
    """Share of unknown samples taken for known where 95 % of the known ones pass (FPR95).

    Samples whose score ties with the threshold pass on both sides.
    """
    threshold = threshold_at(scores_known, true_positive_rate)
    return float((_scores(scores_unknown) >= threshold).mean())


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64).reshape(-1)
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            "no_calibration_data",
            f"{array.size} scores are given, expected at least one, all finite",
        )
    return array
