# SPDX-License-Identifier: Apache-2.0
"""Settings of ``spike-train svl`` and ``spike-train finetune``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.folder_files import spread
from spike_perception.config import flatten, from_flat, replace, section, setting, to_flat
from spike_perception.errors import InputError
from spike_perception.training.config import (
    OptimiserConfig,
    StudentConfig,
    TrainerConfig,
    load_yaml,
    nest,
    parse_setting,
)
from spike_perception.training.svl.mta import MTAConfig
from spike_perception.training.svl.point_augment import PointAugmentConfig

PRESETS = Path(__file__).parent / "presets"

#: Lists of classes that ``only`` and ``without`` take by name.
CLASS_LISTS: Mapping[str, tuple[str, ...]] = {
    # The ten of ModelNet10, and the other thirty of ModelNet40.
    "modelnet10": (
        "bathtub",
        "bed",
        "chair",
        "desk",
        "dresser",
        "monitor",
        "night stand",
        "sofa",
        "table",
        "toilet",
    ),
    "modelnet30": (
        "airplane",
        "bench",
        "bookshelf",
        "bottle",
        "bowl",
        "car",
        "cone",
        "cup",
        "curtain",
        "door",
        "flower pot",
        "glass box",
        "guitar",
        "keyboard",
        "lamp",
        "laptop",
        "mantel",
        "person",
        "piano",
        "plant",
        "radio",
        "range hood",
        "sink",
        "stairs",
        "stool",
        "tent",
        "tv stand",
        "vase",
        "wardrobe",
        "xbox",
    ),
}
_PREFIX = "student.overrides."
T = TypeVar("T", bound="RunConfig")


@dataclass(frozen=True)
class ShapeData:
    """One set of shapes, or of event recordings."""

    path: str = setting("", "what open_point_set, or open_event_set, takes")
    split: str = setting("", "part of the set, such as train")
    up: str = setting("", "axis that points up in the file, y or z; empty: z")
    labels: bool = setting(True, "learn its class names; false: from its pictures alone")
    only: str = setting(
        "", "keep these classes, with + between them; or a list by name, such as modelnet10"
    )
    without: str = setting(
        "",
        "leave these classes out, shapes and names, and whatever else may show one (points: see "
        "shapes.KIN, by which modelnet10 takes the tv stand along); as only",
    )
    weight: float = setting(1.0, "how often a sample is drawn, relative to others", minimum=1e-6)
    first: int = setting(
        0, "of recordings: the first so many alone, in natural order of names; 0: all", minimum=0
    )
    last: int = setting(0, "of recordings: the last so many alone; 0: all", minimum=0)
    limit: int = setting(
        0, "take at most so many samples, evenly over the set; 0 for all", minimum=0
    )

    @property
    def name(self) -> str:
        """What to call it in logs and metrics."""
        path = Path(self.path)
        inside = path.parent.suffix in (".npz", ".zip")
        parts = [path.parent.stem, path.name] if inside else [path.stem]
        parts += [self.split] if self.split else []
        chosen = "".join(
            f"[{key}={value}]"
            for key, value in (
                ("only", self.only),
                ("without", self.without),
                ("first", self.first),
                ("last", self.last),
            )
            if value
        )
        return "/".join(parts) + chosen

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """Classes to keep; None for all."""
        return class_list(self.only)

    def rows(self, count: int) -> NDArray[np.int64]:
        """Positions that ``first``, ``last`` and ``limit`` leave of so many recordings."""
        begin = max(0, count - self.last) if self.last else 0
        rows = np.arange(begin, min(count, self.first or count))
        return rows[spread(len(rows), self.limit or None)]

    @property
    def excluded(self) -> tuple[str, ...] | None:
        """Classes to leave out; None for none."""
        return class_list(self.without)


def class_list(text: str) -> tuple[str, ...] | None:
    """The classes of ``a+b`` or of a list by its name; None for an empty text."""
    if not text:
        return None
    return CLASS_LISTS.get(text) or tuple(each.strip() for each in text.split("+") if each.strip())


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher, and the pictures of shapes that are shown to it."""

    name: str = setting("", "open_clip model, or folder that spike-train teacher wrote")
    checkpoint: str = setting("", "weights of an open_clip model; a folder has its own")
    texts: str = setting(
        "",
        "FILE.npz of names and another model's embeddings of them, such as CLIP's (arrays names "
        "and features; synonyms and prompt if there are): words are compared in that space, in the "
        "table's own prompt, and pictures in the teacher's by a projection of their own",
    )
    cache: str = setting("out/features", "folder for the teacher's features")
    views: int = setting(3, "pictures of every shape, from as many sides", minimum=1, maximum=24)
    centre: bool = setting(
        False,
        "take the mean over a set's pictures from every image feature: what all pictures share "
        "says nothing of the shape",
    )
    evaluate: bool = setting(True, "measure the teacher on pictures of the evaluation sets too")


@dataclass(frozen=True)
class TextConfig:
    """The names that points are compared with."""

    templates: str = setting(
        "shapes", "prompt templates, see training/words/templates.py; not with teacher.texts"
    )
    centre: bool = setting(
        False, "take the mean over the names from every text embedding (less modality gap)"
    )


@dataclass(frozen=True)
class PointInputConfig:
    """Points between sensor and student."""

    points: int = setting(
        1024, "points of a cloud, or of a window of events", minimum=1, maximum=65536
    )


@dataclass(frozen=True)
class SVLSettings:
    """Everything of ``spike-train svl`` but the data."""

    name: str = setting("points", "name of the run and of its model")
    student: StudentConfig = dataclasses.field(
        default_factory=lambda: StudentConfig(name="pointformer-s")
    )
    teacher: TeacherConfig = section(TeacherConfig)
    text: TextConfig = section(TextConfig)
    input: PointInputConfig = section(PointInputConfig)
    #: AdamW's betas, decay and rate are those of the released configuration for PointFormer.
    trainer: TrainerConfig = dataclasses.field(
        default_factory=lambda: TrainerConfig(
            batch=128,
            epochs=20.0,
            precision="bf16-mixed",
            optimiser=OptimiserConfig(learning_rate=3e-3, weight_decay=0.1, beta2=0.98),
        )
    )
    augment: PointAugmentConfig = section(PointAugmentConfig)
    loss: MTAConfig = section(MTAConfig)


@dataclass(frozen=True)
class ComparisonConfig:
    """Which runs ``spike-train svl-ablation`` compares."""

    rows: str = setting("none,image,text,both,mse", "rows of the table of losses, see ROWS")
    grid: str = setting("1x2,2x1,2x2,1x4,4x1", "T x D of the table of time steps and levels")
    seeds: int = setting(3, "seeds of every row and every T x D", minimum=1, maximum=100)
    workers: int = setting(1, "runs at a time, each in a process of its own", minimum=1)


@dataclass(frozen=True)
class AblationSettings(SVLSettings):
    """Everything of ``spike-train svl-ablation`` but the data."""

    compare: ComparisonConfig = section(ComparisonConfig)


@dataclass(frozen=True)
class EventAugmentConfig:
    """Random changes of a recording while training."""

    shift: float = setting(0.1, "greatest shift in x and y (half the longer side)", minimum=0.0)
    scale: float = setting(0.15, "greatest change of size, share", minimum=0.0, maximum=0.9)
    rotation_deg: float = setting(12.0, "greatest rotation in the image (degrees)", minimum=0.0)
    late: float = setting(
        0.2, "latest start, share of a T-th of the recording", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class EventInputConfig:
    """How recordings are cut; every window is a time step of the student."""

    window_ms: float = setting(
        0.0, "length of a window (ms); 0: the recording in T equal windows", minimum=0.0
    )
    overlap: float = setting(
        0.0, "share of a window that the next one repeats", minimum=0.0, maximum=0.95
    )
    augment: EventAugmentConfig = section(EventAugmentConfig)


@dataclass(frozen=True)
class HeadConfig:
    """The classes' rows, learnt with the student."""

    smoothing: float = setting(
        0.1, "share of the label that all classes divide among them", minimum=0.0, maximum=0.9
    )
    scale: float = setting(16.0, "factor of the cosines at the start", minimum=1.0, maximum=100.0)


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything of ``spike-train finetune`` but the data."""

    name: str = setting("points", "name of the run and of its model")
    kind: str = setting("points", "what the data are", choices=("points", "events"))
    student: StudentConfig = dataclasses.field(
        default_factory=lambda: StudentConfig(name="pointformer-s")
    )
    input: PointInputConfig = section(PointInputConfig)
    trainer: TrainerConfig = dataclasses.field(
        default_factory=lambda: TrainerConfig(
            batch=64,
            epochs=20.0,
            precision="bf16-mixed",
            optimiser=OptimiserConfig(learning_rate=2e-3, weight_decay=0.05, beta2=0.98),
        )
    )
    augment: PointAugmentConfig = section(PointAugmentConfig)
    events: EventInputConfig = section(EventInputConfig)
    head: HeadConfig = section(HeadConfig)


@dataclass(frozen=True)
class RunConfig:
    """A whole training.

    Attributes:
        settings: all single settings.
        overrides: settings of the student's own configuration that differ from its preset.
        data: sets to learn from.
        evaluate: labelled sets to judge by, never learnt from.
    """

    settings_type: ClassVar[type]
    settings: Any
    overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
    data: tuple[ShapeData, ...] = ()
    evaluate: tuple[ShapeData, ...] = ()

    def changed(self: T, values: Mapping[str, object]) -> T:
        """A copy with some dotted paths changed; ``student.overrides.X`` is the student's X.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        own = {k.removeprefix(_PREFIX): v for k, v in values.items() if k.startswith(_PREFIX)}
        rest = {k: v for k, v in values.items() if not k.startswith(_PREFIX)}
        return dataclasses.replace(
            self,
            settings=replace(self.settings, rest),
            overrides={**self.overrides, **own},
        )

    def document(self) -> dict[str, Any]:
        """Plain nested values, as a YAML file holds them."""
        nested = nest(to_flat(self.settings))
        nested["student"]["overrides"] = dict(self.overrides)
        for key, sets in (("data", self.data), ("evaluate", self.evaluate)):
            nested[key] = [to_flat(each) for each in sets]
        return nested

    def identity(self) -> dict[str, Any]:
        """What of the configuration decides the weights, besides the trainer's own settings."""
        document = self.document()
        for key in ("trainer", "evaluate", "name"):
            document.pop(key)
        # Where the teacher and its texts lie decides nothing: what they are is in the teacher's id.
        for key in ("cache", "name", "texts", "evaluate"):
            document.get("teacher", {}).pop(key, None)
        return document

    @classmethod
    def of(cls: type[T], document: Mapping[str, Any]) -> T:
        """From nested values; what is absent keeps its default.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        rest = dict(document)
        data, judged = (_sets(key, rest.pop(key, None) or []) for key in ("data", "evaluate"))
        return cls(cls.settings_type(), {}, data, judged).changed(flatten(rest))

    @classmethod
    def load(cls: type[T], name: str) -> T:
        """From a preset by its name, or from a YAML file.

        Raises:
            InputError: ``config_missing``, ``bad_config``, ``unknown_setting`` or
                ``invalid_setting``; the message names the file.
        """
        preset = PRESETS / f"{name}.yaml"
        try:
            return cls.of(load_yaml(preset if preset.is_file() else name))
        except InputError as error:
            raise InputError(error.reason, f"{name}: {error}") from error


@dataclass(frozen=True)
class SVLConfig(RunConfig):
    """Of ``spike-train svl``."""

    settings_type = SVLSettings
    settings: SVLSettings = SVLSettings()


@dataclass(frozen=True)
class AblationConfig(RunConfig):
    """Of ``spike-train svl-ablation``."""

    settings_type = AblationSettings
    settings: AblationSettings = AblationSettings()

    def recipe(self) -> SVLConfig:
        """What all runs share."""
        shared = {
            each.name: getattr(self.settings, each.name) for each in dataclasses.fields(SVLSettings)
        }
        return SVLConfig(SVLSettings(**shared), self.overrides, self.data, self.evaluate)


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Of ``spike-train finetune``."""

    settings_type = FinetuneSettings
    settings: FinetuneSettings = FinetuneSettings()


def parse_entry(text: str) -> ShapeData:
    """``PATH[,SETTING=VALUE...]`` of a command line, such as ``set.npz,split=dev,only=bed+sofa``.

    Raises:
        InputError: ``unknown_setting`` or ``invalid_setting``.
    """
    path, *rest = text.split(",")
    return from_flat(ShapeData, {"path": path, **dict(parse_setting(each) for each in rest)})


def preset_names(kind: type[RunConfig]) -> tuple[str, ...]:
    """Configurations that come with the command of this kind."""

    def fits(name: str) -> bool:
        try:
            kind.load(name)
        except InputError:
            return False
        return True

    return tuple(filter(fits, sorted(each.stem for each in PRESETS.glob("*.yaml"))))


def _sets(key: str, entries: object) -> tuple[ShapeData, ...]:
    if not isinstance(entries, Sequence) or not all(isinstance(each, Mapping) for each in entries):
        raise InputError("invalid_setting", f"{key} is a list of sets, each with path and so on")
    return tuple(from_flat(ShapeData, flatten(each)) for each in entries)
