# SPDX-License-Identifier: Apache-2.0
"""LiDAR scans in, named objects out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import section, setting
from spike_perception.deploy.runtime import MAX_BATCH, Features, Runtime, load_runtime
from spike_perception.deploy.shipped import MODELS, shipped_file
from spike_perception.errors import InputError
from spike_perception.sensing.cluster_input import cluster_points
from spike_perception.sensing.clusters import Cluster, ClusterConfig, find_and_count
from spike_perception.zero_shot.namer import Answer, ModelConfig, Namer, NamerConfig
from spike_perception.zero_shot.stream import StreamOrder
from spike_perception.zero_shot.vocabulary import VocabularyConfig, VocabularySource


@dataclass(frozen=True)
class PointModelConfig(ModelConfig):
    """The encoder of objects made of points."""

    bundle: str = setting(
        "points", "model bundle: a file, or the name of one in models", fixed=True
    )
    threads: int = setting(
        2, "threads of one inference (count)", minimum=1, maximum=1024, fixed=True
    )


@dataclass(frozen=True)
class PointVocabularyConfig(VocabularyConfig):
    """The words for objects made of points."""

    pack: str = setting(
        "points_driving",
        "vocabulary pack: a file, or the name of one in models/vocabularies",
        fixed=True,
    )
    bank: str = setting(
        "points_bank", "word bank: a file, or the name of one in models", fixed=True
    )


@dataclass(frozen=True)
class ObjectsConfig:
    """Which objects of a scan are named."""

    most: int = setting(
        24,
        "most objects named in one scan: what a scan takes grows with it (count)",
        minimum=1,
        maximum=MAX_BATCH,
    )
    first: str = setting(
        "nearest",
        "which are named where there are more; largest: those of most points among the nearest "
        "clusters.max_objects",
        choices=("nearest", "largest"),
    )


@dataclass(frozen=True)
class ClusterClassifierConfig(NamerConfig):
    """Every setting of :class:`ClusterClassifier`."""

    model: PointModelConfig = section(PointModelConfig)
    vocabulary: PointVocabularyConfig = section(PointVocabularyConfig)
    clusters: ClusterConfig = section(ClusterConfig)
    objects: ObjectsConfig = section(ObjectsConfig)


@dataclass(frozen=True)
class NamedScan:
    """The objects of one scan.

    Attributes:
        clusters: those that were named, nearest first or largest first.
        answers: one for each.
        left_out: objects of the right size that were not named, beyond ``objects.most`` and
            ``clusters.max_objects``.
    """

    clusters: tuple[Cluster, ...]
    answers: tuple[Answer, ...]
    left_out: int


def choose_objects(
    xyz: NDArray[np.float32], config: ClusterClassifierConfig
) -> tuple[list[Cluster], int]:
    """The objects of a scan that are named, and how many are left out, as :class:`NamedScan`.

    Args:
        xyz: float32 [N, 3] (m), finite, the sensor at the origin, z up.
        config: sections ``clusters`` and ``objects`` count.
    """
    found, beyond = find_and_count(xyz, config.clusters)
    if config.objects.first == "largest":
        found.sort(key=lambda each: -len(each.rows))
    named = found[: config.objects.most]
    return named, len(found) - len(named) + beyond


class ClusterClassifier(Namer[ClusterClassifierConfig]):
    """Names the objects of LiDAR scans by the words of a vocabulary.

    Every scan stands for itself.
    """

    runtime: Runtime

    def __init__(
        self, runtime: Runtime, source: VocabularySource, config: ClusterClassifierConfig
    ) -> None:
        """Load the first vocabulary and name two objects, so that the first scan does not wait.

        Raises:
            InputError: as :meth:`Namer.__init__`, and ``wrong_kind`` for a bundle that wants more
                of a point than its place.
        """
        super().__init__(runtime, source, config)
        channels = runtime.bundle.preprocessing.get("channels", ())
        if len(channels) != 3:
            raise InputError(
                "wrong_kind",
                f"this bundle takes {runtime.bundle.kind} with channels "
                f"{', '.join(channels) or 'none'}; objects have x, y, z",
            )
        self._order = StreamOrder("scans")
        self._features([np.eye(3, dtype=np.float32)] * 2)

    @classmethod
    def load(cls, config: ClusterClassifierConfig) -> ClusterClassifier:
        """Make ready what a configuration names.

        Raises:
            InputError: a file is missing or refused, the vocabulary is of another encoder, the
                bundle takes no points, or the engine is not installed.
        """
        model = config.model
        runtime = load_runtime(
            shipped_file(model.bundle, MODELS), model.engine, model.precision, model.threads
        )
        return cls(runtime, VocabularySource(config.vocabulary, runtime.encoder_id), config)

    def observe(self, xyz: NDArray[np.float32], stamp_ns: int) -> NamedScan:
        """Find and name the objects of the next scan.

        Args:
            xyz: float32 [N, 3] (m), finite, the sensor at the origin, z up.
            stamp_ns: when it was taken [ns], not before the last one's.

        Raises:
            InputError: as :meth:`StreamOrder.check` and :meth:`Runtime.infer`.
        """
        self._order.check(stamp_ns)
        named, left_out = choose_objects(xyz, self.config)
        answers: list[Answer] = []
        if named:
            answers = self.name(self._features([cluster_points(xyz, each) for each in named]))
        self._order.follow(stamp_ns)
        return NamedScan(tuple(named), tuple(answers), left_out)

    def reset(self) -> None:
        """Begin a new stream: stamps may be anything."""
        self._order.reset()

    def _features(self, objects: Sequence[NDArray[np.float32]]) -> Features:
        """Spike counts [B, C] of all objects, float32 [P, 3] each (m), in one inference."""
        return self.runtime.infer(self.runtime.prepare_points(objects))
