# SPDX-License-Identifier: Apache-2.0
"""Windows of events in, names out, one network step a window."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import section, setting
from spike_perception.deploy.runtime import StreamingRuntime, load_stream
from spike_perception.deploy.shipped import MODELS, shipped_file
from spike_perception.errors import InputError
from spike_perception.sensing.event_views import event_points
from spike_perception.sensing.events import Events
from spike_perception.zero_shot.namer import Answer, ModelConfig, Namer, NamerConfig
from spike_perception.zero_shot.vocabulary import VocabularyConfig, VocabularySource


@dataclass(frozen=True)
class EventModelConfig(ModelConfig):
    """The encoder of events."""

    bundle: str = setting(
        "events", "model bundle: a file, or the name of one in models", fixed=True
    )


@dataclass(frozen=True)
class EventVocabularyConfig(VocabularyConfig):
    """The words for what events show."""

    pack: str = setting(
        "digits",
        "vocabulary pack: a file, or the name of one in models/vocabularies",
        fixed=True,
    )


@dataclass(frozen=True)
class EventClassifierConfig(NamerConfig):
    """Every setting of :class:`EventClassifier`."""

    model: EventModelConfig = section(EventModelConfig)
    vocabulary: EventVocabularyConfig = section(EventVocabularyConfig)


class EventClassifier(Namer[EventClassifierConfig]):
    """Names a stream of windows, each step of the network being one window.

    Membrane potentials go on from window to window until :meth:`reset`. An answer is of the spikes
    counted over the last T windows, T being the steps that the network was trained for: T windows
    after a reset it is the one that the network gives to these T windows at once. Before that,
    the counts of n windows stand for T by the factor T / n (our reading), so that an answer comes
    with the first window.
    """

    runtime: StreamingRuntime

    def __init__(
        self, runtime: StreamingRuntime, source: VocabularySource, config: EventClassifierConfig
    ) -> None:
        """Load the first vocabulary and take one step, so that the first window does not wait.

        Raises:
            InputError: as :meth:`Namer.__init__`, ``wrong_kind`` for a bundle that takes no
                events, ``bad_metadata`` if it does not take x, y, time and polarity.
        """
        super().__init__(runtime, source, config)
        given = runtime.bundle.preprocessing
        if runtime.bundle.kind != "events" or len(given["channels"]) != 4:
            raise InputError(
                "wrong_kind",
                f"{config.model.bundle} takes {runtime.bundle.kind}, channels "
                f"{', '.join(given.get('channels', ['of colour']))}; allowed is a bundle of events "
                "with x, y, time and polarity",
            )
        self._points = int(given["points"])
        self._streaming = threading.Lock()
        self._counts_of: deque[NDArray[np.float32]] = deque(maxlen=runtime.bundle.timesteps)
        self.reset()
        self._step(np.random.default_rng(0).random((self._points, 4), np.float32))
        self.reset()

    @classmethod
    def load(cls, config: EventClassifierConfig) -> EventClassifier:
        """Make ready what a configuration names.

        Raises:
            InputError: a file is missing or refused, the vocabulary is of another encoder, the
                bundle takes no events, or the engine is not installed.
        """
        model = config.model
        runtime = load_stream(
            shipped_file(model.bundle, MODELS), model.engine, model.precision, model.threads
        )
        return cls(runtime, VocabularySource(config.vocabulary, runtime.encoder_id), config)

    def observe(self, events: Events, width: int, height: int) -> Answer:
        """Name the next window of the stream.

        Args:
            events: those of the window, at least one.
            width: columns of the sensor (pixels).
            height: rows of the sensor (pixels).

        Raises:
            InputError: as :func:`event_points` and :meth:`StreamingRuntime.step`; the stream is
                then as if the window had not come.
        """
        return self.name(self._step(event_points(events, width, height, self._points))[None])[0]

    def reset(self) -> None:
        """Begin a new stream: potentials at rest, no window counted."""
        with self._streaming:
            self._state = self.runtime.initial_state()
            self._counts_of.clear()

    def _step(self, cloud: NDArray[np.float32]) -> NDArray[np.float64]:
        """Counts [C] over the last T windows, this one the last."""
        prepared = self.runtime.prepare_points([cloud])
        with self._streaming:
            counts, self._state = self.runtime.step(prepared, self._state)
            self._counts_of.append(counts[0])
            steps = self.runtime.bundle.timesteps / len(self._counts_of)
            return np.asarray(np.sum(self._counts_of, axis=0, dtype=np.float64) * steps)
