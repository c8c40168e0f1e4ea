# SPDX-License-Identifier: Apache-2.0
"""The coarse words by which the labelled objects of a simulated world are named and judged."""

from __future__ import annotations

from collections.abc import Mapping

# Label of a model (see ``sdf.Model.label``) -> its word. A label that is missing here is of no
# nameable object: ground, ceiling, the robot, and what is too rare or too small in the world.
WORDS = {
    "barrel": "barrel",
    "bench": "bench",
    "bin": "trash can",
    "box": "box",
    "building": "building",
    "cabinet": "cabinet",
    "car": "car",
    "chair": "chair",
    "container": "shipping container",
    "desk": "table",
    "door": "building",
    "fence": "fence",
    "gate": "fence",
    "hedge": "hedge",
    "mural": "building",
    "person": "person",
    "potted plant": "potted plant",
    "shelf": "shelf",
    "sofa": "couch",
    "street lamp": "street light",
    "table": "table",
    "traffic cone": "traffic cone",
    "traffic sign": "traffic sign",
    "tree": "tree",
    "wall": "wall",
}
# Every word once, in alphabetical order: the vocabulary of the world.
CLASSES = tuple(sorted(set(WORDS.values())))


def word_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of a picture by word, of shares by label; largest first."""
    words: dict[str, float] = {}
    for label, share in shares.items():
        if label in WORDS:
            words[WORDS[label]] = words.get(WORDS[label], 0.0) + share
    return dict(sorted(words.items(), key=lambda each: (-each[1], each[0])))
