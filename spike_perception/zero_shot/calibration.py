# SPDX-License-Identifier: Apache-2.0
"""Fit a vocabulary's temperature and its rule for "unknown" on held-out features."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import Rejection, count_band, threshold_at

# Temperatures of cosines that make sense: from all but an argmax to all but uniform.
TEMPERATURES = np.geomspace(1e-4, 10, 2001)


def calibrate_temperature(
    pack: VocabularyPack, counts: ArrayLike, labels: ArrayLike
) -> VocabularyPack:
    """The pack with the temperature that makes its probabilities likeliest on held-out data.

    The negative log likelihood is unimodal in log temperature; the least of a fine geometric grid
    (0.6 % a step) is taken, which needs no optimiser and no derivative.

    Args:
        pack: the vocabulary.
        counts: features [N, C] of held-out samples.
        labels: index of each sample's class [N], a leaf.

    Raises:
        InputError: ``no_calibration_data`` for wrong shapes or labels.
    """
    cosines = Head(pack).cosines(counts)[:, : len(pack.names)]
    truth = np.asarray(labels)
    if (
        truth.shape != (len(cosines),)
        or not truth.size
        or not np.isin(truth, pack.hierarchy.leaves).all()
    ):
        raise InputError(
            "no_calibration_data",
            f"{len(cosines)} features and labels of shape {list(truth.shape)}; expected one leaf "
            "class a feature",
        )
    samples = np.arange(len(truth))
    losses = [
        -np.log(
            np.maximum(pack.hierarchy.posteriors(cosines, temperature)[samples, truth], 1e-300)
        ).mean()
        for temperature in TEMPERATURES
    ]
    return pack.replace(temperature=float(TEMPERATURES[int(np.argmin(losses))]))


def calibrate_rejection(
    pack: VocabularyPack,
    counts: ArrayLike,
    method: str = "max_softmax",
    true_positive_rate: float = 0.95,
) -> VocabularyPack:
    """The pack with a rule for "unknown" that lets this share of held-out known samples pass.

    Args:
        pack: the vocabulary, its temperature calibrated already.
        counts: features [N, C] of held-out samples of the vocabulary's classes.
        method: one of :data:`~spike_perception.zero_shot.rejection.METHODS`.
        true_positive_rate: share of known samples that shall pass.

    Raises:
        InputError: ``bad_rejection`` or ``no_calibration_data``.
    """
    scores = Head(pack).known_scores(counts, method)
    low, high = count_band(np.abs(np.asarray(counts, np.float64)).sum(axis=1))
    rule = Rejection(
        method, threshold_at(scores, true_positive_rate), low, high, true_positive_rate
    )
    return pack.replace(rejection=rule)
