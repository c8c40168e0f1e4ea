# SPDX-License-Identifier: Apache-2.0
"""The demo's camera classifier: it is told words, and names what the camera sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.config import Value
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.shipped import shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation import class_figures, metrics
from spike_perception.evaluation.class_answers import (
    VISIBLE_SHARE,
    ClassAnswers,
    JudgedClasses,
    Region,
    judge_classes,
    read_class_answers,
    read_visible,
)
from spike_perception.evaluation.class_timeline import draw_names
from spike_perception.evaluation.report import Frame, Report, Strip, Verdict, shown
from spike_perception.zero_shot.bank import WordBank

# Frames are judged where objects of one class fill this share of what the network sees.
MINIMUM_SHARE = 0.2
_ABREAST = 5
_ROWS = 2  # of right frames, and of wrong ones


@dataclass(frozen=True)
class ClassifierFiles:
    """What the classifier of the demo runs.

    Attributes:
        bundle: file of the camera's encoder.
        bank: file of its word bank.
        words: the words it is told, each in the bank.
        missing: words of the world that the bank does not have.
        region: the part of the picture that the encoder sees.
    """

    bundle: Path
    bank: Path
    words: tuple[str, ...]
    missing: tuple[str, ...]
    region: Region

    def parameters(self) -> dict[str, Value]:
        """Parameters of the node ``camera_classifier``."""
        return {
            "model.bundle": str(self.bundle),
            "vocabulary.bank": str(self.bank),
            "vocabulary.names": ",".join(self.words),
        }


def find_classifier(bundle: str, bank: str, drive: Path) -> ClassifierFiles:
    """The encoder, and those words of its bank that name something in the drive.

    Args:
        bundle: as the node's parameter ``model.bundle``.
        bank: as the node's parameter ``vocabulary.bank``.
        drive: the simulated drive.

    Raises:
        InputError: a file is missing or refused, or no word of the world is in the bank.
    """
    bundle_file, bank_file = shipped_file(bundle).resolve(), shipped_file(bank).resolve()
    encoder = Bundle.load(bundle_file)
    crops = encoder.preprocessing.get("resize") == "shorter_side_crop"
    region: Region = "centre" if crops else "whole"
    seen = sorted({word for each in read_visible(drive, region).values() for word in each})
    words, missing = split_words(seen, bank_file, encoder.encoder_id)
    return ClassifierFiles(bundle_file, bank_file, words, missing, region)


def split_words(
    wanted: Sequence[str], bank_file: Path, encoder_id: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those words that a bank has, and those that it does not have.

    Raises:
        InputError: the bank is missing or refused, or ``unknown_name`` if it has none of them.
    """
    known = WordBank.load(bank_file, encoder_id=encoder_id)
    words, missing = [], []
    for word in wanted:
        try:
            known.find(word)
        except InputError:
            missing.append(word)
        else:
            words.append(word)
    if not words:
        raise InputError("unknown_name", f"{bank_file} has none of the words {', '.join(wanted)}")
    return tuple(words), tuple(missing)


def judge_recorded(
    files: ClassifierFiles, drive: Path, bag: Path
) -> tuple[ClassAnswers, JudgedClasses]:
    """Judge what the classifier answered; figures are in ``.figures`` of the second."""
    answers = read_class_answers(bag)
    visible = read_visible(drive, files.region)
    judged = judge_classes(answers, visible, files.words, MINIMUM_SHARE)
    judged.figures.update(
        {
            "class_words": list(files.words),
            "class_words_missing": list(files.missing),
            "class_region": files.region,
            "class_answered": len(answers.stamp_ns),
            "class_parameters": files.parameters(),
        }
    )
    return answers, judged


def table_rows(judged: JudgedClasses) -> list[tuple[str, str]]:
    """Lines of the demo's printed table."""
    found = judged.figures
    return [
        ("named images / words", f"{found['class_answered']:,} / {len(judged.words)}"),
        (f"frames that one class fills to {MINIMUM_SHARE:.0%}", f"{found['class_frames']:,}"),
        ("named right (top-1)", shown(found["class_top_1"])),
        ("  mean over classes", shown(found["class_mean_top_1"])),
        ("  most frequent class alone", shown(found["class_most_frequent"])),
        ("true name among three (top-3)", shown(found["class_top_3"])),
        ("named thing is in view, all images", shown(found["class_in_view"])),
        ("  by chance", shown(found["class_in_view_by_chance"])),
        (
            "naming latency p50 / p95",
            f"{found['class_latency_p50_ms']:.1f} / {found['class_latency_p95_ms']:.1f} ms",
        ),
    ]


def tell(
    report: Report,
    files: ClassifierFiles,
    answers: ClassAnswers,
    judged: JudgedClasses,
    drive: Path,
) -> None:
    """Add what the classifier did to the demo's report."""
    found = judged.figures
    report.headline(
        "Top-1", found["class_top_1"], f"camera, named, of {found['class_frames']:,} frames"
    )
    if not len(judged.at):
        return
    part = "centred square" if files.region == "centre" else "picture"
    rule = f"objects of one class fill {MINIMUM_SHARE:.0%} of the {part} or more"
    report.figure(
        "Names over time",
        "names",
        lambda figure, palette: draw_names(
            figure,
            palette,
            (answers.stamp_ns[judged.at] - answers.stamp_ns[0]) / 1e9,
            judged.said,
            judged.labels,
            judged.words,
        ),
        note=f"Of the {found['class_frames']:,} frames in which {rule}, as the simulator knows. A "
        "bar is the true word, a dot the one named.",
        size=(9.0, float(np.clip(1.6 + 0.24 * len(judged.words), 3.0, 8.0))),
    )
    matrix, rows, columns = _confusion(judged)
    report.figure(
        "Confusion of names",
        "names_confusion",
        lambda figure, palette: class_figures.draw_confusion(
            figure, palette, matrix, rows, columns
        ),
        note="Share of each true class's frames (row) by the most probable word (column).",
    )
    report.table(
        "Names by class",
        ["true class", "frames", "top-1", "most often said instead"],
        [
            [word, each["frames"], each["top_1"], each["most_often_instead"]]
            for word, each in found["class_per_word"].items()
        ],
        note=f"Always saying the most frequent word would be right in "
        f"{shown(found['class_most_frequent'])} of the frames. In {shown(found['class_in_view'])} "
        f"of all images the named thing fills {VISIBLE_SHARE:.0%} of the {part} or more; a word "
        f"drawn by lot does in {shown(found['class_in_view_by_chance'])}.",
    )
    report.strips(
        "A few of the names",
        "names_frames",
        _strips(answers, judged, drive),
        note=f"Right frames, then wrong ones, spread over the drive. The words were given as text: "
        f"{', '.join(files.words)}.",
    )


def _confusion(judged: JudgedClasses) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """Frames by true and named word: rows are classes in view, columns those and others named."""
    true = judged.seen
    others = np.setdiff1d(judged.said[judged.said >= 0], true)
    kept = np.concatenate([true, others])
    whole = metrics.confusion(judged.labels, np.maximum(judged.said, 0), len(judged.words))
    silent = judged.labels[judged.said < 0]
    np.subtract.at(whole, (silent, np.zeros_like(silent)), 1)
    names = [judged.words[k] for k in kept]
    return whole[np.ix_(true, kept)], names[: len(true)], names


def _strips(answers: ClassAnswers, judged: JudgedClasses, drive: Path) -> Iterator[Strip]:
    rows: list[tuple[str, npt.NDArray[np.int64]]] = []
    for right, name in ((True, "right"), (False, "wrong")):
        every = np.flatnonzero(judged.right == right)
        count = min(_ABREAST * _ROWS, len(every))
        chosen = every[np.linspace(0, len(every) - 1, count).astype(int)] if count else every
        rows += [
            (name, chosen[start : start + _ABREAST]) for start in range(0, len(chosen), _ABREAST)
        ]
    wanted = {int(answers.stamp_ns[judged.at[k]]) for _, row in rows for k in row}
    with BagReader(drive) as bag:
        images = {each.stamp_ns: each.image for each in bag.images() if each.stamp_ns in wanted}
    for name, row in rows:
        verdict: Verdict = "right" if name == "right" else "wrong"
        yield Strip(
            name,
            tuple(
                Frame(
                    images[int(answers.stamp_ns[judged.at[k]])],
                    _caption(answers, judged, int(k)),
                    verdict,
                )
                for k in row
            ),
        )


def _caption(answers: ClassAnswers, judged: JudgedClasses, k: int) -> str:
    said = judged.words[judged.said[k]] if judged.said[k] >= 0 else "nothing"
    unknown = " (unknown)" if answers.unknown[judged.at[k]] else ""
    score = answers.score[judged.at[k]]
    true = "" if judged.right[k] else f", is {judged.words[judged.labels[k]]}"
    return f"{said} {score:.2f}{unknown}{true}"
