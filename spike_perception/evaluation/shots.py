# SPDX-License-Identifier: Apache-2.0
"""Few-shot accuracy: words corrected by a few examples of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from spike_perception.errors import InputError
from spike_perception.evaluation.classification import judge
from spike_perception.evaluation.metrics import top_k
from spike_perception.zero_shot.few_shot import with_examples
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

Features = npt.NDArray[np.float32]
MAX_SHOTS = 10_000


def parse_shots(given: str) -> tuple[int, ...]:
    """Numbers of examples from ``"1,5,10"``, rising; () for an empty text.

    Raises:
        InputError: ``invalid_option``.
    """
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not all(word.isdecimal() and 1 <= int(word) <= MAX_SHOTS for word in words):
        raise InputError(
            "invalid_option",
            f"shots are {given!r}; give whole numbers from 1 to {MAX_SHOTS}, such as 1,5,10",
        )
    return tuple(sorted({int(word) for word in words}))


class ExamplePool:
    """Where examples come from: images of each class, encoded when they are drawn.

    Args:
        classes: classes of the vocabulary.
        images: for each of them, the positions of its images.
        feature: feature ``[C]`` of an image; None for one that is corrupt or silent.
    """

    def __init__(
        self,
        classes: Sequence[int],
        images: Sequence[npt.NDArray[np.int64]],
        feature: Callable[[int], Features | None],
    ) -> None:
        self.classes = tuple(classes)
        self._images = tuple(images)
        self._feature = feature
        self._known: dict[int, Features | None] = {}

    def draw(self, count: int, seed: int, name: Callable[[int], str]) -> list[list[int]]:
        """Positions of ``count`` usable images of each class, in the order of the draw.

        Fewer examples from one seed are the first ones of more.

        Args:
            count: images of each class.
            seed: of the draw.
            name: name of a class, for the refusal.

        Raises:
            InputError: ``too_few_examples``.
        """
        drawn = []
        for label, images in zip(self.classes, self._images, strict=True):
            rng = np.random.default_rng([seed, label])
            chosen: list[int] = []
            for at in rng.permutation(images):
                if len(chosen) == count:
                    break
                if self.feature(int(at)) is not None:
                    chosen.append(int(at))
            if len(chosen) < count:
                raise InputError(
                    "too_few_examples",
                    f"{count} examples of {name(label)!r} are asked for, {len(chosen)} images of "
                    "it can be used; ask for fewer shots, or give more images with --shots-from",
                )
            drawn.append(chosen)
        return drawn

    def feature(self, at: int) -> Features | None:
        """Feature of an image, remembered."""
        if at not in self._known:
            self._known[at] = self._feature(at)
        return self._known[at]


def few_shot_rows(
    pack: VocabularyPack,
    pool: ExamplePool,
    shots: Sequence[int],
    seeds: Sequence[int],
    features: Features,
    labels: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64] | None,
) -> list[dict[str, Any]]:
    """Accuracy with 0 examples and with each number of shots, mean and spread over seeds.

    Within a seed every number of shots, 0 too, is judged on the same images.

    Args:
        pack: the vocabulary of words.
        pool: where examples are drawn from.
        shots: numbers of examples of each class, rising.
        seeds: one draw each.
        features: ``[N, C]`` of the images judged.
        labels: int64 ``[N]``, their classes.
        own: int64 ``[N]``, position of each in the pool, so that what is drawn is not judged;
            None if the pool holds other images.

    Returns:
        One row for each number of shots, by JSON names.

    Raises:
        InputError: ``too_few_examples``, also if no image is left to judge.
    """
    words: dict[int, list[tuple[float, float]]] = {n: [] for n in (0, *shots)}
    alone: dict[int, list[float]] = {n: [] for n in shots}
    judged = []
    for seed in tqdm(seeds, desc="few-shot", unit="seed", disable=None, leave=False):
        drawn = pool.draw(shots[-1], seed, lambda label: pack.names[label])
        rest = np.ones(len(labels), np.bool_)
        if own is not None:
            rest = ~np.isin(own, np.concatenate(drawn))
        if not rest.any():
            raise InputError(
                "too_few_examples",
                f"{shots[-1]} shots leave no image to judge; ask for fewer, or give the examples "
                "with --shots-from",
            )
        judged.append(int(rest.sum()))
        words[0].append(_accuracy(pack, features[rest], labels[rest]))
        for n in shots:
            examples = [[pool.feature(at) for at in chosen[:n]] for chosen in drawn]
            for share, kept in ((None, words[n]), (0.0, None)):
                learnt = pack
                for label, rows in zip(pool.classes, examples, strict=True):
                    learnt = with_examples(learnt, pack.names[label], np.array(rows), share=share)
                found = _accuracy(learnt, features[rest], labels[rest])
                if kept is None:
                    alone[n].append(found[0])
                else:
                    kept.append(found)
    return [
        {
            "shots": n,
            "top_1": float(np.mean([each[0] for each in words[n]])),
            "top_1_std": float(np.std([each[0] for each in words[n]])),
            "top_1_seeds": [each[0] for each in words[n]],
            "top_5": float(np.mean([each[1] for each in words[n]])),
            "examples_alone_top_1": float(np.mean(alone[n])) if n else None,
            "images": float(np.mean(judged)),
        }
        for n in words
    ]


def _accuracy(
    pack: VocabularyPack, features: Features, labels: npt.NDArray[np.int64]
) -> tuple[float, float]:
    ranks = judge(Head(pack), features, labels).ranks
    return top_k(ranks, 1) or 0.0, top_k(ranks, 5) or 0.0
