# SPDX-License-Identifier: Apache-2.0
"""Train a spiking student for points or events on labels, with a head of its own."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.training.run_command import (
    add_configuration,
    add_run_folder,
    add_sets,
    carry_out,
    need_data,
)
from spike_perception.training.svl.command import fitted, resolve
from spike_perception.training.svl.config import FinetuneConfig, ShapeData, preset_names
from spike_perception.zero_shot.names import normalised

if TYPE_CHECKING:
    from torch import nn

    from spike_perception.training.svl.batches import ShapeBatches
    from spike_perception.training.svl.event_batches import EventBatches
    from spike_perception.training.svl.head import FinetuneObjective

Float = NDArray[np.float32]
#: The head in the run's folder, as a vocabulary pack.
VOCABULARY = "vocabulary.safetensors"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_run_folder(parser)
    add_configuration(parser, preset_names(FinetuneConfig), "finetune", teacher=False)
    add_sets(parser, "set.npz,split=train or events.zip,limit=800")
    parser.add_argument(
        "--kind", choices=("points", "events"), default="", help="as setting kind: what data are"
    )
    parser.add_argument(
        "--initial",
        default="",
        metavar="BUNDLE",
        help="as setting student.initial: bundle or run folder to start from; none for random",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, judge, write the run's folder."""
    more: dict[str, object] = {"kind": arguments.kind} if arguments.kind else {}
    if arguments.initial:
        more["student.initial"] = "" if arguments.initial == "none" else arguments.initial
    return carry_out(arguments, resolve(FinetuneConfig, arguments, more), finetune)


def finetune(config: FinetuneConfig, out: Path, command: str) -> dict[str, Any] | None:
    """Train a student with labels and write its run folder.

    Args:
        config: the configuration.
        out: folder of the run.
        command: what to name as the command that made it.

    Returns:
        The metrics document; None in processes of a distributed run that write nothing.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    import torch

    need_data(config)
    scene = FinetuneScene(config)
    trained = fitted(config, scene.objective(), scene, out)
    if not trained.is_first:
        return None
    best: Any = trained.objective.cpu()
    with torch.no_grad():
        return scene.finish(
            best, out, command, steps=trained.steps, speed=trained.samples_per_second
        )


@dataclass(frozen=True, eq=False)
class Labelled:
    """A set with a class a sample.

    Attributes:
        name: in metrics.
        samples: float32 [M, P, 3] clouds, or [M, T, P, 4] windows; empty where only drawn from.
        source: what batches draw from.
        classes: names.
        labels: index into them, int64 [M].
        id: SHA-256 of the content.
    """

    name: str
    samples: Float
    source: Any
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    id: str


class FinetuneScene:
    """Everything a supervised training works on, opened from its configuration."""

    def __init__(self, config: FinetuneConfig) -> None:
        """Open the data.

        Raises:
            InputError: whatever of configuration and data cannot be used.
        """
        import torch

        from spike_perception.students.registry import create_student
        from spike_perception.training.svl.result import clean_input, preprocessing

        s = config.settings
        self.config = config
        torch.manual_seed(s.trainer.seed)
        self.student = create_student(s.student.name, config.overrides)
        width = {"points": 0, "events": 1}[s.kind]
        if getattr(self.student.config, "point_features", None) != width:
            raise InputError(
                "wrong_kind",
                f"{s.student.name} does not take the {3 + width} values of {s.kind}; choose a "
                f"point student and set student.overrides.point_features={width}",
            )
        self.clean = clean_input(preprocessing(s.kind, config))
        self.skipped: dict[str, dict[str, str]] = {}
        learnt = [self._open(each) for each in config.data]
        self.classes = tuple(
            {normalised(name): name for each in learnt for name in each.classes}.values()
        )
        self._place = {normalised(name): k for k, name in enumerate(self.classes)}
        self.described = [f"{each.name}, {len(each.labels)} {s.kind}, {each.id[:16]}"
                          for each in learnt]  # fmt: skip
        self.ids = [each.id for each in learnt]
        self.batches = self._batches(learnt)
        self.judged = [self._open(each, clean=True) for each in config.evaluate]
        self._truth = [self._labels(each) for each in self.judged]

    def _open(self, data: ShapeData, *, clean: bool = False) -> Labelled:
        from spike_perception.training.svl.scene import report_skipped

        opened = self._open_events if self.config.settings.kind == "events" else self._open_shapes
        found, skipped = opened(data, clean)
        if skipped:
            self.skipped[data.name] = dict(skipped)
            report_skipped(data.name, skipped)
        if not found.classes or not len(found.labels):
            raise InputError("no_labels", f"{data.path} has no labels; training needs them")
        return found

    def _open_shapes(self, data: ShapeData, clean: bool) -> tuple[Labelled, dict[str, str]]:
        from spike_perception.training.svl.scene import opened

        del clean
        shapes = opened(data, self.config.settings.input.points)
        known = shapes.labels >= 0
        samples = shapes.points[known]
        labels = shapes.labels[known]
        found = Labelled(data.name, samples, samples, shapes.classes, labels, shapes.id)
        return found, shapes.skipped

    def _open_events(self, data: ShapeData, clean: bool) -> tuple[Labelled, dict[str, str]]:
        from spike_perception.bags.labelled_events import open_event_set
        from spike_perception.training.svl.event_batches import Recordings, window_points

        s = self.config.settings
        recorded = open_event_set(data.path, data.split or None)
        recorded = recorded.take(data.rows(len(recorded)))
        kept = np.flatnonzero(_wanted(recorded.classes, data)[recorded.labels])
        events = [recorded.events(int(index)) for index in kept]
        samples = np.empty((0, 0, 0, 4), np.float32)
        if clean and events:
            rows = [
                window_points(
                    each, recorded.size, s.events, self.student.config.steps, s.input.points
                )
                for each in events
            ]
            samples = np.stack(rows)
        labels = recorded.labels[kept]
        source = Recordings(events, labels, recorded.size)
        found = Labelled(data.name, samples, source, recorded.classes, labels, recorded.id)
        return found, recorded.skipped

    def _labels(self, found: Labelled) -> NDArray[np.int64]:
        """Index into the classes that are learnt.

        Raises:
            InputError: ``unknown_class``.
        """
        missing = [
            name
            for index, name in enumerate(found.classes)
            if normalised(name) not in self._place and (found.labels == index).any()
        ]
        if missing:
            raise InputError(
                "unknown_class",
                f"{found.name} has the class {missing[0]}, which no set of --data has; learn it, "
                "or choose classes with only=",
            )
        lookup = np.array([self._place.get(normalised(each), -1) for each in found.classes])
        return np.asarray(lookup[found.labels], np.int64)

    def _batches(self, learnt: list[Labelled]) -> ShapeBatches | EventBatches:
        from spike_perception.training.svl.batches import ShapeBatches, TrainingShapes
        from spike_perception.training.svl.event_batches import EventBatches, Recordings
        from spike_perception.training.svl.point_augment import PointAugment

        s = self.config.settings
        weights = [each.weight for each in self.config.data]
        if s.kind == "events":
            recordings = [
                Recordings(each.source.events, self._labels(each), each.source.size)
                for each in learnt
            ]
            return EventBatches(
                recordings, weights, s.trainer.batch, s.events, self.student.config.steps,
                s.input.points, self.student.prepare, s.trainer.seed,
            )  # fmt: skip
        shapes = [TrainingShapes(each.source, self._labels(each)) for each in learnt]
        return ShapeBatches(
            shapes, weights, s.trainer.batch, s.input.points, PointAugment(s.augment),
            self.student.prepare, s.trainer.seed,
        )  # fmt: skip

    def objective(self) -> FinetuneObjective:
        """The module to train, with the weights to start from."""
        import torch

        from spike_perception.training.svl.head import ClassHead, FinetuneObjective
        from spike_perception.training.svl.objective import start_from

        s = self.config.settings
        torch.manual_seed(s.trainer.seed)
        head = ClassHead(len(self.classes), self.student.feature_dim, s.head.scale)
        if s.student.initial:
            start_from(Path(s.student.initial), self.student)
        return FinetuneObjective(self.student, head, s.head.smoothing)

    def identity(self) -> dict[str, Any]:
        """All that decides the weights besides the trainer's own settings."""
        return {**self.config.identity(), "data_ids": self.ids}

    def validate(self, objective: nn.Module) -> dict[str, float]:
        """Overall accuracy on every evaluation set."""
        from spike_perception.training.svl.result import CALIBRATION_BATCHES, with_statistics

        trained: Any = objective
        clean = self.batches.clean(CALIBRATION_BATCHES)
        return self._accuracies(trained, with_statistics(trained.student, clean, self.clean), "")

    def _accuracies(self, trained: Any, student: Any, form: str) -> dict[str, float]:
        """By the head as robots have it."""
        from spike_perception.training.evaluate import spike_counts
        from spike_perception.zero_shot.head import Head

        head = Head(trained.head.pack(self.classes, trained.student, "0" * 64))
        found = {}
        for judged, truth in zip(self.judged, self._truth, strict=True):
            counts = spike_counts(student, judged.samples, self.clean)
            right = head.nearest(counts) == truth
            found[f"{judged.name}{form}.overall_accuracy"] = float(right.mean())
        return found

    def finish(
        self, trained: FinetuneObjective, out: Path, command: str, *, steps: int, speed: float
    ) -> dict[str, Any]:
        """Judge and write bundle, head, configuration, metrics and card."""
        from spike_perception.training.svl.result import CALIBRATION_BATCHES, Ending

        s = self.config.settings
        ending = Ending(
            s.kind, self.config, trained.student, command, None, self.described, self.skipped
        )
        energy = ending.prepare(self.batches.clean(CALIBRATION_BATCHES), len(self.classes))
        for form, network in ending.forms.items():
            ending.metrics |= self._accuracies(trained, network, f".{form}")
        bundle = ending.bundle()
        pack = trained.head.pack(self.classes, trained.student, bundle.encoder_id)
        pack.save(out / VOCABULARY)
        start = "weights that were there before" if s.student.initial else "random weights"
        clouds = (
            "points in the unit sphere, z up"
            if s.kind == "points"
            else f"events of each of {bundle.timesteps} windows, one a time step"
        )
        return ending.write(
            bundle,
            out,
            energy,
            steps=steps,
            speed=speed,
            what=f"""Spiking classifier of {s.kind}: {bundle.student}, \
{bundle.parameter_count:,} parameters, input {bundle.preprocessing["points"]}
{clouds}. T = {bundle.timesteps}, D = {bundle.levels}, {bundle.embedding_dim} spike counts.
Trained with labels of {len(self.classes)} classes from {start}; `{VOCABULARY}` holds the classes'
rows and is loaded like any vocabulary.""",
            reading="`f32` and `int8` are the two forms in which robots run it; overall accuracy "
            "is the share of all samples that are named rightly."
            + (" Energies are those of one window." if s.kind == "events" else ""),
            limits=("It knows the classes it learnt and no others.",),
        )


def _wanted(classes: tuple[str, ...], data: ShapeData) -> NDArray[np.bool_]:
    """Which classes of a set are taken, bool [K + 1]; the last is for samples without one.

    Raises:
        InputError: ``unknown_class``.
    """
    names = [normalised(each) for each in classes]
    only = None if data.chosen is None else {normalised(each) for each in data.chosen}
    without = {normalised(each) for each in data.excluded or ()}
    if missing := sorted(((only or set()) | without).difference(names)):
        raise InputError(
            "unknown_class",
            f"{data.path} has no class {', '.join(missing)}; its classes are {', '.join(classes)}",
        )
    kept = [name not in without and (only is None or name in only) for name in names]
    return np.array([*kept, False])
