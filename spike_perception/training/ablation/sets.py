# SPDX-License-Identifier: Apache-2.0
"""Image sets of the ablation, decoded and encoded by the teacher once for all runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import to_flat
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.ablation.config import SetConfig
from spike_perception.training.chance import key
from spike_perception.training.config import DataConfig, DistillSettings
from spike_perception.training.data.idx import idx_files, open_idx
from spike_perception.training.data.images import ImageSet, open_images
from spike_perception.training.evaluate import accuracies, embedding_scores
from spike_perception.training.pixels import image_preprocessing, sized_pixels
from spike_perception.training.scene import class_words
from spike_perception.training.teachers.features import cached_features
from spike_perception.training.teachers.teacher import Teacher
from spike_perception.training.text import embed_words
from spike_perception.training.vl2spike.manifold import Basis
from spike_perception.training.words.templates import load_templates

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LearningSet:
    """One image set in memory, all that its runs need of it and of the teacher.

    Attributes:
        config: where it comes from.
        identity: SHA-256 of images, words, teacher and sizes.
        words: names of the classes.
        pixels: images of the pool, uint8 [M, h, w, 3], larger than the student's by the margin.
        labels: theirs, int64 [M].
        features: the teacher's, float16 [M, C].
        tokens: the teacher's in the basis of its manifold, float16 [M, h', w', d].
        explained: share of the variance of the teacher's tokens that the basis holds.
        texts: text embeddings of each class's prompts, float32 [K, P, C].
        text_mean: taken from every text embedding [C].
        logit_scale: the teacher's.
        teacher_top_1: the teacher's own zero-shot accuracy on the pool.
        test_pixels: uint8 [N, H, W, 3] at the student's size.
        test_labels: int64 [N].
        skipped: images that could not be decoded, with the reason.
    """

    config: SetConfig
    identity: str
    words: tuple[str, ...]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    features: NDArray[np.float16]
    tokens: NDArray[np.float16]
    explained: float
    texts: Float
    text_mean: Float
    logit_scale: float
    teacher_top_1: float
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    skipped: dict[str, str]

    def chosen(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the images of a seed that are shown with and without label.

        Of each class the same number, as far as it has so many.
        """
        with_label = self.config.labelled or len(self.labels)
        generator = np.random.Generator(np.random.Philox(key(seed, 2)))
        shuffled = [
            generator.permutation(np.flatnonzero(self.labels == label))
            for label in range(len(self.words))
        ]
        end = with_label + self.config.unlabelled
        return (
            np.sort(np.concatenate([rows[:with_label] for rows in shuffled])),
            np.sort(np.concatenate([rows[with_label:end] for rows in shuffled])),
        )

    def described(self) -> dict[str, Any]:
        """What it is, as plain JSON values."""
        return {
            "classes": len(self.words),
            "pool_images": len(self.labels),
            "labelled_images": len(self.chosen(0)[0]),
            "unlabelled_images": len(self.chosen(0)[1]),
            "test_images": len(self.test_labels),
            "teacher_top_1_on_pool": self.teacher_top_1,
            "skipped": self.skipped,
        }


@dataclass(frozen=True, eq=False)
class Opened:
    """A set's files, before anything is decoded: enough to know which runs are done.

    Attributes:
        config: where it comes from.
        train: the pool that seeds choose from.
        encoded: what the teacher encodes: the pool or the whole set.
        rows: where in ``encoded`` each image of the pool is, int64 [M].
        test: images to judge by.
        words: names of the classes.
    """

    config: SetConfig
    train: ImageSet
    encoded: ImageSet
    rows: NDArray[np.int64]
    test: ImageSet
    words: tuple[str, ...]

    @property
    def id(self) -> str:
        """SHA-256 of what the runs learn from and are judged by."""
        flat = {
            k: v
            for k, v in to_flat(self.config).items()
            if k in ("labelled", "unlabelled", "steps")
        }
        return sha256_json([self.train.id, self.test.id, list(self.words), flat])


def open_set(config: SetConfig, root: Path) -> Opened:
    """Open a set's files; paths that are not absolute begin at ``root``.

    Raises:
        InputError: ``images_missing``, ``images_unreadable``, ``no_labels``, ``words_missing``.
    """
    train, test = _open(root / config.train, config), _open(root / config.test, config)
    if not train.classes:
        raise InputError("no_labels", f"{train.path} has no class folders; rows learn from labels")
    if train.classes != test.classes:
        raise InputError("no_labels", f"{train.path} and {test.path} do not have the same classes")
    table = str(root / config.words) if config.words else ""
    words = class_words(DataConfig(words=table), train)
    whole, rows = train, np.arange(len(train))
    if config.pool:
        parts = [np.flatnonzero(train.labels == label) for label in range(len(words))]
        rows = np.concatenate([_evenly(part, config.pool) for part in parts])
        train = train.subset(rows)
    encoded = whole
    if not config.encode_all:
        encoded, rows = train, np.arange(len(train))
    if config.test_images:
        test = test.subset(_evenly(np.arange(len(test)), config.test_images))
    return Opened(config, train, encoded, rows, test, tuple(words))


def token_basis(opened: Opened, teacher: Teacher, recipe: DistillSettings) -> Basis:
    """The manifold of the teacher's tokens; all sets share that of the first, as ``distill`` does.

    Raises:
        InputError: as ``cached_features``.
    """
    found = cached_features(
        teacher, opened.encoded, Path(recipe.teacher.cache), recipe.teacher.token_dimensions
    ).basis
    if found is None:  # not with a number of dimensions, which a setting always is
        raise InputError("no_manifold", f"{opened.encoded.path} gives no basis of tokens")
    return found


def load_set(
    opened: Opened,
    teacher: Teacher,
    recipe: DistillSettings,
    size: tuple[int, int],
    basis: Basis,
) -> LearningSet:
    """Decode and encode a set.

    Args:
        opened: its files.
        teacher: says what there is to learn.
        recipe: sizes, templates, cache.
        size: height and width that the student takes.
        basis: of the teacher's tokens, see :func:`token_basis`.

    Raises:
        InputError: whatever of the files cannot be used.
    """
    cache = Path(recipe.teacher.cache)
    features = cached_features(
        teacher, opened.encoded, cache, recipe.teacher.token_dimensions, basis=basis
    )
    rule = image_preprocessing(size, recipe.image.mean, recipe.image.std, recipe.student.precision)
    larger = (
        round(size[0] * (1.0 + recipe.image.margin)),
        round(size[1] * (1.0 + recipe.image.margin)),
    )
    name = opened.config.name
    pixels = sized_pixels(opened.train, rule, larger, name=name)
    test = sized_pixels(opened.test, rule, size, name=f"{name} (test)")
    both = np.isin(opened.rows[pixels.indices], features.indices)
    labels = opened.train.labels[pixels.indices[both]]
    rows = opened.rows[pixels.indices[both]]
    told = np.asarray(features.features[rows])
    texts = embed_words(teacher, opened.words, load_templates(recipe.vocabulary.templates), cache)
    mean = np.mean([each.mean(0) for each in texts], 0)
    text_mean = np.asarray(mean if recipe.vocabulary.centre else np.zeros_like(mean), np.float32)
    own = accuracies(embedding_scores(told.astype(np.float32), texts, text_mean), labels)
    return LearningSet(
        opened.config,
        opened.id,
        opened.words,
        pixels.pixels[both],
        labels,
        told,
        np.asarray(features.tokens[rows]),
        basis.explained,
        np.stack(texts),
        text_mean,
        teacher.logit_scale,
        own["top_1"],
        test.pixels,
        opened.test.labels[test.indices],
        {**pixels.skipped, **test.skipped},
    )


def _open(path: Path, config: SetConfig) -> ImageSet:
    if idx_files(path):
        return open_idx(path, [each.strip() for each in config.names.split(",") if each.strip()])
    return open_images(path)


def _evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most so many of the rows, from first to last."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
