# SPDX-License-Identifier: Apache-2.0
"""The core of ``evaluate images``, ``points`` and ``events``: samples of known classes, named.

What sensors do not share stands in a :class:`Task`: how data is opened and read, how a bundle turns
a sample into spike counts, and what a sample is called. JSON keys that speak of images
(``images``, ``ms_per_image``) are the same for all three, so that one script reads them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from spike_perception.config import setting
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.engines import ENGINES, PRECISIONS
from spike_perception.deploy.runtime import Features, Runtime, StreamingRuntime
from spike_perception.errors import InputError
from spike_perception.evaluation.class_words import (
    Labels,
)
from spike_perception.sensing.image import RgbImage
from spike_perception.zero_shot.head import Head

MAX_SAMPLES = 1_000_000
ENERGY_SAMPLES = 32


@dataclass(frozen=True)
class NamingConfig:
    """Settings that all three commands have."""

    engine: str = setting("auto", "engine that runs the network", choices=("auto", *ENGINES))
    precision: str = setting(
        "auto",
        "precision of the network; auto: what the bundle asks for",
        choices=("auto", *PRECISIONS),
    )
    threads: int = setting(2, "threads of one inference (count)", minimum=1, maximum=1024)
    limit: int = setting(
        0, "samples used, spread evenly over all of them; 0: all (count)", minimum=0
    )
    negatives: int = setting(
        0, "nouns of the word bank that serve as negative labels (count)", minimum=0, maximum=65_536
    )
    hold_out: str = setting(
        "",
        "classes held out to play the unknown: how many in each split (0: none), or NAME,NAME,... "
        "in a single one; empty: a fifth",
    )
    splits: int = setting(
        5, "splits into known and held-out classes (count)", minimum=1, maximum=1000
    )
    shots: str = setting("", "examples of each class, such as 1,5,10; empty: no few-shot run")
    shot_seeds: int = setting(5, "draws of the examples (count)", minimum=1, maximum=1000)
    seed: int = setting(0, "seed of every draw", minimum=0, maximum=2**31)


class LabelledData(Protocol):
    """Samples with a class each.

    Attributes:
        classes: names of the classes.
        labels: int64 ``[N]``, position of each sample's class in ``classes``.
        names: of the samples.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def labels(self) -> npt.NDArray[np.int64]: ...  # noqa: D102

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102

    def __len__(self) -> int: ...


DataT = TypeVar("DataT", bound=LabelledData)
SampleT = TypeVar("SampleT")
ConfigT = TypeVar("ConfigT", bound=NamingConfig)


class Encoder(Generic[SampleT]):
    """A bundle made ready for one kind of sample.

    Attributes:
        runtime: what computes the network.
    """

    runtime: Runtime | StreamingRuntime

    @abstractmethod
    def features(self, sample: SampleT) -> Features:
        """Spike counts ``[C]`` of one sample."""

    @abstractmethod
    def network_input(self, sample: SampleT) -> Features:
        """The sample as the student itself takes it, without the batch; energy is counted on it."""

    @abstractmethod
    def warm_up(self) -> None:
        """Make ready, so that the first sample does not wait."""


class Task(ABC, Generic[DataT, SampleT, ConfigT]):
    """What one of the commands does with its own kind of data.

    Attributes:
        noun: a sample, for people and for the key ``ms_per_NOUN``.
        plural: samples.
        title: of the report.
        kinds: kinds of bundles that take such samples.
        config_type: the command's settings.
        data_help: what DATA may be.
        bank: name of the shipped word bank that serves where none is given.
    """

    noun: ClassVar[str]
    plural: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    data_help: ClassVar[str]
    bank: ClassVar[str]
    config_type: type[ConfigT]

    @abstractmethod
    def open(self, path: str, config: ConfigT) -> AbstractContextManager[DataT]:
        """The data to judge."""

    @abstractmethod
    def open_examples(self, path: str, config: ConfigT) -> AbstractContextManager[DataT]:
        """Data that examples are drawn from."""

    @abstractmethod
    def read(self, data: DataT, index: int) -> SampleT:
        """One sample; an ``InputError`` leaves it out."""

    @abstractmethod
    def picture(self, data: DataT, index: int) -> RgbImage:
        """A sample as people see it, uint8 ``[H, W, 3]``, for the report."""

    @abstractmethod
    def encoder(self, bundle: Bundle, config: ConfigT) -> Encoder[SampleT]:
        """The bundle made ready."""

    def skipped(self, _data: DataT) -> dict[str, str]:
        """Samples that were left out when the data was opened, with the reason."""
        return {}

    def default_pack(self, _bundle: str) -> str | None:
        """Name of the shipped pack for a bundle where no words are given at all."""
        return None

    def meaning(self, labels: Labels, _classes: tuple[str, ...]) -> Labels:
        """What classes may be called besides their names in the data."""
        return labels


@dataclass(frozen=True)
class Encoded:
    """Features of a data set's samples.

    Attributes:
        features: spike counts ``[N, C]``.
        folders: int64 ``[N]``, position of each sample's class in the data.
        at: int64 ``[N]``, position of each sample in the data.
        unknown: bool ``[N]``, whether the vocabulary's own rule answered "unknown".
        seconds: float64 ``[N]``, time from the sample as read to the decision, one at a time.
        skipped: samples that could not be read, with the reason.
        samples: network input ``[S, ...]`` of some samples, spread evenly.
    """

    features: Features
    folders: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    skipped: dict[str, str]
    samples: Features


def encode(
    task: Task[DataT, SampleT, ConfigT], encoder: Encoder[SampleT], head: Head, data: DataT
) -> Encoded:
    """Encode and name every sample as a robot would, one at a time.

    Raises:
        InputError: ``no_readable_NOUN`` if none can be read; ``too_many_PLURAL``.
    """
    if len(data) > MAX_SAMPLES:
        raise InputError(
            f"too_many_{task.plural}",
            f"the data holds {len(data)} {task.plural}, at most {MAX_SAMPLES} are evaluated at "
            "once; take a part with --limit",
        )
    wanted = {k * len(data) // ENERGY_SAMPLES for k in range(ENERGY_SAMPLES)}
    features = np.empty((len(data), encoder.runtime.feature_dim), np.float32)
    seconds = np.empty(len(data))
    unknown = np.zeros(len(data), np.bool_)
    read: list[int] = []
    inputs: list[Features] = []
    skipped = dict(task.skipped(data))
    encoder.warm_up()
    for k in tqdm(range(len(data)), desc=task.plural, unit=task.noun, disable=None):
        try:
            sample = task.read(data, k)
        except InputError as error:
            skipped[data.names[k]] = f"{error.reason}: {error}"
            continue
        start = time.perf_counter()
        features[k] = encoder.features(sample)
        unknown[k] = head.decide(features[k]).unknown
        seconds[k] = time.perf_counter() - start
        read.append(k)
        if k in wanted or not inputs:
            inputs.append(encoder.network_input(sample))
    if not read:
        raise InputError(
            f"no_readable_{task.noun}",
            f"none of the {len(data)} {task.plural} can be read; the first: "
            f"{next(iter(skipped.values()))}",
        )
    at = np.array(read, np.int64)
    return Encoded(
        features[at],
        data.labels[at],
        at,
        unknown[at],
        seconds[at],
        skipped,
        np.stack([each for each in inputs if each.shape == inputs[0].shape]),
    )
