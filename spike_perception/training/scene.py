# SPDX-License-Identifier: Apache-2.0
"""Everything a distillation works on: teacher's answers, words, image sets, student, losses."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.students.registry import create_student
from spike_perception.students.student import Student
from spike_perception.training.augment import Augment
from spike_perception.training.batches import DistillBatches, TrainingSet
from spike_perception.training.config import DataConfig, DistillConfig
from spike_perception.training.data.images import ImageSet, open_images
from spike_perception.training.data.tables import read_class_words
from spike_perception.training.evaluate import (
    accuracies,
    embedding_scores,
    folded_scores,
    spike_counts,
)
from spike_perception.training.objective import Distillation, start_from
from spike_perception.training.pixels import image_preprocessing, sized_pixels
from spike_perception.training.teachers.features import cached_features
from spike_perception.training.teachers.teacher import Teacher, load_teacher
from spike_perception.training.text import embed_words
from spike_perception.training.vl2spike.manifold import Basis
from spike_perception.training.vl2spike.total import VL2SpikeLoss
from spike_perception.training.words import load_words
from spike_perception.training.words.templates import load_templates
from spike_perception.zero_shot.names import normalised

Float = NDArray[np.float32]

#: Labelled images a validation during training takes of each set.
VALIDATION_IMAGES = 1000


@dataclass(frozen=True, eq=False)
class JudgedSet:
    """A labelled set to evaluate on.

    Attributes:
        name: in metrics.
        pixels: uint8 [M, h, w, 3] at the student's size.
        labels: index into ``texts``, int64 [M].
        texts: embeddings of each class's prompts.
        teacher: the teacher's own accuracy, if measured.
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    texts: list[Float]
    teacher: dict[str, float] | None


class Scene:
    """Everything a distillation works on, opened from its configuration."""

    def __init__(self, config: DistillConfig, teacher: Teacher) -> None:
        """See :meth:`open`."""
        settings = config.settings
        self.config = config
        self.teacher = {"name": teacher.name, "sha256": teacher.id}
        self.logit_scale = teacher.logit_scale
        self.cache = Path(settings.teacher.cache)
        torch.manual_seed(settings.trainer.seed)
        self.student = create_student(settings.student.name, config.overrides)
        self.size = input_size(self.student)
        image = settings.image
        self.preprocessing = image_preprocessing(
            self.size, image.mean, image.std, settings.student.precision
        )
        self.augment = Augment(
            settings.augment, self.size, (image.mean,), (image.std,), settings.trainer.seed
        )
        self.skipped: dict[str, dict[str, str]] = {}
        self.described: list[str] = []
        self.ids: list[str] = []
        self.basis: Basis | None = None

    @classmethod
    def open(cls, config: DistillConfig, teacher: Teacher | None = None) -> Scene:
        """Open teacher, words and data.

        Raises:
            InputError: whatever of them cannot be used.
        """
        chosen = config.settings.teacher
        if teacher is None:
            checkpoint = Path(chosen.checkpoint) if chosen.checkpoint else None
            teacher = load_teacher(chosen.name, checkpoint)
        scene = cls(config, teacher)
        scene._open_words(teacher)
        scene._open_data(teacher)
        scene._open_judged(teacher)
        return scene

    def _open_words(self, teacher: Teacher) -> None:

        vocabulary = self.config.settings.vocabulary
        self.templates = load_templates(vocabulary.templates)
        self.images = [_open(each) for each in self.config.data]
        self.classes = [
            class_words(c, i) for c, i in zip(self.config.data, self.images, strict=True)
        ]
        names = list(word_list(vocabulary.words))
        for data, classes in zip(self.config.data, self.classes, strict=True):
            names += classes if data.labels else ()
        unique = {normalised(each): each for each in reversed(names)}
        self.words = [each for each in dict.fromkeys(names) if unique[normalised(each)] == each]
        if not self.words:
            raise InputError(
                "words_missing",
                "there are no words to compare with: set vocabulary.words, or learn from labels",
            )
        self.text = embed_words(teacher, self.words, self.templates, self.cache)
        mean = np.mean([each.mean(0) for each in self.text], 0)
        self.text_mean = np.asarray(mean if vocabulary.centre else np.zeros_like(mean), np.float32)

    def _open_data(self, teacher: Teacher) -> None:

        settings = self.config.settings
        stored = tuple(round(side * (1.0 + settings.image.margin)) for side in self.size)
        position = {normalised(word): index for index, word in enumerate(self.words)}
        sets = []
        for data, images, classes in zip(self.config.data, self.images, self.classes, strict=True):
            features = cached_features(
                teacher, images, self.cache, settings.teacher.token_dimensions, basis=self.basis
            )
            self.basis = features.basis
            pixels = sized_pixels(
                images, self.preprocessing, (stored[0], stored[1]), name=data.name
            )
            rows = pixels.indices[np.isin(pixels.indices, features.indices)]
            kept = pixels.pixels[np.isin(pixels.indices, rows)]
            labels = np.full(len(rows), -1, np.int64)
            if data.labels:
                if not classes:
                    raise InputError(
                        "no_labels", f"{data.path} has no class folders; set labels=false for it"
                    )
                lookup = np.array([position[normalised(each)] for each in classes], np.int64)
                labels = lookup[images.labels[rows]]
            sets.append(
                TrainingSet(
                    kept, np.asarray(features.features[rows]), features.tokens, rows, labels
                )
            )
            self.ids.append(images.id)
            self._note(data.name, len(rows), images.id, {**features.skipped, **pixels.skipped})
        self.labelled = any(data.labels for data in self.config.data)
        self.loss_config = settings.loss
        if not self.labelled:
            off = {"cross_entropy.enabled": False, "prototypes.enabled": False}
            self.loss_config = replace(settings.loss, off)
        self.batches = DistillBatches(
            sets,
            [data.weight for data in self.config.data],
            settings.trainer.batch,
            self.augment,
            settings.trainer.seed,
            self.loss_config.manifold.enabled,
        )

    def _open_judged(self, teacher: Teacher) -> None:

        self.judged: list[JudgedSet] = []
        for data in self.config.evaluate:
            images = _open(data)
            classes = class_words(data, images)
            if not classes:
                raise InputError(
                    "no_labels", f"{data.path} has no class folders; accuracy needs labels"
                )
            texts = embed_words(teacher, classes, self.templates, self.cache)
            pixels = sized_pixels(images, self.preprocessing, self.size, name=data.name)
            own = None
            if self.config.settings.teacher.evaluate:
                dimensions = self.config.settings.teacher.token_dimensions
                told = cached_features(teacher, images, self.cache, dimensions, basis=self.basis)
                own = accuracies(
                    embedding_scores(
                        np.asarray(told.features[told.indices], np.float32), texts, self.text_mean
                    ),
                    images.labels[told.indices],
                )
            self.judged.append(
                JudgedSet(data.name, pixels.pixels, images.labels[pixels.indices], texts, own)
            )
            if pixels.skipped:
                self.skipped[data.name] = pixels.skipped

    def _note(self, name: str, count: int, identity: str, skipped: dict[str, str]) -> None:
        self.described.append(f"{name}, {count} images, {identity[:16]}")
        if skipped:
            self.skipped[name] = skipped
            print(
                f"{name}: {len(skipped)} images cannot be decoded and are left out: "
                + ", ".join(list(skipped)[:8])
                + (" ..." if len(skipped) > 8 else ""),
                file=sys.stderr,
            )

    def objective(self) -> Distillation:
        """The module to train, with the weights to start from."""
        torch.manual_seed(self.config.settings.trainer.seed)
        text = torch.from_numpy(np.stack(self.text))
        if self.text_mean.any():
            text = text - torch.from_numpy(self.text_mean)
        basis, grid = None, None
        if self.loss_config.manifold.enabled:
            grid = getattr(self.student, "grid", None)
            if grid is None or self.basis is None:
                raise InputError(
                    "no_manifold",
                    f"{self.config.settings.student.name} has no grid of tokens; set "
                    "loss.manifold.enabled to false",
                )
            # Cached tokens are coordinates already.
            own = len(self.basis.axes)
            basis = Basis(torch.zeros(own), torch.eye(own), self.basis.explained)
        loss = VL2SpikeLoss(
            self.student,
            text,
            logit_scale=self.logit_scale,
            basis=basis,
            grid=grid,
            token_channels=self._token_channels(),
            config=self.loss_config,
        )
        if self.config.settings.student.initial:
            start_from(Path(self.config.settings.student.initial), self.student, loss)
        return Distillation(self.student, loss)

    def _token_channels(self) -> int | None:
        found = getattr(self.student.config, "features", None)
        return found if isinstance(found, int) else None

    def identity(self) -> dict[str, Any]:
        """All that decides the weights besides the trainer's own settings."""
        document = self.config.document()
        document.pop("trainer")
        document.pop("evaluate")
        document.pop("name")
        for name in ("cache", "name", "evaluate"):
            document["teacher"].pop(name)
        return {
            **document,
            "teacher_id": self.teacher["sha256"],
            "data_ids": self.ids,
            "texts": sha256_json([self.words, self.classes, list(self.templates)]),
        }

    def validate(self, objective: torch.nn.Module) -> dict[str, float]:
        """Zero-shot accuracy on a part of each judged set, by the folded head."""
        module: Any = objective
        projection = module.loss.embedding.weight.detach().float().cpu().numpy()
        found = {}
        for judged in self.judged:
            count = min(len(judged.labels), VALIDATION_IMAGES)
            rows = np.linspace(0, len(judged.labels) - 1, count).astype(int)
            counts = spike_counts(module.student, judged.pixels[rows], self.augment.clean)
            scores = folded_scores(counts, judged.texts, projection, self.text_mean)
            found[f"{judged.name}.top_1"] = accuracies(scores, judged.labels[rows])["top_1"]
        return found


def input_size(student: Student) -> tuple[int, int]:
    """Height and width of a student's images.

    Raises:
        InputError: ``wrong_kind`` for a student of points.
    """
    c: Any = student.config
    if hasattr(c, "height"):
        return int(c.height), int(c.width)
    if hasattr(c, "size"):
        return int(c.size), int(c.size)
    raise InputError("wrong_kind", f"{type(student).__name__} takes no images; choose a spikformer")


def _open(data: DataConfig) -> ImageSet:
    return open_images(data.path, data.split or None, limit=data.limit or None)


def class_words(data: DataConfig, images: ImageSet) -> list[str]:
    """What the classes of a set are called: folder names, or the words of their codes.

    Raises:
        InputError: ``words_missing`` if the table lacks a class.
    """
    if not data.words:
        return [normalised(each) for each in images.classes]
    table = read_class_words(Path(data.words))
    missing = [each for each in images.classes if each not in table]
    if missing:
        raise InputError("words_missing", f"{data.words} has no words for {', '.join(missing[:5])}")
    return [table[each][0] for each in images.classes]


def word_list(lists: str) -> tuple[str, ...]:
    """Words of all lists named between commas, in their order."""
    names = [each.strip() for each in lists.split(",") if each.strip()]
    return tuple(word for each in names for word in load_words(each).names)
