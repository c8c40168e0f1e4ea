# SPDX-License-Identifier: Apache-2.0
"""Fold words into vocabulary packs and word banks for a trained student."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.training.text import TextTeacher, embed_words
from spike_perception.training.words import Entry, Words, load_words
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.calibration import calibrate_rejection, calibrate_temperature
from spike_perception.zero_shot.folding import FoldedText, fold
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.names import normalised
from spike_perception.zero_shot.pack import Teacher as TeacherName
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import METHODS

if TYPE_CHECKING:
    from spike_perception.deploy.bundle import Bundle
    from spike_perception.training.data.images import ImageSet
    from spike_perception.training.run_folder import Projection

Float = NDArray[np.float32]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of a finished spike-train distill or svl")
    parser.add_argument("out", type=Path, help="folder for the files, named by their lists")
    parser.add_argument(
        "--teacher", required=True, help="the run's teacher: folder or open_clip model"
    )
    parser.add_argument("--checkpoint", type=Path, help="weights of an open_clip model")
    parser.add_argument(
        "--texts",
        default="",
        metavar="FILE.npz",
        help="the run's table of texts, where it had one (svl: teacher.texts)",
    )
    parser.add_argument(
        "--pack",
        action="append",
        default=[],
        metavar="LIST",
        help="make a vocabulary pack of this list, by name or file; may be repeated",
    )
    parser.add_argument(
        "--bank",
        action="append",
        default=[],
        metavar="LIST",
        help="make a word bank of this list, by name or file; may be repeated",
    )
    parser.add_argument(
        "--templates",
        default="",
        help="prompt templates; those of the list if not given. Not with --texts, whose table has "
        "a sentence of its own",
    )
    parser.add_argument(
        "--hierarchy", action="store_true", help="keep the headings of a list as coarser classes"
    )
    parser.add_argument(
        "--centre-features",
        action="store_true",
        help="measure spike counts from their mean over the training images",
    )
    parser.add_argument(
        "--calibrate",
        metavar="PATH",
        help="held-out images for temperature and a pack's rule for unknown: one folder a class, "
        "or for packs alone unlabelled, in which case the teacher's own answer counts as the "
        "label; for a student of points, labelled shapes, z up",
    )
    parser.add_argument("--limit", type=int, default=2000, help="calibration images used at most")
    parser.add_argument(
        "--method", default="max_softmax", choices=METHODS[:3], help="score that tells unknown"
    )
    parser.add_argument(
        "--pass-rate",
        type=float,
        default=0.95,
        help="share of held-out images of known classes that shall pass (0 to 1)",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("out/features"), help="folder for teacher's embeddings"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fold, calibrate, write."""
    if not arguments.pack and not arguments.bank:
        raise InputError("invalid_option", "nothing to fold: give --pack LIST or --bank LIST")
    if arguments.limit < 1 or not 0 < arguments.pass_rate <= 1:
        raise InputError(
            "invalid_option",
            f"--limit {arguments.limit} --pass-rate {arguments.pass_rate:g}: limit is at least 1, "
            "the rate above 0 and at most 1",
        )
    if arguments.texts and arguments.templates:
        raise InputError(
            "invalid_option",
            "--templates: the table's names are known in its own sentence alone, and in any other "
            "they would be guessed; leave it out with --texts",
        )
    for given in (arguments.pack, arguments.bank):
        stems = [Path(each).stem for each in given]
        if twice := [each for each in stems if stems.count(each) > 1]:
            raise InputError(
                "invalid_option",
                f"two lists are called {twice[0]}, and files are named by their lists; rename one",
            )
    from spike_perception.training.run_folder import RunFolder
    from spike_perception.training.teachers.text_table import TabledTeacher, reading_teacher

    folder = RunFolder(arguments.run)
    bundle, projection = folder.bundle(), folder.projection()
    lists = {each: load_words(each) for each in (*arguments.pack, *arguments.bank)}
    teacher = reading_teacher(
        arguments.teacher, arguments.checkpoint, arguments.texts, arguments.cache
    )
    check_teacher(projection, teacher.id, teacher.name)
    held_out = _held_out(arguments, bundle, projection, teacher)
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, names in (("pack", arguments.pack), ("bank", arguments.bank)):
        for name in names:
            if isinstance(teacher, TabledTeacher):
                scheme, templates = "the table's", teacher.prompts
            else:
                scheme, templates = templates_of(name, arguments.templates, bundle.kind)
            folder_words = Folder(projection, teacher, templates, arguments.cache)
            folder_words = folder_words.centred() if arguments.centre_features else folder_words
            made: VocabularyPack | WordBank
            found: dict[str, Any] = {}
            if kind == "pack":
                made = folder_words.pack(lists[name], hierarchy=arguments.hierarchy)
                if held_out is not None:
                    made, found = held_out.calibrated(
                        made, lists[name], arguments.method, arguments.pass_rate
                    )
            else:
                made = folder_words.bank(lists[name])
                if held_out is not None:
                    made, found = held_out.calibrated_bank(made)
            suffix = ".bank.safetensors" if kind == "bank" else ".safetensors"
            file = arguments.out / f"{Path(name).stem}{suffix}"
            made.save(file)
            written.append(
                {
                    "file": str(file),
                    "kind": kind,
                    "names": len(made.names),
                    "templates": scheme,
                    "bytes": file.stat().st_size,
                    "temperature": made.temperature,
                    **found,
                }
            )
    result = {"encoder_id": bundle.encoder_id, "teacher": dict(projection.teacher)}
    lines = [
        f"{each['file']}: {each['names']} names, {each['bytes'] / 1e6:.2f} MB"
        + (f", top-1 {each['top_1']:.3f} on {each['images']} images" if "top_1" in each else "")
        for each in written
    ]
    emit(arguments, {**result, "files": written}, "\n".join(lines))
    return 0


def check_teacher(projection: Projection, identity: str, name: str) -> None:
    """Refuse texts of another teacher than the student learnt from.

    Raises:
        InputError: ``wrong_teacher``.
    """
    if identity != projection.teacher["sha256"]:
        raise InputError(
            "wrong_teacher",
            f"the run learnt from {projection.teacher['name']} ({projection.teacher['sha256'][:16]}"
            f"), given is {name} ({identity[:16]}); give the run's own teacher",
        )


def templates_of(name: str, asked: str, kind: str = "image") -> tuple[str, tuple[str, ...]]:
    """Name and sentences of the templates for a list; a point student learnt from its own."""
    from spike_perception.training.words.templates import FOR_LIST, load_templates

    usual = "shapes" if kind == "points" else FOR_LIST.get(name, "general")
    scheme = asked or usual
    return scheme, load_templates(scheme)


@dataclass(frozen=True, eq=False)
class Folder:
    """Folds words for one student.

    Attributes:
        projection: joins its spike counts to the texts.
        teacher: reads the texts.
        templates: sentences with ``{name}``.
        cache: folder for embeddings, or None.
        feature_mean: spike counts that are measured from, or None.
    """

    projection: Projection
    teacher: TextTeacher
    templates: tuple[str, ...]
    cache: Path | None = None
    feature_mean: Float | None = None

    def centred(self) -> Folder:
        """The same, with spike counts measured from their mean over the training images."""
        return Folder(
            self.projection, self.teacher, self.templates, self.cache, self.projection.feature_mean
        )

    def rows(self, entries: Sequence[Entry]) -> FoldedText:
        """Rows of some nouns, each the mean over the prompts of its name.

        Aliases only find a word: a student learns names, and aliases in the mean cost it 1.8
        points on CIFAR-10 and made it take buildings ("edifice") for other things.
        """
        names = [each.name for each in entries]
        texts = embed_words(self.teacher, names, self.templates, self.cache)
        return fold(
            texts,
            projection=self.projection.matrix.T,
            text_mean=self.projection.text_mean,
            feature_mean=self.feature_mean,
        )

    def pack(self, words: Words, *, hierarchy: bool = False) -> VocabularyPack:
        """A vocabulary of a list.

        Args:
            words: the list.
            hierarchy: True to keep headings as coarser classes.
        """
        entries, parents = words.tree() if hierarchy else (words.entries, None)
        return VocabularyPack.of(
            [each.name for each in entries],
            self.rows(entries),
            self.projection.encoder_id,
            parents=parents,
            **self._origin(),
        )

    def bank(self, words: Words) -> WordBank:
        """A word bank of a list."""
        return WordBank.of(
            words.names,
            self.rows(words.entries),
            self.projection.encoder_id,
            words.aliases,
            **self._origin(),
        )

    def _origin(self) -> dict[str, Any]:
        return {
            "prompts": self.templates,
            "teacher": TeacherName(**self.projection.teacher),
            "text_projection_sha256": self.projection.sha256,
            # Until it is calibrated: that of the loss, whose cosines are the teacher's.
            "temperature": 1.0 / self.projection.logit_scale,
        }


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that vocabularies are calibrated on.

    Attributes:
        counts: their spike counts as deployed [N, C].
        classes: words of their class folders; () if unlabelled.
        labels: index into ``classes`` [N].
        features: the teacher's [N, C_T], where there are no labels.
        text_mean: taken from the texts that these are compared with, as from the student's.
        teacher: reads texts.
        cache: folder for embeddings.
    """

    counts: Float
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    features: Float | None
    text_mean: Float
    teacher: TextTeacher
    cache: Path | None

    def calibrated(
        self, pack: VocabularyPack, words: Words, method: str, pass_rate: float
    ) -> tuple[VocabularyPack, dict[str, Any]]:
        """The pack with its temperature and its rule for unknown, and figures of the fit.

        Raises:
            InputError: ``no_calibration_data`` if none of the classes is a word of the list.
        """
        truth = self._named(pack, words) if self.features is None else self._told(pack)
        known = truth >= 0
        if not known.any():
            raise InputError(
                "no_calibration_data",
                f"no class of the calibration images ({', '.join(self.classes[:5])}) is a word of "
                "the list; give images of its classes, or unlabelled ones",
            )
        pack, figures = self._fitted(pack, truth)
        pack = calibrate_rejection(pack, self.counts[known], method, pass_rate)
        threshold = pack.rejection.threshold if pack.rejection else 0.0
        return pack, {**figures, "known_threshold": threshold}

    def calibrated_bank(self, bank: WordBank) -> tuple[WordBank, dict[str, Any]]:
        """The bank with the temperature of a vocabulary made of the images' classes, and figures.

        It gets no rule for unknown: a threshold holds for the words that it was fitted with.

        Raises:
            InputError: ``no_calibration_data`` if fewer than two of the classes are in the bank.
        """
        meant: dict[int, int] = {}  # class to noun
        for index in np.unique(self.labels[self.labels >= 0]).tolist():
            with contextlib.suppress(InputError):  # not every class is a word of the bank
                meant[index] = bank.find(self.classes[index])
        nouns = list(dict.fromkeys(meant.values()))
        if len(nouns) < 2:
            raise InputError(
                "no_calibration_data",
                f"{len(nouns)} of the classes of the calibration images "
                f"({', '.join(self.classes[:5])}) mean a noun of the bank; its temperature needs "
                "labelled images of two nouns at least",
            )
        lookup = np.full(len(self.classes), -1, np.int64)
        for index, noun in meant.items():
            lookup[index] = nouns.index(noun)
        # As a robot gets it: of int8 rows.
        pack = bank.vocabulary([bank.names[noun] for noun in nouns])
        pack, figures = self._fitted(pack, self._truth(lookup))
        return dataclasses.replace(bank, temperature=pack.temperature), {
            **figures,
            "classes": len(nouns),
        }

    def _fitted(
        self, pack: VocabularyPack, truth: NDArray[np.int64]
    ) -> tuple[VocabularyPack, dict[str, Any]]:
        """The pack with its temperature, and figures; ``truth`` [N] is -1 for what is left out."""
        known = truth >= 0
        counts, truth = self.counts[known], truth[known]
        pack = calibrate_temperature(pack, counts, truth)
        figures = {
            "images": len(truth),
            "labels": "teacher" if self.features is not None else "folders",
            "top_1": float((Head(pack).nearest(counts) == truth).mean()),
        }
        return pack, figures

    def _truth(self, lookup: NDArray[np.int64]) -> NDArray[np.int64]:
        """``lookup`` [K] of each image's class, -1 where it has none."""
        return np.where(self.labels >= 0, lookup[self.labels], -1)

    def _named(self, pack: VocabularyPack, words: Words) -> NDArray[np.int64]:
        """Index in the pack of each image's class, -1 where the list lacks it."""
        place = {name: index for index, name in enumerate(pack.names)}
        meaning = {
            normalised(word): place[entry.name]
            for entry in words.entries
            for word in (*entry.aliases, entry.name)
        }
        lookup = np.array([meaning.get(normalised(each), -1) for each in self.classes], np.int64)
        return self._truth(lookup)

    def _told(self, pack: VocabularyPack) -> NDArray[np.int64]:
        """The leaf that the teacher itself chooses for each image, from the texts of the pack."""
        leaves = pack.hierarchy.leaves
        names = [pack.names[index] for index in leaves]
        texts = embed_words(self.teacher, names, pack.prompts, self.cache)
        rows = fold(texts, text_mean=self.text_mean).rows
        chosen = (np.asarray(self.features) @ rows.T).argmax(1)
        return np.asarray(leaves[chosen], np.int64)


def _held_out(
    arguments: argparse.Namespace, bundle: Bundle, projection: Projection, teacher: Any
) -> HeldOut | None:
    if not arguments.calibrate:
        return None
    if bundle.kind == "points":
        return held_out_shapes(
            arguments.calibrate, arguments.limit, bundle, projection, teacher, arguments.cache
        )
    from spike_perception.training.data.images import open_images

    images = open_images(arguments.calibrate, limit=arguments.limit)
    if arguments.bank and not images.classes:
        raise InputError(
            "no_calibration_data",
            f"{arguments.calibrate} has no labels; a word bank is calibrated on labelled images, "
            "one folder a class: give such, or fold the bank by a command of its own",
        )
    return held_out(images, bundle, projection, teacher, arguments.cache)


def held_out_shapes(
    path: str, limit: int, bundle: Bundle, projection: Projection, teacher: Any, cache: Path
) -> HeldOut:
    """Spike counts of labelled shapes as robots compute them.

    Args:
        path: what ``open_point_set`` takes; ``FILE.npz/SPLIT`` for a part.
        limit: shapes at most, evenly over the set.
        bundle: the student.
        projection: of the same run.
        teacher: reads texts.
        cache: folder for its embeddings.

    Raises:
        InputError: ``no_calibration_data`` for shapes without labels, and those of the reader.
    """
    import torch

    from spike_perception.deploy.network import deployed_form, student_of
    from spike_perception.training.evaluate import spike_counts
    from spike_perception.training.svl.result import clean_input
    from spike_perception.training.svl.shapes import open_shapes

    rule = bundle.preprocessing
    shapes = open_shapes(path, points=int(rule["points"]), limit=limit)
    if not shapes.classes:
        raise InputError("no_calibration_data", f"{path} has no labels; give labelled shapes")
    with torch.no_grad():
        network = deployed_form(student_of(bundle), str(rule.get("precision", "f32")))
        counts = spike_counts(network, shapes.points, clean_input(rule))
    words = tuple(normalised(each) for each in shapes.classes)
    mean = projection.text_mean
    return HeldOut(counts, words, shapes.labels, None, mean, teacher, cache)


def held_out(
    images: ImageSet, bundle: Bundle, projection: Projection, teacher: Any, cache: Path
) -> HeldOut:
    """Spike counts of images as robots compute them, and the teacher's features if unlabelled.

    Args:
        images: the set.
        bundle: the student.
        projection: of the same run.
        teacher: asked about unlabelled images.
        cache: folder for its features.
    """
    import torch

    from spike_perception.deploy.network import deployed_form, student_of
    from spike_perception.training.augment import Augment, AugmentConfig
    from spike_perception.training.evaluate import spike_counts
    from spike_perception.training.pixels import sized_pixels
    from spike_perception.training.teachers.features import cached_features

    rule = bundle.preprocessing
    size = (int(rule["input_size"][0]), int(rule["input_size"][1]))
    pixels = sized_pixels(images, rule, size, name=str(images.path.name))
    clean = Augment(AugmentConfig(), size, tuple(rule["mean"]), tuple(rule["std"])).clean
    precision = str(rule.get("precision", "f32"))
    with torch.no_grad():
        network = deployed_form(student_of(bundle), precision)
        counts = spike_counts(network, pixels.pixels, clean)
    features = None
    if not images.classes:
        told = cached_features(teacher, images, cache, None)
        features = np.asarray(told.features[pixels.indices], np.float32)
    words = tuple(normalised(each) for each in images.classes)
    labels = images.labels[pixels.indices]
    return HeldOut(counts, words, labels, features, projection.text_mean, teacher, cache)
