# SPDX-License-Identifier: Apache-2.0
"""The commands ``evaluate images``, ``points`` and ``events``, but for what is theirs alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception import config as configuration
from spike_perception.cli import add_json, emit
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.runtime import Features
from spike_perception.deploy.shipped import MODELS, SUFFIX, VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation import metrics
from spike_perception.evaluation.class_words import (
    Labels,
    bank_vocabulary,
    match_folders,
    parse_labels,
)
from spike_perception.evaluation.classification import Judged
from spike_perception.evaluation.naming import choose_splits, energy, evaluate_features
from spike_perception.evaluation.naming_report import Told, most_confident_wrong, write_report
from spike_perception.evaluation.naming_task import (
    ConfigT,
    DataT,
    Encoded,
    Encoder,
    LabelledData,
    NamingConfig,
    SampleT,
    Task,
    encode,
)
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import open_report, shown
from spike_perception.evaluation.shots import ExamplePool, few_shot_rows, parse_shots
from spike_perception.share import share_folder
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack


def configure(task: Task[Any, Any, Any], parser: argparse.ArgumentParser) -> None:
    """Declare a command's arguments."""
    parser.add_argument("data", metavar="DATA", help=task.data_help)
    parser.add_argument(
        "--bundle",
        required=True,
        help="model bundle: a file, or the name of a shipped one",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="PACK",
        help="vocabulary pack, a file or the name of a shipped one; its classes that the data does "
        "not have are distractors",
    )
    parser.add_argument(
        "--labels",
        metavar="NAME,...|FOLDER=NAME,...|FILE",
        help="the words to choose among, or what the names of the data's classes (its folders) "
        "mean; FILE: one NAME a line, or FOLDER<tab>NAME; without it the classes' names are the "
        "words",
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
    for each in configuration.settings(task.config_type):
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


def run(task: Task[DataT, SampleT, ConfigT], args: argparse.Namespace) -> int:
    """Run a command."""
    names = [each.path for each in configuration.settings(task.config_type)]
    given = {name: getattr(args, name) for name in names}
    config = configuration.replace(task.config_type(), given)
    shots = parse_shots(config.shots)
    if args.shots_from and not shots:
        raise InputError("invalid_option", "--shots-from needs --shots, such as --shots 1,5,10")
    # SET --split PART is the same data as SET/PART.
    judged = Path(args.data, str(given.get("split", ""))).resolve()
    if args.shots_from and Path(args.shots_from).resolve() in (Path(args.data).resolve(), judged):
        raise InputError(
            "invalid_option",
            "--shots-from is DATA itself, and examples would be judged; leave it out: what is "
            "drawn from DATA is not judged",
        )
    bundle_file = shipped_file(str(args.bundle))
    pack_name = args.vocabulary
    if not (pack_name or args.word_bank or args.labels):
        pack_name = task.default_pack(str(args.bundle))
    pack_file = shipped_file(str(pack_name), VOCABULARIES) if pack_name else None
    bank_file = shipped_file(str(args.word_bank)) if args.word_bank else None
    bundle = Bundle.load(bundle_file)
    if bundle.kind not in task.kinds:
        raise InputError("wrong_kind", f"{bundle_file} takes {bundle.kind}, not {task.plural}")
    labels = parse_labels(args.labels) if args.labels else Labels()
    with task.open(args.data, config) as data:
        labels = task.meaning(labels, data.classes)
        bank = _bank(bank_file, task.bank, bundle.encoder_id, needed=pack_file is None)
        pack, labels = _vocabulary(pack_file, bank, data.classes, labels, bundle, config)
        truth = match_folders(pack, data.classes, labels, bank)
        report = open_report(
            args.report,
            task.title,
            f"{args.data} ({len(data):,} {task.plural} of {len(data.classes):,} classes), "
            f"{len(pack.names):,} words",
        )
        head = Head(pack)
        encoder = task.encoder(bundle, config)
        encoded = encode(task, encoder, head, data)
        true = truth[encoded.folders]
        splits = choose_splits(pack, np.unique(true), config, bank)
        found = evaluate_features(head, encoded.features, true, splits)
        few = _few_shot(
            task, args.shots_from, shots, config, encoder, data, encoded, pack, truth, bank
        )
        milliseconds = float(encoded.seconds.mean()) * 1e3
        result = {
            **found.figures,
            task.plural: found.figures["images"],
            "known_called_unknown": float(encoded.unknown.mean()),
            "ms_per_image": milliseconds,
            f"ms_per_{task.noun}": milliseconds,
            **_prefixed("latency_", metrics.percentiles_ms(encoded.seconds)),
            "few_shot": few,
            "energy": energy(encoder.runtime, encoded.samples, len(pack.rows)),
            "skipped": encoded.skipped,
            "wrong_answers": _wrong_answers(found.judged, pack, data, encoded.at),
            "classes": [pack.names[k] for k in truth],
            "folders": dict(zip(data.classes, (pack.names[k] for k in truth), strict=True)),
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
            "engine": encoder.runtime.engine,
            "precision": encoder.runtime.precision,
            "threads": config.threads,
            "config": configuration.to_flat(config),
            **provenance(),
        }
        told = Told(
            task.noun,
            task.plural,
            encoded.seconds,
            [data.names[int(k)] for k in encoded.at],
            lambda k: task.picture(data, int(encoded.at[k])),
        )
        page = write_report(report, result, found, told, pack, truth)
    text = _text(result, task.noun, task.plural)
    emit(args, result, text + (f"\nreport: {page}" if page else ""))
    return 0


def _bank(path: Path | None, name: str, encoder_id: str, needed: bool) -> WordBank | None:
    """The word bank: the given one, or the installed one if it is there and fits.

    Raises:
        InputError: ``file_missing`` or ``wrong_encoder`` if one is needed, or was given.
    """
    chosen = path or share_folder() / MODELS / f"{name}{SUFFIX}"
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
    classes: tuple[str, ...],
    labels: Labels,
    bundle: Bundle,
    config: NamingConfig,
) -> tuple[VocabularyPack, Labels]:
    if path is None and bank is not None:
        return bank_vocabulary(bank, classes, labels, config.negatives)
    if labels.words or config.negatives:
        raise InputError(
            "invalid_option",
            "a vocabulary pack has its own words: with --vocabulary, --labels takes FOLDER=NAME "
            "entries only, and --negatives cannot be given",
        )
    return VocabularyPack.load(Path(str(path)), encoder_id=bundle.encoder_id), labels


def _few_shot(
    task: Task[DataT, SampleT, ConfigT],
    source: str | None,
    shots: tuple[int, ...],
    config: ConfigT,
    encoder: Encoder[SampleT],
    data: DataT,
    encoded: Encoded,
    pack: VocabularyPack,
    truth: npt.NDArray[np.int64],
    bank: WordBank | None,
) -> list[dict[str, Any]]:
    """Rows of the few-shot curve; examples come from another data set or from the one judged."""
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
    with task.open_examples(source, config) as others:
        words = dict(zip(data.classes, ((pack.names[k],) for k in truth), strict=True))
        meant = match_folders(pack, others.classes, Labels(folders=words), bank)

        def feature(at: int) -> Features | None:
            try:
                sample = task.read(others, at)
            except InputError:
                return None
            counts = encoder.features(sample)
            return counts if counts.any() else None

        pool = ExamplePool(
            meant.tolist(),
            [np.flatnonzero(others.labels == folder) for folder in range(len(meant))],
            feature,
        )
        return few_shot_rows(pack, pool, shots, seeds, encoded.features, labels, None)


def _wrong_answers(
    judged: Judged, pack: VocabularyPack, data: LabelledData, at: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    return [
        {
            "image": data.names[int(at[k])],
            "said": pack.names[judged.answers[k]],
            "probability": float(judged.confidence[k]),
            "is": pack.names[judged.labels[k]],
        }
        for k in most_confident_wrong(judged)
    ]


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _text(result: dict[str, Any], noun: str, plural: str) -> str:
    used = result["energy"]
    lines = [
        f"{result['images']:,} {plural} of {len(result['classes']):,} classes, "
        f"{result['distractors']:,} distractors, {len(result['skipped'])} {plural} skipped",
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
        f"{shown(result['ms_per_image'])} ms per {noun}   "
        f"p50 {shown(result['latency_p50_ms'])} ms   p95 {shown(result['latency_p95_ms'])} ms   "
        f"{result['engine']} {result['precision']}",
    ]
    if used:
        lines.append(
            f"estimated energy {shown(used['student_mj'])} mJ a {used['of']}, "
            f"{shown(used['ratio_to_ann_twin'])} of the ANN twin's"
        )
    lines += [f"skipped {name}: {reason}" for name, reason in [*result["skipped"].items()][:5]]
    return "\n".join(lines)
