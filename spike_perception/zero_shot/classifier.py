# SPDX-License-Identifier: Apache-2.0
"""Images in, names out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spike_perception.config import section, setting
from spike_perception.deploy.runtime import Features, Runtime, load_runtime
from spike_perception.deploy.shipped import MODELS, shipped_file
from spike_perception.sensing.image import RgbImage
from spike_perception.zero_shot.head import Decision
from spike_perception.zero_shot.namer import Answer, InForce, Namer, NamerConfig
from spike_perception.zero_shot.smoothing import CountsAverage
from spike_perception.zero_shot.stream import StreamOrder
from spike_perception.zero_shot.vocabulary import VocabularySource


@dataclass(frozen=True)
class SmoothingConfig:
    """Averaging over frames."""

    time_constant_s: float = setting(
        0.0,
        "time constant of the exponential average of logits over frames (s); 0: every frame for "
        "itself",
        minimum=0.0,
        maximum=3600.0,
    )


@dataclass(frozen=True)
class ClassifierConfig(NamerConfig):
    """Every setting of :class:`Classifier`."""

    smoothing: SmoothingConfig = section(SmoothingConfig)


class Classifier(Namer[ClassifierConfig]):
    """Names images by the words of a vocabulary that can be changed between two frames.

    :meth:`classify` takes images one by one, without memory. :meth:`observe` follows a stream:
    stamps must not go back, and logits are averaged over frames where the settings ask for it.
    """

    runtime: Runtime

    def __init__(
        self, runtime: Runtime, source: VocabularySource, config: ClassifierConfig
    ) -> None:
        """Load the first vocabulary and name one image, so that the first frame does not wait.

        Raises:
            InputError: as :meth:`Namer.__init__` and :meth:`classify`.
        """
        super().__init__(runtime, source, config)
        self._averaging = threading.Lock()
        self._average = CountsAverage(config.smoothing.time_constant_s)
        self._order = StreamOrder("images")
        self.classify([np.zeros((480, 640, 3), np.uint8)])

    @classmethod
    def load(cls, config: ClassifierConfig) -> Classifier:
        """Make ready what a configuration names.

        Raises:
            InputError: a file is missing or refused, the vocabulary is of another encoder, the
                bundle takes no images, or the engine is not installed.
        """
        model = config.model
        runtime = load_runtime(
            shipped_file(model.bundle, MODELS), model.engine, model.precision, model.threads
        )
        return cls(runtime, VocabularySource(config.vocabulary, runtime.encoder_id), config)

    def classify(self, images: Sequence[RgbImage]) -> list[Decision]:
        """Name each image for itself, all by one vocabulary.

        Args:
            images: uint8 [H, W, 3] each, RGB, of any size.

        Raises:
            InputError: as :meth:`Runtime.prepare_images` and :meth:`Runtime.infer`.
        """
        return self.decide(self._features(images))

    def observe(self, image: RgbImage, stamp_ns: int) -> Answer:
        """Name the next image of a stream.

        Args:
            image: uint8 [H, W, 3], RGB, of any size.
            stamp_ns: when it was taken [ns], not before the last one's.

        Raises:
            InputError: as :meth:`StreamOrder.check` and :meth:`classify`; the stream is then as if
                the image had not come.
        """
        self._order.check(stamp_ns)
        counts = self._features([image])[0]
        with self._averaging:
            averaged = self._average.update(counts, stamp_ns)
        answer = self.name(averaged[None])[0]
        self._order.follow(stamp_ns)
        return answer

    def reset(self) -> None:
        """Begin a new stream: stamps may be anything, and nothing seen before counts."""
        with self._averaging:
            self._average.reset()
        self._order.reset()

    def configure(self, config: ClassifierConfig) -> InForce:
        """Take changed settings of smoothing too; see :meth:`Namer.configure`."""
        in_force = super().configure(config)
        with self._averaging:
            self._average.time_constant_s = config.smoothing.time_constant_s
        return in_force

    def _features(self, images: Sequence[RgbImage]) -> Features:
        return self.runtime.infer(self.runtime.prepare_images(images))
