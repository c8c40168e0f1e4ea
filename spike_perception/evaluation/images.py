# SPDX-License-Identifier: Apache-2.0
"""Measure how a bundle names images of known classes, from words."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from spike_perception import config as configuration
from spike_perception.bags.labelled_images import LabelledImages
from spike_perception.cli import add_json, emit
from spike_perception.config import setting
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.engines import ENGINES, PRECISIONS, installed
from spike_perception.deploy.runtime import Runtime, load_runtime
from spike_perception.deploy.shipped import VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation import metrics
from spike_perception.evaluation.class_words import (
    Labels,
    bank_vocabulary,
    find_classes,
    match_folders,
    parse_labels,
)
from spike_perception.evaluation.classification import Judged, judge
from spike_perception.evaluation.images_report import most_confident_wrong, write_report
from spike_perception.evaluation.open_set import Separation, SplitScores, draw_splits
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import open_report, shown
from spike_perception.evaluation.shots import ExamplePool, few_shot_rows, parse_shots
from spike_perception.share import share_folder
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

Features = npt.NDArray[np.float32]

WORD_BANK = Path("models") / "word_bank.safetensors"
MAX_IMAGES = 1_000_000
HELD_OUT_SHARE = 0.2
ENERGY_SAMPLES = 32


@dataclass(frozen=True)
class ImagesEvaluationConfig:
    """Settings of ``evaluate images``."""

    engine: str = setting("auto", "engine that runs the network", choices=("auto", *ENGINES))
    precision: str = setting(
        "auto",
        "precision of the network; auto: what the bundle asks for",
        choices=("auto", *PRECISIONS),
    )
    threads: int = setting(2, "threads of one inference (count)", minimum=1, maximum=1024)
    limit: int = setting(
        0, "images used, spread evenly over the classes; 0: all (count)", minimum=0
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


@dataclass(frozen=True)
class Encoded:
    """Features of a data set's images.

    Attributes:
        features: spike counts ``[N, C]``.
        folders: int64 ``[N]``, position of each image's class in the data.
        at: int64 ``[N]``, position of each image in the data.
        unknown: bool ``[N]``, whether the vocabulary's own rule answered "unknown".
        seconds: float64 ``[N]``, time from the decoded image to the decision, one image at a time.
        skipped: images that could not be read, with the reason.
        samples: prepared input ``[S, 3, H, W]`` of some images, spread evenly.
    """

    features: Features
    folders: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    skipped: dict[str, str]
    samples: Features


def encode(runtime: Runtime, head: Head, images: LabelledImages) -> Encoded:
    """Encode and name every image as a robot would, one at a time.

    Raises:
        InputError: ``no_readable_image`` if none can be read; ``too_many_images``.
    """
    if len(images) > MAX_IMAGES:
        raise InputError(
            "too_many_images",
            f"{images.path} holds {len(images)} images, at most {MAX_IMAGES} are evaluated at "
            "once; take a part with --limit",
        )
    wanted = {k * len(images) // ENERGY_SAMPLES for k in range(ENERGY_SAMPLES)}
    features = np.empty((len(images), runtime.feature_dim), np.float32)
    seconds = np.empty(len(images))
    unknown = np.zeros(len(images), np.bool_)
    read: list[int] = []
    samples = []
    skipped: dict[str, str] = {}
    runtime.warm_up(1)
    for k in tqdm(range(len(images)), desc="images", unit="image", disable=None):
        try:
            image = images.image(k)
        except InputError as error:
            skipped[images.names[k]] = f"{error.reason}: {error}"
            continue
        start = time.perf_counter()
        prepared = runtime.prepare_images([image])
        features[k] = runtime.infer(prepared)[0]
        unknown[k] = head.decide(features[k]).unknown
        seconds[k] = time.perf_counter() - start
        read.append(k)
        if k in wanted:
            samples.append(prepared[0])
    if not read:
        raise InputError(
            "no_readable_image",
            f"none of the {len(images)} images in {images.path} can be read; the first: "
            f"{next(iter(skipped.values()))}",
        )
    at = np.array(read, np.int64)
    if not samples:
        samples.append(runtime.prepare_images([images.image(read[0])])[0])
    return Encoded(
        features[at],
        images.labels[at],
        at,
        unknown[at],
        seconds[at],
        skipped,
        np.stack(samples),
    )


@dataclass(frozen=True)
class ImagesResult:
    """What :func:`evaluate_images` found.

    Attributes:
        figures: every figure by its JSON name.
        judged: the answers.
        reliability: answers in bins of confidence.
        separations: scores of known and held-out images by rejection method; empty without splits.
        method: rejection method in use.
    """

    figures: dict[str, Any]
    judged: Judged
    reliability: metrics.Reliability
    separations: dict[str, Separation]
    method: str


def evaluate_images(
    head: Head,
    features: Features,
    labels: npt.NDArray[np.int64],
    splits: tuple[tuple[int, ...], ...] = (),
) -> ImagesResult:
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
    per_class = _per_class(pack, judged)
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
    return ImagesResult(figures, judged, bins, separations, method)


def _per_class(pack: VocabularyPack, judged: Judged) -> dict[str, dict[str, Any]]:
    found = {}
    for label in np.unique(judged.labels):
        mine = judged.labels == label
        answers = judged.answers[mine & ~judged.correct & (judged.answers >= 0)]
        instead = pack.names[np.bincount(answers).argmax()] if len(answers) else None
        found[pack.names[label]] = {
            "images": int(mine.sum()),
            "top_1": metrics.top_k(judged.ranks[mine], 1),
            "top_5": metrics.top_k(judged.ranks[mine], 5),
            "most_often_instead": instead,
        }
    return found


def energy(runtime: Runtime, samples: Features, classes: int) -> dict[str, Any] | None:
    """Estimated energy of one image without the layers' lines; None where torch is absent."""
    if not installed("torch"):
        return None
    import torch

    from spike_perception.deploy.network import deployed_form, student_of
    from spike_perception.spiking.energy import energy_report

    student = deployed_form(student_of(runtime.bundle), runtime.precision)
    found = energy_report(student, torch.from_numpy(samples), classes).to_json()
    del found["layers"]
    return found


def choose_splits(
    pack: VocabularyPack,
    classes: npt.NDArray[np.int64],
    config: ImagesEvaluationConfig,
    bank: WordBank | None = None,
) -> tuple[tuple[int, ...], ...]:
    """The classes to hold out, of those that have images.

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
                f"--hold-out {given}: these must be classes with images, and at least one class "
                "with images must stay",
            )
        return (tuple(sorted(set(named))),)
    if given:
        count = int(given)
        if count >= len(classes) and count > 0:
            raise InputError(
                "invalid_option",
                f"--hold-out {count}: of {len(classes)} classes with images at most "
                f"{len(classes) - 1} can be held out",
            )
    else:
        count = max(1, round(HELD_OUT_SHARE * len(classes))) if len(classes) > 1 else 0
    return draw_splits(classes.tolist(), count, config.splits, config.seed) if count else ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="images with one folder a class: a folder, FILE.zip or FILE.zip/FOLDER",
    )
    parser.add_argument(
        "--bundle",
        required=True,
        help="model bundle: a file, or the name of a shipped one, such as camera",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="PACK",
        help="vocabulary pack, a file or the name of a shipped one; its classes without a folder "
        "are distractors",
    )
    parser.add_argument(
        "--labels",
        metavar="NAME,...|FOLDER=NAME,...|FILE",
        help="the words to choose among, or what the folders' names mean; FILE: one NAME a line, "
        "or FOLDER<tab>NAME; without it the folders' names are the words",
    )
    parser.add_argument(
        "--word-bank",
        metavar="BANK",
        help="where words are looked up; without it the one that is installed",
    )
    parser.add_argument(
        "--shots-from",
        metavar="DATA",
        help="take the examples from this data, laid out alike, instead of from DATA",
    )
    metavars = {"hold_out": "N|NAME,...", "shots": "N,N,..."}
    for each in configuration.settings(ImagesEvaluationConfig):
        parser.add_argument(
            f"--{each.path.replace('_', '-')}",
            type=each.type,
            default=each.default,
            choices=each.choices or None,
            metavar=None if each.choices else metavars.get(each.path, "N"),
            help=each.description,
        )
    parser.add_argument("--report", metavar="DIR", help="write report.html, figures and JSON there")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    names = [each.path for each in configuration.settings(ImagesEvaluationConfig)]
    given = {name: getattr(args, name) for name in names}
    config = configuration.replace(ImagesEvaluationConfig(), given)
    shots = parse_shots(config.shots)
    if args.shots_from and not shots:
        raise InputError("invalid_option", "--shots-from needs --shots, such as --shots 1,5,10")
    if args.shots_from and Path(args.shots_from).resolve() == Path(args.data).resolve():
        raise InputError(
            "invalid_option",
            "--shots-from is DATA itself, and examples would be judged; leave it out: what is "
            "drawn from DATA is not judged",
        )
    bundle_file = shipped_file(str(args.bundle))
    pack_file = shipped_file(str(args.vocabulary), VOCABULARIES) if args.vocabulary else None
    bank_file = shipped_file(str(args.word_bank)) if args.word_bank else None
    bundle = Bundle.load(bundle_file)
    if bundle.kind not in ("image", "place"):
        raise InputError("wrong_kind", f"{bundle_file} takes {bundle.kind}, not images")
    with LabelledImages(args.data, config.limit or None) as images:
        labels = parse_labels(args.labels) if args.labels else Labels()
        bank = _bank(bank_file, bundle.encoder_id, needed=pack_file is None)
        pack, labels = _vocabulary(pack_file, bank, images, labels, bundle, config)
        truth = match_folders(pack, images.classes, labels, bank)
        report = open_report(
            args.report,
            "Image classification",
            f"{args.data} ({len(images):,} images of {len(images.classes):,} classes), "
            f"{len(pack.names):,} words",
        )
        head = Head(pack)
        runtime = load_runtime(bundle, config.engine, config.precision, config.threads)
        encoded = encode(runtime, head, images)
        true = truth[encoded.folders]
        splits = choose_splits(pack, np.unique(true), config, bank)
        found = evaluate_images(head, encoded.features, true, splits)
        few = _few_shot(args.shots_from, shots, config, runtime, images, encoded, pack, truth, bank)
        result = {
            **found.figures,
            "known_called_unknown": float(encoded.unknown.mean()),
            "ms_per_image": float(encoded.seconds.mean()) * 1e3,
            **_prefixed("latency_", metrics.percentiles_ms(encoded.seconds)),
            "few_shot": few,
            "energy": energy(runtime, encoded.samples, len(pack.rows)),
            "skipped": encoded.skipped,
            "wrong_answers": _wrong_answers(found.judged, pack, images, encoded.at),
            "classes": [pack.names[k] for k in truth],
            "folders": dict(zip(images.classes, (pack.names[k] for k in truth), strict=True)),
            "distractors": len(pack.hierarchy.leaves) - len(truth),
            "bundle": bundle.encoder_id,
            "bundle_file": str(bundle_file),
            "weights_id": bundle.weights_id,
            "student": bundle.student,
            "vocabulary": pack.vocabulary_id,
            "vocabulary_file": str(pack_file) if pack_file else None,
            "temperature": pack.temperature,
            "data": args.data,
            "labels": args.labels,
            "engine": runtime.engine,
            "precision": runtime.precision,
            "threads": config.threads,
            "config": configuration.to_flat(config),
            **provenance(),
        }
        page = write_report(report, result, found, encoded.seconds, images, encoded.at, pack, truth)
    emit(args, result, _text(result) + (f"\nreport: {page}" if page else ""))
    return 0


def _bank(path: Path | None, encoder_id: str, needed: bool) -> WordBank | None:
    """The word bank: the given one, or the installed one if it is there and fits.

    Raises:
        InputError: ``file_missing`` or ``wrong_encoder`` if one is needed, or was given.
    """
    chosen = path or share_folder() / WORD_BANK
    if path is None and not chosen.is_file():
        if needed:
            raise InputError(
                "file_missing",
                f"no word bank is installed ({chosen}), so that words mean nothing; give "
                "--word-bank BANK or --vocabulary PACK",
            )
        return None
    try:
        return WordBank.load(chosen, encoder_id=encoder_id)
    except InputError:
        if path is None and not needed:
            return None  # it would only have added aliases
        raise


def _vocabulary(
    path: Path | None,
    bank: WordBank | None,
    images: LabelledImages,
    labels: Labels,
    bundle: Bundle,
    config: ImagesEvaluationConfig,
) -> tuple[VocabularyPack, Labels]:
    if path is None and bank is not None:
        return bank_vocabulary(bank, images.classes, labels, config.negatives)
    if labels.words or config.negatives:
        raise InputError(
            "invalid_option",
            "a vocabulary pack has its own words: with --vocabulary, --labels takes FOLDER=NAME "
            "entries only, and --negatives cannot be given",
        )
    return VocabularyPack.load(Path(str(path)), encoder_id=bundle.encoder_id), labels


def _few_shot(
    source: str | None,
    shots: tuple[int, ...],
    config: ImagesEvaluationConfig,
    runtime: Runtime,
    images: LabelledImages,
    encoded: Encoded,
    pack: VocabularyPack,
    truth: npt.NDArray[np.int64],
    bank: WordBank | None,
) -> list[dict[str, Any]]:
    """Rows of the few-shot curve; examples come from another data set or from the images judged."""
    if not shots:
        return []
    seeds = [config.seed + k for k in range(config.shot_seeds)]
    labels = truth[encoded.folders]
    if source is None:
        present = np.unique(labels)
        known = dict(zip(encoded.at.tolist(), encoded.features, strict=True))
        pool = ExamplePool(
            present.tolist(),
            [encoded.at[labels == label] for label in present],
            lambda at: known[at] if known[at].any() else None,
        )
        return few_shot_rows(pack, pool, shots, seeds, encoded.features, labels, encoded.at)
    with LabelledImages(source) as others:
        words = dict(zip(images.classes, ((pack.names[k],) for k in truth), strict=True))
        meant = match_folders(pack, others.classes, Labels(folders=words), bank)

        def feature(at: int) -> Features | None:
            try:
                image = others.image(at)
            except InputError:
                return None
            counts = runtime.infer(runtime.prepare_images([image]))[0]
            return counts if counts.any() else None

        pool = ExamplePool(
            meant.tolist(),
            [np.flatnonzero(others.labels == folder) for folder in range(len(meant))],
            feature,
        )
        return few_shot_rows(pack, pool, shots, seeds, encoded.features, labels, None)


def _wrong_answers(
    judged: Judged, pack: VocabularyPack, images: LabelledImages, at: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    return [
        {
            "image": images.names[int(at[k])],
            "said": pack.names[judged.answers[k]],
            "probability": float(judged.confidence[k]),
            "is": pack.names[judged.labels[k]],
        }
        for k in most_confident_wrong(judged)
    ]


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _text(result: dict[str, Any]) -> str:
    used = result["energy"]
    lines = [
        f"{result['images']:,} images of {len(result['classes']):,} classes, "
        f"{result['distractors']:,} distractors, {len(result['skipped'])} images skipped",
        f"top-1 {shown(result['top_1'])}   top-5 {shown(result['top_5'])}   "
        f"mean over classes {shown(result['top_1_class_mean'])}",
        f"expected calibration error {shown(result['expected_calibration_error'])}   "
        f"mean confidence {shown(result['mean_confidence'])}",
        f"unknown ({result['rejection']['method']}): AUROC {shown(result['auroc_unknown'])}   "
        f"FPR95 {shown(result['fpr95_unknown'])}   "
        f"known called unknown {shown(result['known_called_unknown'])}",
        *(
            f"{row['shots']} examples: top-1 {shown(row['top_1'])} \N{PLUS-MINUS SIGN} "
            f"{shown(row['top_1_std'])}, alone {shown(row['examples_alone_top_1'])}"
            for row in result["few_shot"]
        ),
        f"{shown(result['ms_per_image'])} ms an image   p50 {shown(result['latency_p50_ms'])} ms   "
        f"p95 {shown(result['latency_p95_ms'])} ms   {result['engine']} {result['precision']}",
    ]
    if used:
        lines.append(
            f"estimated energy {shown(used['student_mj'])} mJ, "
            f"{shown(used['ratio_to_ann_twin'])} of the ANN twin's"
        )
    lines += [f"skipped {name}: {reason}" for name, reason in [*result["skipped"].items()][:5]]
    return "\n".join(lines)
