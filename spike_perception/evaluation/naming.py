# SPDX-License-Identifier: Apache-2.0
"""Figures of features under their true classes: the pure part of naming's evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.deploy.engines import installed
from spike_perception.deploy.runtime import Features, Runtime, StreamingRuntime
from spike_perception.errors import InputError
from spike_perception.evaluation import metrics
from spike_perception.evaluation.class_words import (
    find_classes,
)
from spike_perception.evaluation.classification import Judged, class_rows, judge
from spike_perception.evaluation.naming_task import (
    NamingConfig,
)
from spike_perception.evaluation.open_set import Separation, SplitScores, draw_splits
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class NamingResult:
    """What :func:`evaluate_features` found.

    Attributes:
        figures: every figure by its JSON name.
        judged: the answers.
        reliability: answers in bins of confidence.
        separations: scores of known and held-out samples by rejection method; empty without splits.
        method: rejection method in use.
    """

    figures: dict[str, Any]
    judged: Judged
    reliability: metrics.Reliability
    separations: dict[str, Separation]
    method: str


def evaluate_features(
    head: Head,
    features: Features,
    labels: npt.NDArray[np.int64],
    splits: tuple[tuple[int, ...], ...] = (),
) -> NamingResult:
    """Figures of features under their true classes; a pure function of the arguments.

    Args:
        head: the vocabulary.
        features: spike counts ``[N, C]``, N at least 1.
        labels: int64 ``[N]``, classes of the vocabulary without classes below them.
        splits: classes held out in each split, to measure rejection.
    """
    pack = head.pack
    scores = SplitScores(pack, splits)
    judged = judge(head, features, labels, scores.add)
    bins = metrics.reliability(judged.confidence, judged.correct)
    method = pack.rejection.method if pack.rejection else "max_softmax"
    separations = scores.separations(labels) if splits else {}
    methods = {name: each.summary() for name, each in separations.items()}
    per_class = class_rows(pack.names, judged)
    figures: dict[str, Any] = {
        "top_1": metrics.top_k(judged.ranks, 1),
        "top_5": metrics.top_k(judged.ranks, 5),
        "top_1_class_mean": float(np.mean([each["top_1"] for each in per_class.values()])),
        "expected_calibration_error": bins.expected_calibration_error,
        "mean_confidence": float(judged.confidence.mean()),
        "auroc_unknown": methods[method]["auroc"] if methods else None,
        "fpr95_unknown": methods[method]["fpr95"] if methods else None,
        "images": len(labels),
        "silent": int((judged.answers < 0).sum()),
        "rejection": {
            "method": method,
            "calibrated": pack.rejection is not None,
            "methods": methods,
            "held_out": [[pack.names[k] for k in split] for split in splits],
        },
        "per_class": per_class,
    }
    return NamingResult(figures, judged, bins, separations, method)


def energy(
    runtime: Runtime | StreamingRuntime, samples: Features, classes: int
) -> dict[str, Any] | None:
    """Estimated energy without the layers' lines; None where torch is absent.

    ``of`` says of what: a sample, or, for a runtime with a state, one window of a recording.
    """
    if not installed("torch"):
        return None
    import torch

    from spike_perception.deploy.network import deployed_form, student_of
    from spike_perception.spiking.energy import energy_report, of_a_window

    student = deployed_form(student_of(runtime.bundle), runtime.precision)
    report = energy_report(student, torch.from_numpy(samples), classes)
    windows = isinstance(runtime, StreamingRuntime)
    found = (of_a_window(report, samples.shape[1]) if windows else report).to_json()
    del found["layers"]
    return {"of": "window" if windows else "sample", **found}


def choose_splits(
    pack: VocabularyPack,
    classes: npt.NDArray[np.int64],
    config: NamingConfig,
    bank: WordBank | None = None,
) -> tuple[tuple[int, ...], ...]:
    """The classes to hold out, of those that have samples.

    Raises:
        InputError: ``invalid_option`` for more than can be held out, as :func:`find_classes` for
            names.
    """
    given = config.hold_out.strip()
    if given and not given.isdecimal():
        named = find_classes(pack, [word.strip() for word in given.split(",")], bank)
        if not set(named) < set(classes.tolist()):
            raise InputError(
                "invalid_option",
                f"--hold-out {given}: these must be classes of the data, and at least one class "
                "of the data must stay",
            )
        return (tuple(sorted(set(named))),)
    if given:
        count = int(given)
        if count >= len(classes) and count > 0:
            raise InputError(
                "invalid_option",
                f"--hold-out {count}: of {len(classes)} classes in the data at most "
                f"{len(classes) - 1} can be held out",
            )
    else:
        count = max(1, round(HELD_OUT_SHARE * len(classes))) if len(classes) > 1 else 0
    return draw_splits(classes.tolist(), count, config.splits, config.seed) if count else ()
