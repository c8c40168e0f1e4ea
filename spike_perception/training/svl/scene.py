# SPDX-License-Identifier: Apache-2.0
"""Everything an SVL training works on: shapes, their pictures as the teacher sees them, names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spike_perception.errors import InputError
from spike_perception.students.registry import create_student
from spike_perception.training.evaluate import (
    accuracies,
    embedding_scores,
    folded_scores,
    spike_counts,
)
from spike_perception.training.run_folder import PROJECTION, Projection
from spike_perception.training.svl.batches import Augment, ShapeBatches, TrainingShapes
from spike_perception.training.svl.config import ShapeData, SVLConfig
from spike_perception.training.svl.mta import MAX_SCALE, MTALoss
from spike_perception.training.svl.objective import SVLObjective, start_from
from spike_perception.training.svl.point_augment import PointAugment
from spike_perception.training.svl.result import (
    CALIBRATION_BATCHES,
    Ending,
    clean_input,
    preprocessing,
    with_statistics,
)
from spike_perception.training.svl.shapes import Shapes, open_shapes
from spike_perception.training.svl.view_features import cached_view_features
from spike_perception.training.teachers.text_table import TabledTeacher
from spike_perception.training.text import embed_words
from spike_perception.training.words.templates import load_templates
from spike_perception.zero_shot.names import normalised

Float = NDArray[np.float32]

#: Points that are kept of every shape, for augmentation to choose from.
SOURCE_POINTS = 1024
#: Labelled shapes that a validation during training takes of each set.
VALIDATION_SHAPES = 500
OpenShapes = Callable[..., Shapes]
ViewFeatures = Callable[..., NDArray[np.float16]]


class PointTeacher(Protocol):
    """What of a teacher is needed here."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def id(self) -> str:
        """SHA-256 of all that decides its answers."""

    def encode_text(self, texts: Any) -> Float:
        """Unit embeddings of texts [N, C_T]."""


@dataclass(frozen=True, eq=False)
class JudgedShapes:
    """A labelled set to evaluate on.

    Attributes:
        name: in metrics.
        points: float32 [M, P, 3].
        labels: index into ``texts``, int64 [M].
        texts: embeddings of each class's prompts.
        seen: whether a class's name was learnt, bool [K].
        teacher: the teacher's own accuracy on pictures, if measured.
    """

    name: str
    points: Float
    labels: NDArray[np.int64]
    texts: list[Float]
    seen: NDArray[np.bool_]
    teacher: dict[str, float]


class SVLScene:
    """Everything an SVL training works on, opened from its configuration."""

    def __init__(
        self,
        config: SVLConfig,
        teacher: PointTeacher,
        *,
        open_data: OpenShapes = open_shapes,
        view_features: ViewFeatures = cached_view_features,
        augment: Augment | None = None,
    ) -> None:
        """Open data and names; compute or read the teacher's features of pictures.

        Args:
            config: the configuration.
            teacher: reads names and looks at pictures.
            open_data: reads a set of shapes.
            view_features: the teacher's features of a set's pictures.
            augment: changes clouds; None as configured.

        Raises:
            InputError: whatever of configuration and data cannot be used.
        """
        s = config.settings
        self.config = config
        self._teacher = teacher
        # Looks at pictures; where words lie in a space of their own it reads none of them.
        self._looking = teacher.looking if isinstance(teacher, TabledTeacher) else teacher
        self._open_data, self._view_features = open_data, view_features
        self.teacher = {"name": teacher.name, "sha256": teacher.id}
        self.cache = Path(s.teacher.cache)
        torch.manual_seed(s.trainer.seed)
        self.student = create_student(s.student.name, config.overrides)
        self.rule = preprocessing("points", config)
        self.clean = clean_input(self.rule)
        self.described: list[str] = []
        self.skipped: dict[str, dict[str, str]] = {}
        self.ids: list[str] = []
        shapes = [self._open(each) for each in config.data]
        self._name(shapes)
        sets = [self._set(each, found) for each, found in zip(config.data, shapes, strict=True)]
        self.batches = ShapeBatches(
            sets,
            [each.weight for each in config.data],
            s.trainer.batch,
            s.input.points,
            augment or PointAugment(s.augment),
            self.student.prepare,
            s.trainer.seed,
            self.prompts,
        )
        self.judged = [self._judged(each) for each in config.evaluate]

    def _open(self, data: ShapeData) -> Shapes:
        found = opened(data, self.config.settings.input.points, self._open_data)
        if found.skipped:
            self.skipped[data.name] = dict(found.skipped)
            report_skipped(data.name, found.skipped)
        return found

    def _name(self, shapes: list[Shapes]) -> None:
        """Collect the names to learn and embed them."""
        s = self.config.settings
        self.templates = (
            self._teacher.prompts
            if isinstance(self._teacher, TabledTeacher)
            else load_templates(s.text.templates)
        )
        told = [
            f.classes if d.labels else () for d, f in zip(self.config.data, shapes, strict=True)
        ]
        self.words = list({normalised(each): each for names in told for each in names})
        if not self.words and not s.loss.uses_images:
            raise InputError(
                "words_missing", "no set has class names to learn, and the image terms are off"
            )
        # Without names texts are never looked at, but their width is the teacher's.
        text = embed_words(self._teacher, self.words or ["object"], self.templates, self.cache)
        mean = np.mean([each.mean(0) for each in text], 0)
        self.text_mean = np.asarray(mean if s.text.centre else np.zeros_like(mean), np.float32)
        centred = np.stack(text) - self.text_mean
        lengths = np.linalg.norm(centred, axis=2, keepdims=True)
        self.prompts = np.asarray(centred / np.maximum(lengths, 1e-12), np.float32)

    def _set(self, data: ShapeData, shapes: Shapes) -> TrainingShapes:
        position = {word: index for index, word in enumerate(self.words)}
        labels = np.full(len(shapes.points), -1, np.int64)
        if data.labels:
            lookup = np.array([position[normalised(each)] for each in shapes.classes] + [-1])
            labels = lookup[shapes.labels]
        features = self._features(shapes) if self.config.settings.loss.uses_images else None
        if features is not None and self.config.settings.teacher.centre:
            features = centred(features)
        self.ids.append(shapes.id)
        self.described.append(f"{data.name}, {len(shapes.points)} shapes, {shapes.id[:16]}")
        return TrainingShapes(shapes.points, labels, features)

    def _features(self, shapes: Shapes) -> NDArray[np.float16]:
        return self._view_features(
            self._looking, shapes, self.cache, self.config.settings.teacher.views
        )

    def _judged(self, data: ShapeData) -> JudgedShapes:
        shapes = self._open(data)
        known = shapes.labels >= 0
        if not shapes.classes or not known.any():
            raise InputError("no_labels", f"{data.path} has no labels; accuracy needs them")
        words = [normalised(each) for each in shapes.classes]
        texts = embed_words(self._teacher, words, self.templates, self.cache)
        own: dict[str, float] = {}
        if self.config.settings.teacher.evaluate:
            features = np.asarray(self._features(shapes), np.float32)[known]
            told, read, mean = features.mean(1), texts, self.text_mean
            if self._looking is not self._teacher:
                shown = load_templates(self.config.settings.text.templates)
                read = embed_words(self._looking, words, shown, self.cache)
                mean = np.zeros(read[0].shape[1], np.float32)
            for centre, name in ((0.0, "top_1"), (told.mean(0), "top_1_centred")):
                scores = embedding_scores(told - centre, read, mean)
                own[name] = accuracies(scores, shapes.labels[known])["top_1"]
        seen = np.array([each in set(self.words) for each in words])
        return JudgedShapes(data.name, shapes.points[known], shapes.labels[known], texts, seen, own)

    def objective(self) -> SVLObjective:
        """The module to train, with the weights to start from."""
        s = self.config.settings
        torch.manual_seed(s.trainer.seed)
        looking = self._teacher.looking if isinstance(self._teacher, TabledTeacher) else None
        loss = MTALoss(
            self.student.feature_dim,
            self.prompts.shape[2],
            s.loss,
            looking.channels if looking else None,
        )
        if s.student.initial:
            start_from(Path(s.student.initial), self.student)
        return SVLObjective(self.student, loss)

    def identity(self) -> dict[str, Any]:
        """All that decides the weights besides the trainer's own settings."""
        return {
            **self.config.identity(),
            "teacher_id": self.teacher["sha256"],
            "data_ids": self.ids,
        }

    def validate(self, objective: nn.Module) -> dict[str, float]:
        """Zero-shot accuracy of the folded head on a part of every evaluation set."""
        trained: Any = objective
        found: dict[str, float] = {}
        clean = self.batches.clean(CALIBRATION_BATCHES)
        student = with_statistics(trained.student, clean, self.clean)
        for judged in self.judged:
            step = max(1, len(judged.points) // VALIDATION_SHAPES)
            counts = spike_counts(student, judged.points[::step], self.clean)
            scores = self._scores(counts, judged, trained.loss)
            found[f"{judged.name}.top_1"] = accuracies(scores, judged.labels[::step])["top_1"]
        return found

    def _scores(self, counts: Float, judged: JudgedShapes, loss: Any) -> NDArray[np.float64]:
        return folded_scores(counts, judged.texts, matrix_of(loss), self.text_mean)

    def finish(
        self, trained: SVLObjective, out: Path, command: str, *, steps: int, speed: float
    ) -> dict[str, Any]:
        """Judge and write bundle, projection, configuration, metrics and card."""
        ending = Ending(
            "points", self.config, trained.student, command, self.teacher, self.described,
            self.skipped,
        )  # fmt: skip
        clean = self.batches.clean(CALIBRATION_BATCHES)
        energy = ending.prepare(clean, max(1, len(self.words)))
        for judged in self.judged:
            for form, network in ending.forms.items():
                counts = spike_counts(network, judged.points, self.clean)
                scores = self._scores(counts, judged, trained.loss)
                for name, value in shape_accuracies(scores, judged).items():
                    ending.metrics[f"{judged.name}.{form}.{name}"] = value
            for name, value in judged.teacher.items():
                ending.metrics[f"{judged.name}.teacher.{name}"] = value
        counts = spike_counts(ending.forms[ending.precision], np.concatenate(clean), self.clean)
        bundle = ending.bundle()
        scale = float(trained.loss.log_scale.exp().clamp_max(MAX_SCALE))
        Projection(
            matrix_of(trained.loss), counts.mean(0), self.text_mean, bundle.encoder_id,
            self.teacher, scale,
        ).save(out / PROJECTION)  # fmt: skip
        initial = self.config.settings.student.initial
        start = (
            f" It started from the weights of {Path(initial).name}: what those learnt, their "
            "names too, it has seen as well."
            if initial
            else ""
        )
        return ending.write(
            bundle,
            out,
            energy,
            steps=steps,
            speed=speed,
            what=f"""Spiking encoder of point clouds: {bundle.student}, \
{bundle.parameter_count:,} parameters, input
{bundle.preprocessing["points"]} points in the unit sphere, z up, T = {bundle.timesteps}, \
D = {bundle.levels}, {bundle.embedding_dim} spike counts.
Aligned by SVL with names and pictures as {self.teacher["name"]}
(`{self.teacher["sha256"][:16]}`) understands them; {len(self.words)} names were learnt.{start} \
It names objects by a vocabulary that `spike-train fold` makes of words.""",
            reading="""`f32` and `int8` are the two forms in which robots run it, `teacher` the \
teacher on pictures of the same shapes
(`centred`: less the mean of the set's features). `top_1_seen` and `top_1_unseen` divide the \
shapes by whether their
class's name was learnt; all names of the set are allowed as answers.""",
            limits=(
                "It learnt from shapes that stand upright, whole and in part as a sensor might see "
                "them; what a LiDAR measures differs, and accuracy on that has to be measured.",
                "It sees form alone, neither size nor colour.",
            ),
        )


def matrix_of(loss: MTALoss) -> Float:
    """P as the vocabulary folds it, float32 [C_T, C]."""
    return loss.projection.weight.detach().float().cpu().numpy().copy()


def shape_accuracies(scores: NDArray[np.float64], judged: JudgedShapes) -> dict[str, float]:
    """``top_1``, ``top_5`` and, where some names were learnt and some not, both parts."""
    found = accuracies(scores, judged.labels)
    if judged.seen.any() and not judged.seen.all():
        for name, rows in (("seen", judged.seen[judged.labels]),
                           ("unseen", ~judged.seen[judged.labels])):  # fmt: skip
            if rows.any():
                part = accuracies(scores[rows], judged.labels[rows])
                found[f"top_1_{name}"] = part["top_1"]
    return found


def centred(features: NDArray[np.float16]) -> NDArray[np.float16]:
    """Features [M, V, C] less their mean, unit again."""
    values = np.asarray(features, np.float32)
    values = values - values.mean((0, 1))
    lengths = np.linalg.norm(values, axis=2, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-12), np.float16)


def opened(data: ShapeData, points: int, open_data: OpenShapes = open_shapes) -> Shapes:
    """The shapes of one entry of the configuration.

    Args:
        data: the entry.
        points: that a student takes; at least :data:`SOURCE_POINTS` of each shape are kept.
        open_data: reads a set.

    Raises:
        InputError: ``invalid_setting``, and the reasons of ``open_data``.
    """
    if data.first or data.last:
        raise InputError(
            "invalid_setting", f"{data.path}: first and last choose recordings; use limit or split"
        )
    given: dict[str, Any] = {"up": data.up} if data.up else {}
    return open_data(
        data.path,
        data.split or None,
        points=max(SOURCE_POINTS, points),
        only=data.chosen,
        without=data.excluded,
        limit=data.limit or None,
        **given,
    )


def report_skipped(name: str, skipped: dict[str, str]) -> None:
    """Say on stderr what was left out."""
    shown = ", ".join(list(skipped)[:8]) + (" ..." if len(skipped) > 8 else "")
    print(f"{name}: {len(skipped)} samples cannot be read and are left out: {shown}",
          file=sys.stderr)  # fmt: skip
