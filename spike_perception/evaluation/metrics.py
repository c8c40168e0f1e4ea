# SPDX-License-Identifier: Apache-2.0
"""Metrics of visual place recognition, and of classification.

Conventions of place recognition:

- Scores and ground truth are ``[Q, P]``: one row a query, one column a place of the reference;
  higher is more alike. ``-inf`` means that the place was not retrieved (excluded, or no answer
  yet), and a query without any finite score was not answered.
- A query is *matchable* if the ground truth holds at least one place for it.
- Where a share has no denominator (no matchable query, no answer), it is None, never 0 or 1; nor
  is the recall@K over all queries 0 where none is matchable, since no answer could have been right.

Classification: scores are ``[N, K]``, one row an image, one column a class, higher is likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spike_perception.errors import InputError

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]

NO_TRUE_PLACE = "no query has a true place"
"""What a reader is told where nothing is matchable."""

_BLOCK_ELEMENTS = 1 << 24  # rows are worked through in blocks of this many scores


@dataclass(frozen=True)
class Matches:
    """The best match of every query and where its first true place ranks.

    Attributes:
        place: int64 ``[Q]``, column of the best score; -1 if the query was not answered.
        score: float64 ``[Q]``, that score; ``-inf`` if not answered.
        correct: bool ``[Q]``, whether the best match is true.
        rank: int64 ``[Q]``, how many wrong places come before the best true one; -1 if no true
            place was retrieved. Of equal scores the lower column comes first, as in retrieval.
        matchable: bool ``[Q]``, whether the ground truth has a place for the query.
    """

    place: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int64]
    matchable: npt.NDArray[np.bool_]

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether each query has a best match, bool ``[Q]``."""
        return self.place >= 0


def matches_from_scores(scores: Scores, truth: Truth) -> Matches:
    """Best match and rank of the first true place of every query.

    Args:
        scores: float ``[Q, P]``.
        truth: bool ``[Q, P]``.

    Raises:
        InputError: ``shape_mismatch`` if the shapes differ or P is 0, ``invalid_scores`` for NaN.
    """
    if scores.shape != truth.shape or scores.ndim != 2 or scores.shape[1] == 0:
        raise InputError(
            "shape_mismatch",
            f"scores are {scores.shape} and the ground truth {truth.shape}; both must be "
            "[queries, places] with at least one place",
        )
    queries, places = scores.shape
    place = np.full(queries, -1, np.int64)
    score = np.full(queries, -np.inf)
    correct = np.zeros(queries, np.bool_)
    rank = np.full(queries, -1, np.int64)
    block = max(1, _BLOCK_ELEMENTS // places)
    for start in range(0, queries, block):
        rows = slice(start, start + block)
        s, t = scores[rows], truth[rows]
        if np.isnan(s).any():
            raise InputError("invalid_scores", "scores hold NaN; -inf marks a place not retrieved")
        at = np.arange(len(s))
        true_scores = np.where(t, s, -np.inf)
        first_true = true_scores.argmax(axis=1)
        best_true = true_scores[at, first_true, None]
        earlier = np.arange(places) < first_true[:, None]
        before = ((s > best_true) | ((s == best_true) & earlier)).sum(axis=1)
        rank[rows] = np.where(np.isneginf(best_true[:, 0]), -1, before)
        best = s.argmax(axis=1)
        score[rows] = s[at, best]
        place[rows] = np.where(np.isneginf(score[rows]), -1, best)
        correct[rows] = t[at, best] & (place[rows] >= 0)
    return Matches(place, score, correct, rank, _matchable(truth))


def matches_from_answers(
    candidates: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    truth: Truth,
) -> Matches:
    """The same from ranked answers, as a node publishes them.

    Args:
        candidates: int64 ``[Q, K]``, places from best to worst; -1 where there is none.
        scores: float64 ``[Q]``, score of the first candidate.
        truth: bool ``[Q, P]``.
    """
    listed = candidates >= 0
    hits = np.take_along_axis(truth, np.maximum(candidates, 0), axis=1) & listed
    rank = np.where(hits.any(axis=1), hits.argmax(axis=1), -1).astype(np.int64)
    answered = listed[:, 0]
    return Matches(
        np.where(answered, candidates[:, 0], -1),
        np.where(answered, scores, -np.inf),
        hits[:, 0],
        rank,
        _matchable(truth),
    )


def _matchable(truth: Truth) -> npt.NDArray[np.bool_]:
    return np.asarray(truth.any(axis=1))


def recall_at(matches: Matches, k: int, *, matchable_only: bool = False) -> float | None:
    """Recall@K: share of queries with a true place among the K best.

    Args:
        matches: best matches and ranks.
        k: how many best places count.
        matchable_only: divide by the matchable queries (VPR_Tutorial and VPRTempo) rather than
            by all queries (VPR-methods-evaluation).

    Returns:
        The share, or None without any matchable query: nothing could be found.
    """
    if not matches.matchable.any():
        return None
    found = int(((matches.rank >= 0) & (matches.rank < k)).sum())
    total = int(matches.matchable.sum()) if matchable_only else len(matches.rank)
    return found / total


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of the single best match, as the acceptance threshold falls.

    A query is accepted if its best score is at least the threshold. With TP and FP the accepted
    queries whose best match is right and wrong, precision is TP / (TP + FP) and recall is TP over
    all *matchable* queries: the share of the queries which could be recognised that were. So
    recall ends at recall@1 (over matchable queries), not at 1, and a best match for a query that
    has no place in the reference counts against precision.

    VPR_Tutorial and VPRTempo divide by the queries whose best match is right instead (a wrong
    best match is no false negative there), so that their recall always reaches 1;
    :meth:`per_correct` gives that curve for comparison.

    Attributes:
        threshold: float64 ``[N]``, every distinct best score, falling.
        precision: float64 ``[N]``.
        recall: float64 ``[N]``; empty, like the others, without answers or matchable queries.
    """

    threshold: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]

    def per_correct(self) -> PrecisionRecall:
        """The curve with recall relative to the queries whose best match is right."""
        highest = self.recall[-1] if len(self.recall) else 0.0
        if highest == 0.0:
            return PrecisionRecall(*(np.empty(0) for _ in range(3)))
        return PrecisionRecall(self.threshold, self.precision, self.recall / highest)

    def average_precision(self) -> float | None:
        """Sum of precision times each gain in recall (no interpolation)."""
        if not len(self.recall):
            return None
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    def area(self) -> float | None:
        """Area under the curve by trapezoids, started at recall 0 and precision 1."""
        if not len(self.recall):
            return None
        recall = np.concatenate([[0.0], self.recall])
        precision = np.concatenate([[1.0], self.precision])
        return float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum())

    def recall_at_full_precision(self) -> float | None:
        """Largest recall at a precision of exactly 1 (R@100P)."""
        if not len(self.recall):
            return None
        return float(self.recall[self.precision == 1.0].max(initial=0.0))

    def best_f1(self) -> tuple[float, float] | None:
        """Largest F1 (harmonic mean of precision and recall) and the threshold that gives it."""
        if not len(self.recall):
            return None
        total = self.precision + self.recall
        f1 = np.divide(
            2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0
        )
        at = int(f1.argmax())
        return float(f1[at]), float(self.threshold[at])


def precision_recall(matches: Matches) -> PrecisionRecall:
    """Sweep the threshold over every distinct best score."""
    answered = matches.answered
    matchable = int(matches.matchable.sum())
    if not answered.any() or not matchable:
        return PrecisionRecall(*(np.empty(0) for _ in range(3)))
    score, correct = matches.score[answered], matches.correct[answered]
    order = np.argsort(-score, kind="stable")
    score, correct = score[order], correct[order]
    # Queries of one score are accepted together: only the last of each run is a point.
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true_positives = np.cumsum(correct)[last]
    return PrecisionRecall(score[last], true_positives / (last + 1), true_positives / matchable)


def summary(matches: Matches, ks: Sequence[int] = (1, 5, 10, 20)) -> dict[str, float | int | None]:
    """Every figure of a run under the names used in its JSON.

    ``recall_at_K`` divides by all queries, ``recall_at_K_matchable`` by those with a place in the
    ground truth. ``tutorial_…`` follow VPR_Tutorial's recall (see :class:`PrecisionRecall`).
    """
    curve = precision_recall(matches)
    best = curve.best_f1()
    figures: dict[str, float | int | None] = {
        "queries": len(matches.rank),
        "queries_matchable": int(matches.matchable.sum()),
        "queries_answered": int(matches.answered.sum()),
    }
    for k in ks:
        figures[f"recall_at_{k}"] = recall_at(matches, k)
    for k in ks:
        figures[f"recall_at_{k}_matchable"] = recall_at(matches, k, matchable_only=True)
    figures |= {
        "average_precision": curve.average_precision(),
        "auc_pr": curve.area(),
        "recall_at_100_precision": curve.recall_at_full_precision(),
        "f1_max": best[0] if best else None,
        "f1_max_threshold": best[1] if best else None,
        "tutorial_auc_pr": curve.per_correct().area(),
        "tutorial_recall_at_100_precision": curve.per_correct().recall_at_full_precision(),
    }
    return figures


def percentiles_ms(seconds: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Median, 95th and 99th percentile of durations, in milliseconds."""
    if not len(seconds):
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    values = np.percentile(np.asarray(seconds, np.float64) * 1e3, (50, 95, 99))
    return dict(zip(("p50_ms", "p95_ms", "p99_ms"), map(float, values), strict=True))


def class_ranks(scores: Scores, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many classes come before the true one, int64 ``[N]``.

    Of equal scores the lower column comes first, as in an argmax.

    Args:
        scores: float ``[N, K]``, finite.
        labels: int64 ``[N]``, the true column of each row.
    """
    true = np.asarray(np.take_along_axis(scores, labels[:, None], axis=1), np.float64)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return np.asarray(((scores > true) | ((scores == true) & earlier)).sum(axis=1), np.int64)


def top_k(ranks: npt.NDArray[np.int64], k: int) -> float | None:
    """Share of rows whose true class is among the k best; None without a row.

    Args:
        ranks: of :func:`class_ranks`.
        k: how many best classes count.
    """
    return float((ranks < k).mean()) if len(ranks) else None


def confusion(
    labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Number of images by true class (row) and answer (column), int64 ``[K, K]``."""
    pairs = np.bincount(labels * classes + answers, minlength=classes * classes)
    return np.asarray(pairs.reshape(classes, classes), np.int64)


@dataclass(frozen=True)
class Reliability:
    """Answers in bins of equal width by their confidence (Guo et al. 2017, eq. 2 to 5).

    Attributes:
        count: int64 ``[bins]``, answers in each bin; bin m holds confidences in (m/M, (m+1)/M],
            the first one 0 too.
        confidence: float64 ``[bins]``, their mean confidence; 0 in an empty bin.
        accuracy: float64 ``[bins]``, the share of them that is right; 0 in an empty bin.
    """

    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float | None:
        """Mean over all answers of |accuracy - confidence| of their bin; None without answers."""
        total = int(self.count.sum())
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.count * gaps).sum() / total) if total else None


def reliability(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], bins: int = 15
) -> Reliability:
    """Sort answers into bins.

    Args:
        confidence: float64 ``[N]``, probability of each answer, 0 to 1.
        correct: bool ``[N]``, whether it is right.
        bins: M.
    """
    at = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    known = np.maximum(count, 1)
    return Reliability(
        count,
        np.bincount(at, confidence, bins) / known,
        np.bincount(at, correct.astype(np.float64), bins) / known,
    )


def roc(
    known: npt.NDArray[np.float64], unknown: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Receiver operating characteristic: shares accepted as the threshold falls.

    The area below it by trapezoids is :func:`spike_perception.zero_shot.rejection.auroc`.

    Args:
        known: scores of known samples ``[N]``, higher is better known; at least one.
        unknown: scores of unknown samples ``[M]``; at least one.

    Returns:
        Share of the unknown taken for known, and share of the known accepted, float64
        ``[points]`` each, from (0, 0) to (1, 1).
    """
    scores = np.concatenate([known, unknown])
    is_known = np.arange(len(scores)) < len(known)
    order = np.argsort(-scores, kind="stable")
    scores, is_known = scores[order], is_known[order]
    # Samples of one score are accepted together: only the last of each run is a point.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    accepted = np.cumsum(is_known)[last]
    false = (last + 1 - accepted) / len(unknown)
    return np.append(0.0, false), np.append(0.0, accepted / len(known))
