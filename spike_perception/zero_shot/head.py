# SPDX-License-Identifier: Apache-2.0
"""The zero-shot head: from spike counts to a name (SVL eq. 11).

``logits = W @ F + b`` on the encoder's spike counts F, summed over the T steps. Rows of W are
unit, so the greatest logit is the greatest cosine; norms enter only where a score is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import known_scores

Float64 = NDArray[np.float64]

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class HeadConfig:
    """How a head decides."""

    arithmetic: str = setting(
        "float32",
        "rows as float32, or as int8 with int32 sums",
        choices=("float32", "int8"),
    )
    hypotheses: int = setting(
        5, "most probable names reported for each object (count)", minimum=1, maximum=1000
    )
    p_min: float = setting(
        0.5,
        "least probability of an answer where classes form a hierarchy (0 to 1)",
        minimum=0.0,
        maximum=1.0,
    )
    reject: bool = setting(True, "answer unknown where the vocabulary's calibration says so")


@dataclass(frozen=True)
class Hypothesis:
    """One name with its calibrated probability and its cosine."""

    name: str
    index: int
    score: float
    cosine: float


@dataclass(frozen=True)
class Decision:
    """What one object is.

    Attributes:
        unknown: True if it is none of the words; ``hypotheses`` are then the nearest ones.
        reason: why it is unknown: ``"silent"`` (no spikes), ``"too_few_spikes"``,
            ``"too_many_spikes"``, ``"below_threshold"``, ``"below_class_threshold"`` or
            ``"no_likely_node"``; empty if known.
        known_score: score that decides about unknown, in [0, 1].
        known_threshold: least score that counts as known; 0 without a calibration.
        hypotheses: most probable first; in a hierarchy the deepest likely node comes first, then
            the most probable leaves.
    """

    unknown: bool
    reason: str
    known_score: float
    known_threshold: float
    hypotheses: tuple[Hypothesis, ...]

    @property
    def name(self) -> str:
        """The answer, or "" if unknown."""
        return "" if self.unknown else self.hypotheses[0].name

    @property
    def index(self) -> int:
        """Index of the answer in the vocabulary, or -1 if unknown."""
        return -1 if self.unknown else self.hypotheses[0].index

    @property
    def score(self) -> float:
        """Probability of the first hypothesis, in [0, 1]."""
        return self.hypotheses[0].score


class Head:
    """A vocabulary made ready to decide. Immutable, so any number of threads may share it.

    Features are spike counts [C] or [B, C]: integers, or floats as an inference engine returns
    them. ``int8`` arithmetic takes whole numbers only.
    """

    def __init__(self, pack: VocabularyPack, config: HeadConfig = HeadConfig()) -> None:
        self.pack = pack
        self.config = config
        quantised = pack.quantised
        self._leaves = pack.hierarchy.leaves
        # NumPy multiplies integers without BLAS; float64 holds every 32-bit sum exactly.
        self._values = quantised.values.astype(np.float64)
        self._worst = int(np.abs(self._values).max())
        self._bias = np.rint(pack.bias / quantised.scale).astype(np.int64)
        self._common = quantised.common.astype(np.int64)
        rows = quantised.rows() if config.arithmetic == "int8" else pack.rows
        self._row_norms = np.square(rows, dtype=np.float64).sum(axis=1)[: len(pack.names)]
        mean = pack.feature_mean
        self._mean = np.zeros(pack.embedding_dim) if mean is None else mean.astype(np.float64)

    def logits(self, counts: ArrayLike, elapsed: float = 1.0) -> Float64:
        """``W @ F + elapsed * b`` [..., K + M], in the configured arithmetic.

        Args:
            counts: F [C] or [B, C], summed over the steps so far.
            elapsed: share of the T steps that F covers; the bias grows with it.

        Raises:
            InputError: ``bad_feature``.
        """
        features = self._features(counts)
        if self.config.arithmetic == "float32":
            product = features.astype(np.float32) @ self.pack.rows.T
            return np.asarray(product + elapsed * self.pack.bias, np.float64)
        integers = self.integer_logits(features, elapsed)
        common = features.astype(np.int64) @ self._common
        return np.asarray((integers + common[..., None]) * self.pack.quantised.scale)

    def integer_logits(self, counts: ArrayLike, elapsed: float = 1.0) -> NDArray[np.int64]:
        """int8 rows times whole counts, as 32-bit sums: additions alone; same argmax as logits.

        The result [..., K + M] is in units of the pack's scale and lacks the part common to all
        classes.

        Raises:
            InputError: ``bad_feature``, also where an int32 sum could overflow.
        """
        features = self._features(counts)
        whole = features.astype(np.int64)
        if not np.array_equal(whole, features):
            raise InputError(
                "bad_feature", "int8 arithmetic needs whole spike counts; use arithmetic float32"
            )
        if np.abs(whole).sum(axis=-1).max(initial=0) * self._worst > INT32_MAX:
            raise InputError(
                "bad_feature", "spike counts are so large that a 32-bit sum could overflow"
            )
        sums = (whole.astype(np.float64) @ self._values.T).astype(np.int64)
        return np.asarray(sums + np.rint(elapsed * self._bias).astype(np.int64))

    def nearest(self, counts: ArrayLike) -> NDArray[np.intp]:
        """Index of the nearest leaf class [...]: an argmax, without norm, softmax or rejection."""
        if self.config.arithmetic == "int8":
            values = self.integer_logits(counts).astype(np.float64)
        else:
            values = self.logits(counts)
        return np.asarray(self._leaves[values[..., self._leaves].argmax(axis=-1)])

    def cosines(self, counts: ArrayLike, elapsed: float = 1.0) -> Float64:
        """Cosine of each row with the (centred) feature [..., K + M]; 0 for a silent feature."""
        norms = np.sqrt(self._square_norms(counts, elapsed))
        logits = self.logits(counts, elapsed)
        safe = np.where(norms > 0, norms, 1.0)[..., None]
        return np.asarray(np.clip(np.where(norms[..., None] > 0, logits / safe, 0.0), -1, 1))

    def probabilities(self, counts: ArrayLike) -> Float64:
        """P(class | one of the classes) [..., K], calibrated by the pack's temperature.

        In a hierarchy, P(node): the leaves sum to 1.
        """
        cosines = self.cosines(counts)[..., : len(self.pack.names)]
        return self.pack.hierarchy.posteriors(cosines, self.pack.temperature)

    def at_least(self, counts: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
        """``cosine >= threshold`` for every class [..., K], without square root or division.

        ``cos >= c`` is ``L > 0 and L^2 >= c^2 |W|^2 |F|^2`` for c > 0, and the mirror of it for a
        negative c. A silent feature passes thresholds up to 0.

        Args:
            counts: F [C] or [B, C].
            thresholds: c, one or one a class [K].
        """
        logits = self.logits(counts)[..., : len(self.pack.names)]
        norms = self._row_norms * self._square_norms(counts, 1.0)[..., None]
        given = np.asarray(thresholds, np.float64)
        squares, bounds = logits * logits, given * given * norms
        return np.asarray(
            np.where(
                given > 0,
                (logits > 0) & (squares >= bounds),
                (logits >= 0) | (squares <= bounds),
            )
        )

    def known_scores(self, counts: ArrayLike, method: str) -> Float64:
        """Scores in [0, 1] of how well known features are [...]; see :mod:`.rejection`."""
        order = [*self._leaves, *range(len(self.pack.names), len(self.pack.rows))]
        return known_scores(
            method, self.cosines(counts)[..., order], len(self._leaves), self.pack.temperature
        )

    def decide(self, counts: ArrayLike) -> Decision:
        """Name one feature [C].

        Raises:
            InputError: ``bad_feature``.
        """
        return self.decide_all(self._features(counts).reshape(1, -1))[0]

    def decide_all(self, counts: ArrayLike) -> list[Decision]:
        """Name each feature of a batch [B, C]; the whole batch sees one and the same vocabulary.

        Raises:
            InputError: ``bad_feature``.
        """
        features = self._features(counts)
        if features.ndim != 2:
            raise InputError(
                "bad_feature", f"features have shape {list(features.shape)}, not [B, C]"
            )
        if not len(features):
            return []
        rule = self.pack.rejection if self.config.reject else None
        method = rule.method if rule else "max_softmax"
        scores = self.known_scores(features, method)
        threshold = rule.threshold if rule else 0.0
        cosines = self.cosines(features)[:, : len(self.pack.names)]
        posteriors = self.pack.hierarchy.posteriors(cosines, self.pack.temperature)
        passes = self.at_least(features, self.pack.thresholds)
        totals = np.abs(features).sum(axis=1)
        decisions = []
        for row in range(len(features)):
            answer, ranked = self._ranked(posteriors[row])
            reason = ""
            if totals[row] == 0:
                reason = "silent"
            elif rule and totals[row] < rule.count_low:
                reason = "too_few_spikes"
            elif rule and totals[row] > rule.count_high:
                reason = "too_many_spikes"
            elif rule and scores[row] < threshold:
                reason = "below_threshold"
            elif answer < 0:
                reason = "no_likely_node"
            elif self.config.reject and not passes[row, answer]:
                reason = "below_class_threshold"
            decisions.append(
                Decision(
                    bool(reason),
                    reason,
                    0.0 if reason == "silent" else float(scores[row]),
                    threshold,
                    tuple(
                        Hypothesis(
                            self.pack.names[k],
                            k,
                            float(posteriors[row, k]),
                            float(cosines[row, k]),
                        )
                        for k in ranked
                    ),
                )
            )
        return decisions

    def _ranked(self, posteriors: Float64) -> tuple[int, list[int]]:
        """The answer (-1 for none) and the indices of all hypotheses, the answer first."""
        size = self.config.hypotheses
        order = self._leaves[np.argsort(-posteriors[self._leaves], kind="stable")[: size + 1]]
        ranked = [int(k) for k in order]
        if self.pack.hierarchy.flat:
            return ranked[0], ranked[:size]
        answer = self.pack.hierarchy.deepest(posteriors, self.config.p_min)
        if answer >= 0:
            ranked = [answer, *(k for k in ranked if k != answer)]
        return answer, ranked[:size]

    def _features(self, counts: ArrayLike) -> NDArray[Any]:
        features: NDArray[Any] = np.asarray(counts)
        if (
            features.dtype.kind not in "iufb"
            or features.ndim not in (1, 2)
            or features.shape[-1] != self.pack.embedding_dim
        ):
            raise InputError(
                "bad_feature",
                f"features are {features.dtype} {list(features.shape)}, expected numbers of shape "
                f"[{self.pack.embedding_dim}] or [B, {self.pack.embedding_dim}]",
            )
        if features.dtype.kind == "f" and not np.isfinite(features).all():
            raise InputError("bad_feature", "features have values that are not finite")
        # Narrow integers would wrap round in the sums below.
        return features.astype(np.float64 if features.dtype.kind == "f" else np.int64)

    def _square_norms(self, counts: ArrayLike, elapsed: float) -> Float64:
        features = self._features(counts)
        if self.pack.feature_mean is None:
            return np.asarray(np.square(features).sum(axis=-1), np.float64)
        return np.asarray(np.square(features - elapsed * self._mean).sum(axis=-1))


@dataclass(frozen=True)
class Reading:
    """What the head says after some of the T steps.

    Attributes:
        step: steps read so far, from 1.
        index: nearest leaf class.
        margin: difference of the two greatest cosines over the leaf classes; infinite with one.
        logits: [K + M].
    """

    step: int
    index: int
    margin: float
    logits: Float64


def any_time(
    head: Head, steps: Iterable[ArrayLike], timesteps: int, margin: float = float("inf")
) -> Iterator[Reading]:
    """Read the head after each step and stop as soon as the answer is clear.

    Logits are sums over steps, so the reading after the last one equals the plain decision.

    Args:
        head: the head.
        steps: spike counts of each step [C]; an iterator is not advanced past the stop, so the
            encoder computes no step in vain.
        timesteps: T.
        margin: difference of the two greatest cosines that ends the reading.
    """
    leaves = head.pack.hierarchy.leaves
    total = np.zeros(head.pack.embedding_dim)
    for step, counts in enumerate(steps, start=1):
        total = total + np.asarray(counts)
        elapsed = step / timesteps
        cosines = head.cosines(total, elapsed)[leaves]
        top = np.sort(cosines)[::-1]
        gap = float(top[0] - top[1]) if len(top) > 1 else float("inf")
        yield Reading(step, int(leaves[cosines.argmax()]), gap, head.logits(total, elapsed))
        if gap >= margin or step == timesteps:
            return
