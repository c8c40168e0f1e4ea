# SPDX-License-Identifier: Apache-2.0
"""Images in, names out: a bundle's runtime, a head and a source of vocabularies put together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spike_perception.config import section, setting
from spike_perception.deploy.engines import ENGINES, PRECISIONS
from spike_perception.deploy.runtime import Features, Runtime, load_runtime
from spike_perception.deploy.shipped import MODELS, shipped_file
from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage
from spike_perception.zero_shot.head import Decision, Head, HeadConfig
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import METHODS, Rejection
from spike_perception.zero_shot.slot import HeadSlot
from spike_perception.zero_shot.smoothing import CountsAverage
from spike_perception.zero_shot.vocabulary import Vocabulary, VocabularyConfig, VocabularySource


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and how it is computed."""

    bundle: str = setting(
        "camera", "model bundle: a file, or the name of one in models", fixed=True
    )
    engine: str = setting(
        "auto",
        "what computes the network; auto: the first that is installed",
        choices=("auto", *ENGINES),
        fixed=True,
    )
    precision: str = setting(
        "auto",
        "precision of the network; auto: what the bundle asks for",
        choices=("auto", *PRECISIONS),
        fixed=True,
    )
    threads: int = setting(
        1, "threads of one inference (count)", minimum=1, maximum=1024, fixed=True
    )


@dataclass(frozen=True)
class UnknownConfig:
    """The rule for "unknown"."""

    method: str = setting(
        "vocabulary",
        "score that decides about unknown; vocabulary: the rule calibrated in the vocabulary",
        choices=("vocabulary", *METHODS),
    )
    threshold: float = setting(
        0.5,
        "smallest score that counts as known, with another method than vocabulary (0 to 1)",
        minimum=0.0,
        maximum=1.0,
    )


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
class ClassifierConfig:
    """Every setting of :class:`Classifier`."""

    model: ModelConfig = section(ModelConfig)
    vocabulary: VocabularyConfig = section(VocabularyConfig)
    head: HeadConfig = section(HeadConfig)
    unknown: UnknownConfig = section(UnknownConfig)
    smoothing: SmoothingConfig = section(SmoothingConfig)


@dataclass(frozen=True)
class Answer:
    """What a frame shows, and the vocabulary that it was named with.

    Attributes:
        decision: the answer.
        pack: the whole vocabulary in force for this frame, with the rule for "unknown" that held.
    """

    decision: Decision
    pack: VocabularyPack


@dataclass(frozen=True)
class InForce:
    """The vocabulary in force.

    Attributes:
        pack: the vocabulary, with the rule for "unknown" that holds.
        origin: file that it, or its words, came from.
        generation: how many were before it.
    """

    pack: VocabularyPack
    origin: str
    generation: int


class Classifier:
    """Names images by the words of a vocabulary that can be changed between two frames.

    :meth:`classify` takes images one by one, without memory. :meth:`observe` follows a stream:
    stamps must not go back, and logits are averaged over frames where the settings ask for it.
    Frames may be worked on in one thread while another changes vocabulary and settings.
    """

    def __init__(
        self, runtime: Runtime, source: VocabularySource, config: ClassifierConfig
    ) -> None:
        """Load the first vocabulary and name one image, so that the first frame does not wait.

        Raises:
            InputError: as :meth:`VocabularySource.initial` and :meth:`classify`.
        """
        self.runtime = runtime
        self._source = source
        self._config = config
        self._changing = threading.Lock()
        self._vocabulary = source.initial()
        self._slot = HeadSlot(self._head(self._vocabulary, config))
        self._following = threading.Lock()
        self._average = CountsAverage(config.smoothing.time_constant_s)
        self._last_stamp_ns: int | None = None
        self._counts: Counter[str] = Counter()
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

    @property
    def config(self) -> ClassifierConfig:
        """The settings in force."""
        return self._config

    @property
    def in_force(self) -> InForce:
        """The vocabulary in force."""
        with self._changing:
            return self._in_force()

    # Frames.

    def classify(self, images: Sequence[RgbImage]) -> list[Decision]:
        """Name each image for itself, all by one vocabulary.

        Args:
            images: uint8 [H, W, 3] each, RGB, of any size.

        Raises:
            InputError: as :meth:`Runtime.prepare_images` and :meth:`Runtime.infer`.
        """
        features = self._features(images)
        return self._slot.current.head.decide_all(features)

    def observe(self, image: RgbImage, stamp_ns: int) -> Answer:
        """Name the next image of a stream.

        Args:
            image: uint8 [H, W, 3], RGB, of any size.
            stamp_ns: when it was taken [ns], not before the last one's.

        Raises:
            InputError: ``zero_stamp``, ``stamp_out_of_order`` and as :meth:`classify`; the
                stream is then as if the image had not come.
        """
        self._check_stamp(stamp_ns)
        counts = self._features([image])[0]
        with self._following:
            averaged = self._average.update(counts, stamp_ns)
            self._last_stamp_ns = stamp_ns
        head = self._slot.current.head  # once a frame: a swap from here on is for the next
        if head.config.arithmetic == "int8":
            averaged = np.rint(averaged)  # additions alone take whole counts
        decision = head.decide(averaged)
        with self._following:
            self._counts[decision.reason or "known"] += 1
        return Answer(decision, head.pack)

    def reset(self) -> None:
        """Begin a new stream: stamps may be anything, and nothing seen before counts."""
        with self._following:
            self._average.reset()
            self._last_stamp_ns = None

    def counts(self) -> dict[str, int]:
        """Answers so far: ``known``, and unknown ones by their reason."""
        with self._following:
            return dict(self._counts)

    # Changes.

    def set_names(self, names: Sequence[str]) -> InForce:
        """Put a vocabulary of words of the bank in force.

        Raises:
            InputError: as :meth:`VocabularySource.from_names`; nothing has changed then.
        """
        return self._install(self._source.from_names(names))

    def set_pack(self, given: str) -> InForce:
        """Put a vocabulary pack in force, by its file or shipped name.

        Raises:
            InputError: as :meth:`VocabularySource.from_pack`; nothing has changed then.
        """
        return self._install(self._source.from_pack(given))

    def configure(self, config: ClassifierConfig) -> InForce:
        """Take changed settings of head, unknown and smoothing; the others need a new classifier.

        Raises:
            InputError: ``bad_rejection`` or ``bad_pack`` for a rule that the vocabulary cannot
                serve; nothing has changed then.
        """
        with self._changing:
            before = self._config
            if (config.head, config.unknown) != (before.head, before.unknown):
                self._slot.swap(self._head(self._vocabulary, config))
            self._config = config
            in_force = self._in_force()
        with self._following:
            self._average.time_constant_s = config.smoothing.time_constant_s
        return in_force

    def _install(self, vocabulary: Vocabulary) -> InForce:
        with self._changing:
            self._slot.swap(self._head(vocabulary, self._config))
            self._vocabulary = vocabulary
            return self._in_force()

    def _in_force(self) -> InForce:
        installed = self._slot.current
        return InForce(installed.head.pack, self._vocabulary.origin, installed.generation)

    def _head(self, vocabulary: Vocabulary, config: ClassifierConfig) -> Head:
        """A head that fits the encoder, with the rule for "unknown" that is asked for."""
        pack, unknown = vocabulary.pack, config.unknown
        if pack.embedding_dim != self.runtime.feature_dim:
            raise InputError(
                "bad_pack",
                f"{vocabulary.origin}: rows have {pack.embedding_dim} values, features of this "
                f"encoder {self.runtime.feature_dim}; fold the vocabulary anew",
            )
        if unknown.method != "vocabulary":
            rule = pack.rejection or Rejection(unknown.method, unknown.threshold)
            # The band of spike counts is the encoder's, whatever the score.
            rule = replace(rule, method=unknown.method, threshold=unknown.threshold)
            pack = pack.replace(rejection=rule)
        return Head(pack, config.head)

    def _features(self, images: Sequence[RgbImage]) -> Features:
        return self.runtime.infer(self.runtime.prepare_images(images))

    def _check_stamp(self, stamp_ns: int) -> None:
        with self._following:
            last = self._last_stamp_ns
        if stamp_ns <= 0:
            raise InputError(
                "zero_stamp",
                f"stamp is {stamp_ns} ns; images need the time of their exposure (set the header)",
            )
        if last is not None and stamp_ns < last:
            raise InputError(
                "stamp_out_of_order",
                f"stamp {stamp_ns} ns is before the last one, {last} ns; images must come in "
                "order of time (after a jump of the clock, reset first)",
            )
