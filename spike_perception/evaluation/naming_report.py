# SPDX-License-Identifier: Apache-2.0
"""The report of ``evaluate images``, ``points`` and ``events``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation import class_figures, metrics
from spike_perception.evaluation.classification import Judged
from spike_perception.evaluation.report import FIGURE_SIZE, Frame, Report, Strip, shown
from spike_perception.sensing.image import RgbImage
from spike_perception.zero_shot.pack import VocabularyPack

if TYPE_CHECKING:
    from spike_perception.evaluation.naming import NamingResult

_WRONG = 24
_ABREAST = 4
_SMALL = 8  # classes whose confusion can be read beside other figures


@dataclass(frozen=True)
class Told:
    """The samples that were judged, for people.

    Attributes:
        noun: what a sample is called.
        plural: what samples are called.
        seconds: float64 ``[N]``, time of each.
        names: of the samples.
        picture: of the k-th sample, uint8 ``[H, W, 3]``.
    """

    noun: str
    plural: str
    seconds: npt.NDArray[np.float64]
    names: Sequence[str]
    picture: Callable[[int], RgbImage]


def write_report(
    report: Report,
    result: dict[str, Any],
    found: NamingResult,
    told: Told,
    pack: VocabularyPack,
    truth: npt.NDArray[np.int64],
) -> Path | None:
    """Tell a report what was found; returns the path of its page, if it has one.

    Args:
        report: the report.
        result: the whole result, as its JSON has it.
        found: what was found.
        told: the samples.
        pack: the vocabulary.
        truth: class of the vocabulary of each folder.
    """
    _headlines(report, result, told.noun)
    report.figure(
        "Reliability",
        "reliability",
        lambda figure, palette: class_figures.draw_reliability(figure, palette, found.reliability),
        note="Accuracy of the answers by their stated probability. Calibrated, the bars end at the "
        "diagonal; bars below it are overconfident.",
    )
    if found.separations:
        held = result["rejection"]["held_out"]
        report.figure(
            "Telling the unknown",
            "rejection",
            lambda figure, palette: class_figures.draw_rejection(
                figure, palette, found.separations, found.method
            ),
            note=f"In each of {len(held)} splits, {told.plural} of {len(held[0])} classes without "
            "a word are the unknown. Thin lines are single splits.",
        )
    report.figure(
        "Latency",
        "latency",
        lambda figure, palette: class_figures.draw_latency(figure, palette, told.seconds),
        note=f"From the {told.noun} as read to the decision, one at a time: preprocessing, "
        "network, head. The slowest hundredth is not drawn.",
    )
    if result["few_shot"]:
        report.figure(
            "Few examples",
            "few_shot",
            lambda figure, palette: class_figures.draw_few_shot(
                figure, palette, result["few_shot"]
            ),
            note="Within a seed, every number of examples is judged on the same data. The band "
            "is one standard deviation over seeds.",
        )
    rows = result["per_class"]
    report.figure(
        "Classes",
        "classes",
        lambda figure, palette: class_figures.draw_class_bars(
            figure, palette, list(rows), [each["top_1"] for each in rows.values()]
        ),
        note="Share of each class whose most probable word is right.",
        size=(5.2, float(np.clip(1.2 + 0.2 * len(rows), 3.0, 9.0))),
    )
    matrix, true, said = confusion_with_others(found, pack, truth)
    report.figure(
        "Confusion",
        "confusion",
        lambda figure, palette: class_figures.draw_confusion(figure, palette, matrix, true, said),
        note="Share of each true class (row) by the most probable word (column), in "
        "percent where there is room.",
        size=FIGURE_SIZE if len(true) <= _SMALL else (9.0, 7.5),
    )
    _tables(report, result, told.plural)
    report.strips(
        "Most confident wrong answers",
        "wrong_answers",
        _wrong_strips(found, told, pack),
        note="Most probable word with its probability, then the true one; highest first.",
    )
    report.table(
        "Most confident wrong answers",
        [told.noun, "said", "probability", "is"],
        [list(each.values()) for each in result["wrong_answers"]],
        folded=True,
    )
    report.table(
        "Configuration",
        ["setting", "value"],
        [
            *result["config"].items(),
            *((key, result[key]) for key in ("bundle", "vocabulary", "student", "labels")),
            ("engine in use", result["engine"]),
            ("precision in use", result["precision"]),
            ("command line", result["command_line"]),
            *result["versions"].items(),
            *result["machine"].items(),
        ],
        folded=True,
    )
    return report.write(result)


def _headlines(report: Report, result: dict[str, Any], noun: str) -> None:
    words = len(result["classes"]) + result["distractors"]
    report.headline("Top-1", result["top_1"], f"of {words:,} words")
    report.headline("Top-5", result["top_5"], f"of {words:,} words")
    report.headline("Calibration error", result["expected_calibration_error"], "expected")
    report.headline("AUROC, unknown", result["auroc_unknown"], result["rejection"]["method"])
    report.headline(
        f"Time per {noun}",
        f"{result['ms_per_image']:.2f} ms",
        f"p95 {result['latency_p95_ms']:.2f} ms, {result['engine']} {result['precision']}",
    )
    if result["energy"]:
        used = result["energy"]
        report.headline(
            "Energy, estimated",
            f"{shown(used['student_mj'])} mJ",
            f"a {used['of']}, {100 * used['ratio_to_ann_twin']:.1f} % of the ANN twin",
        )


def _tables(report: Report, result: dict[str, Any], plural: str) -> None:
    methods = result["rejection"]["methods"]
    if methods:
        keys = ("auroc", "auroc_std", "fpr95", "fpr95_std")
        report.table(
            "Rejection of held-out classes",
            ["method", "AUROC", "std", "FPR95", "std"],
            [
                [name + (" (in use)" if name == result["rejection"]["method"] else "")]
                + [each[key] for key in keys]
                for name, each in methods.items()
            ],
            note="FPR95: share of the unknown taken for known where 95 % of the known pass.",
        )
    if result["few_shot"]:
        columns = ("shots", "top_1", "top_1_std", "top_5", "examples_alone_top_1", "images")
        report.table(
            "Examples",
            ["examples", "top-1", "std", "top-5", "examples alone", f"{plural} judged"],
            [[row[key] for key in columns] for row in result["few_shot"]],
        )
    report.table(
        "Classes",
        ["class", plural, "top-1", "top-5", "most often said instead"],
        [
            [name, each["images"], each["top_1"], each["top_5"], each["most_often_instead"]]
            for name, each in result["per_class"].items()
        ],
        folded=True,
    )
    if result["skipped"]:
        report.table(
            f"Skipped {plural} ({len(result['skipped'])})",
            ["name", "reason"],
            list(result["skipped"].items())[:100],
            folded=True,
        )


def confusion_with_others(
    found: NamingResult, pack: VocabularyPack, truth: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """Samples by true class and answer, words without samples and silence put together.

    Returns:
        int64 ``[F, F]`` or ``[F, F + 1]``, names of its rows and of its columns.
    """
    count = len(truth)
    position = np.full(len(pack.names) + 1, count)  # the last one is the -1 of no answer
    position[truth] = np.arange(count)
    whole = metrics.confusion(
        position[found.judged.labels], position[found.judged.answers], count + 1
    )
    names = [pack.names[k] for k in truth]
    if whole[:count, count].any():
        return whole[:count], names, [*names, "another word"]
    return whole[:count, :count], names, names


def most_confident_wrong(judged: Judged, count: int = _WRONG) -> npt.NDArray[np.int64]:
    """Positions of the wrong answers of the highest probability, int64 ``[count or fewer]``."""
    wrong = np.flatnonzero(~judged.correct & (judged.answers >= 0))
    return wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:count]


def _wrong_strips(found: NamingResult, told: Told, pack: VocabularyPack) -> Iterator[Strip]:
    judged = found.judged
    worst = most_confident_wrong(judged)
    for start in range(0, len(worst), _ABREAST):
        frames = tuple(
            Frame(
                told.picture(int(k)),
                f"{pack.names[judged.answers[k]]} {judged.confidence[k]:.2f}, "
                f"is {pack.names[judged.labels[k]]}",
                "wrong",
            )
            for k in worst[start : start + _ABREAST]
        )
        yield Strip(f"{start + 1} to {start + len(frames)}", frames)
