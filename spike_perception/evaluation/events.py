# SPDX-License-Identifier: Apache-2.0
"""Measure how a bundle names recordings of an event camera, from words."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from spike_perception.bags.labelled_events import EventSet, open_event_set
from spike_perception.config import setting
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.deploy.runtime import Features, StreamingRuntime, load_stream
from spike_perception.errors import InputError
from spike_perception.evaluation import naming_command
from spike_perception.evaluation.class_words import Labels
from spike_perception.evaluation.labelled_sets import SetConfig, part
from spike_perception.evaluation.naming_task import Encoder, Task
from spike_perception.sensing.event_recordings import recording_windows
from spike_perception.sensing.event_views import event_frame, event_points
from spike_perception.sensing.events import Events
from spike_perception.sensing.image import RgbImage

FORMS = ("streaming", "whole")
_NUMERALS = tuple("0123456789")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class EventsEvaluationConfig(SetConfig):
    """Settings of ``evaluate events``."""

    form: str = setting(
        "streaming",
        "streaming: window by window with the network's state, as a robot does; whole: all windows "
        "in one call of torch. Both give the same counts",
        choices=FORMS,
    )
    window_ms: float = setting(
        0.0,
        "length of a window (ms); 0: what the bundle states, else T equal parts of the recording",
        minimum=0.0,
        maximum=60_000.0,
    )
    overlap: float = setting(
        0.0,
        "share of a window that the next one repeats; 0: what the bundle states, else none",
        minimum=0.0,
        maximum=0.95,
    )


class Recording(NamedTuple):
    """A recording and the size of its sensor, columns and rows (pixels)."""

    events: Events
    size: tuple[int, int]


class EventEncoder(Encoder[Recording]):
    """A bundle that takes events.

    Raises:
        InputError: ``wrong_kind`` for a bundle that does not take x, y, time and polarity; as
            :func:`~spike_perception.deploy.runtime.load_stream`.
    """

    runtime: StreamingRuntime

    def __init__(self, bundle: Bundle, config: EventsEvaluationConfig) -> None:
        given = bundle.preprocessing
        if len(given["channels"]) != 4:
            raise InputError(
                "wrong_kind",
                f"this bundle takes {', '.join(given['channels'])}; recordings have x, y, time and "
                "polarity",
            )
        self.runtime = load_stream(bundle, config.engine, config.precision, config.threads)
        self._window_ms = config.window_ms or float(given.get("window_ms", 0.0))
        self._overlap = config.overlap or float(given.get("window_overlap", 0.0))
        self._counts: Callable[[Features], Features] = (
            self._streamed if config.form == "streaming" else whole_form(self.runtime)
        )

    def clouds(self, sample: Recording) -> list[Features]:
        """The recording's windows as points, ``[points, 4]`` each."""
        bundle = self.runtime.bundle
        windows = recording_windows(sample.events, bundle.timesteps, self._window_ms, self._overlap)
        count = int(bundle.preprocessing["points"])
        return [event_points(each, *sample.size, count) for each in windows]

    def features(self, sample: Recording) -> Features:
        """Spike counts ``[C]`` of a recording; of n windows they stand for T by the factor T / n.

        n differs from T where windows have a length of their own or hold no event (our reading).
        """
        prepared = self.runtime.prepare_points(self.clouds(sample))
        steps = np.float32(self.runtime.bundle.timesteps / len(prepared))
        return self._counts(prepared) * steps

    def network_input(self, sample: Recording) -> Features:
        """The windows as the student groups them itself, ``[n, points, 4]``."""
        given = self.runtime.bundle.preprocessing
        return np.stack([prepare_points(each, given) for each in self.clouds(sample)])

    def warm_up(self) -> None:
        """Take a step."""
        self._counts(np.zeros((1, *self.runtime.sample_shape), np.float32))

    def _streamed(self, prepared: Features) -> Features:
        """Counts ``[C]`` over prepared windows ``[n, ...]``, one step each."""
        state = self.runtime.initial_state()
        total = np.zeros(self.runtime.feature_dim, np.float32)
        for window in prepared:
            counts, state = self.runtime.step(window[None], state)
            total += counts[0]
        return total


def whole_form(runtime: StreamingRuntime) -> Callable[[Features], Features]:
    """Counts ``[C]`` over prepared windows ``[n, ...]`` in one call of the student, in torch.

    Raises:
        InputError: ``package_missing`` where torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError("package_missing", "--form whole needs torch") from error
    from spike_perception.deploy.network import deployed_form, student_of

    student = deployed_form(student_of(runtime.bundle), runtime.precision)

    @torch.no_grad()
    def counts(prepared: Features) -> Features:
        found: Features = student.run(torch.from_numpy(prepared)[:, None]).feature[0].numpy()
        return found

    return counts


class EventTask(Task[EventSet, Recording, EventsEvaluationConfig]):
    """Recordings of an event camera."""

    noun = "recording"
    plural = "recordings"
    title = "Event recordings"
    kinds = ("events",)
    data_help = (
        "recordings: labels.csv and events/N.bs2, or one folder a class of .bs2 or .aedat4 files, "
        "in a folder, FILE.zip or FILE.zip/FOLDER"
    )
    bank = "events_bank"
    config_type = EventsEvaluationConfig

    def open(self, path: str, config: EventsEvaluationConfig) -> AbstractContextManager[EventSet]:
        """The recordings to judge."""
        return nullcontext(part(open_event_set(path, config.split or None), config))

    def open_examples(
        self, path: str, config: EventsEvaluationConfig
    ) -> AbstractContextManager[EventSet]:
        """All recordings, of those classes that are judged."""
        whole = replace(config, first=0, last=0, limit=0)
        return nullcontext(part(open_event_set(path), whole))

    def read(self, data: EventSet, index: int) -> Recording:
        """A recording."""
        return Recording(data.events(index), data.size)

    def picture(self, data: EventSet, index: int) -> RgbImage:
        """How often each pixel had an event."""
        return event_frame(data.events(index), *data.size)

    def encoder(self, bundle: Bundle, config: EventsEvaluationConfig) -> EventEncoder:
        """The bundle made ready for events."""
        return EventEncoder(bundle, config)

    def skipped(self, data: EventSet) -> dict[str, str]:
        """Recordings that could not be read."""
        return data.skipped

    def default_pack(self, bundle: str) -> str | None:
        """The digits, for the shipped encoder of events."""
        return "digits" if bundle == "events" else None

    def meaning(self, labels: Labels, classes: tuple[str, ...]) -> Labels:
        """A class of one digit may be the digit's name too."""
        digits: dict[str, Any] = {
            name: (name, _DIGITS[int(name)], f"digit {_DIGITS[int(name)]}")
            for name in classes
            if name in _NUMERALS
        }
        return Labels(labels.words, {**digits, **labels.folders})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    naming_command.configure(EventTask(), parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return naming_command.run(EventTask(), args)
