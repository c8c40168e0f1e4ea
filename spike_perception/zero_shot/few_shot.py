# SPDX-License-Identifier: Apache-2.0
"""Rows from examples: what a word says, corrected by what the robot has seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from spike_perception.errors import InputError
from spike_perception.zero_shot.folding import unit
from spike_perception.zero_shot.pack import VocabularyPack

# The word's share never falls below this, so a few odd examples cannot take a class over.
LEAST_TEXT_SHARE = 0.3
# Examples at which half of the way from 1 to the least share is gone.
HALF_WAY = 4


def text_share(examples: int) -> float:
    """g, the share of the word in a row from n examples: 1 without any, towards 0.3 with many."""
    return LEAST_TEXT_SHARE + (1 - LEAST_TEXT_SHARE) * HALF_WAY / (HALF_WAY + examples)


def with_examples(
    pack: VocabularyPack,
    name: str,
    counts: ArrayLike,
    *,
    text_row: ArrayLike | None = None,
    share: float | None = None,
    parent: int = -1,
) -> VocabularyPack:
    """The pack with class ``name`` learnt from examples.

    The row is ``normalise(g * w_text + (1 - g) * mean example)``; each example is centred as the
    head centres features, and normalised. The row of a name that the pack has is its ``w_text``.

    Args:
        pack: the vocabulary.
        name: a class of the pack, or a new one.
        counts: features of the n examples [n, C].
        text_row: w_text [C] of a new class (from a word bank); without it the examples alone count.
        share: g; :func:`text_share` of n if None.
        parent: index of a new class's parent.

    Raises:
        InputError: ``bad_feature`` for wrong shapes, ``bad_embeddings`` for a silent example.
    """
    features = np.asarray(counts, np.float64)
    if features.ndim != 2 or not len(features) or features.shape[1] != pack.embedding_dim:
        raise InputError(
            "bad_feature",
            f"examples have shape {list(features.shape)}, expected [n, {pack.embedding_dim}], "
            "n at least 1",
        )
    if pack.feature_mean is not None:
        features = features - pack.feature_mean
    seen = unit(unit(features).mean(axis=0))
    if name in pack.names:
        text_row = pack.rows[pack.names.index(name)]
    if text_row is None:
        return pack.with_class(name, seen, parent=parent)
    g = text_share(len(features)) if share is None else share
    return pack.with_class(name, g * unit(text_row) + (1 - g) * seen, parent=parent)
