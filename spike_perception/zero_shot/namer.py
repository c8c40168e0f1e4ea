# SPDX-License-Identifier: Apache-2.0
"""Features in, names out: an encoder, a head and a source of vocabularies put together.

What sensors do not share, from their data to features, stands in the subclasses of :class:`Namer`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import section, setting
from spike_perception.deploy.engines import ENGINES, PRECISIONS
from spike_perception.deploy.runtime import Runtime, StreamingRuntime
from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Decision, Head, HeadConfig
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import METHODS, Rejection
from spike_perception.zero_shot.slot import HeadSlot
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
class NamerConfig:
    """Every setting of :class:`Namer`."""

    model: ModelConfig = section(ModelConfig)
    vocabulary: VocabularyConfig = section(VocabularyConfig)
    head: HeadConfig = section(HeadConfig)
    unknown: UnknownConfig = section(UnknownConfig)


ConfigT = TypeVar("ConfigT", bound=NamerConfig)


@dataclass(frozen=True)
class Answer:
    """What an object, or a whole frame, is, and the vocabulary that it was named with.

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


class Namer(Generic[ConfigT]):
    """Names features by the words of a vocabulary that can be changed between two frames.

    Frames may be worked on in one thread while another changes vocabulary and settings.

    Attributes:
        runtime: the encoder.
    """

    def __init__(
        self, runtime: Runtime | StreamingRuntime, source: VocabularySource, config: ConfigT
    ) -> None:
        """Load the first vocabulary.

        Raises:
            InputError: as :meth:`VocabularySource.initial`, and ``bad_pack`` or
                ``bad_rejection`` for a vocabulary that the encoder cannot be read with.
        """
        self.runtime = runtime
        self._source = source
        self._config = config
        self._changing = threading.Lock()
        self._vocabulary = source.initial()
        self._slot = HeadSlot(self._head(self._vocabulary, config))
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def config(self) -> ConfigT:
        """The settings in force."""
        return self._config

    @property
    def in_force(self) -> InForce:
        """The vocabulary in force."""
        with self._changing:
            return self._in_force()

    def name(self, features: NDArray[Any]) -> list[Answer]:
        """Name each feature of a frame, all by one vocabulary, and count the answers.

        Args:
            features: spike counts [B, C], or averages of such.

        Raises:
            InputError: as :meth:`Head.decide_all`.
        """
        head = self._slot.current.head  # once a frame: a swap from here on is for the next
        if head.config.arithmetic == "int8":
            features = np.rint(features)  # additions alone take whole counts
        answers = [Answer(decision, head.pack) for decision in head.decide_all(features)]
        with self._counting:
            self._counts.update(each.decision.reason or "known" for each in answers)
        return answers

    def decide(self, features: NDArray[Any]) -> list[Decision]:
        """As :meth:`name`, with nothing counted."""
        return self._slot.current.head.decide_all(features)

    def counts(self) -> dict[str, int]:
        """Answers so far: ``known``, and unknown ones by their reason."""
        with self._counting:
            return dict(self._counts)

    def reset(self) -> None:
        """Begin a new stream: nothing seen before counts."""

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

    def configure(self, config: ConfigT) -> InForce:
        """Take changed settings of head and unknown; model and vocabulary need a new namer.

        Raises:
            InputError: ``bad_rejection`` or ``bad_pack`` for a rule that the vocabulary cannot
                serve; nothing has changed then.
        """
        with self._changing:
            before = self._config
            if (config.head, config.unknown) != (before.head, before.unknown):
                self._slot.swap(self._head(self._vocabulary, config))
            self._config = config
            return self._in_force()

    def _install(self, vocabulary: Vocabulary) -> InForce:
        with self._changing:
            self._slot.swap(self._head(vocabulary, self._config))
            self._vocabulary = vocabulary
            return self._in_force()

    def _in_force(self) -> InForce:
        installed = self._slot.current
        return InForce(installed.head.pack, self._vocabulary.origin, installed.generation)

    def _head(self, vocabulary: Vocabulary, config: ConfigT) -> Head:
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
