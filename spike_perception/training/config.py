# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run: frozen dataclasses, read from and written to YAML."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from spike_perception.config import (
    flatten,
    from_flat,
    replace,
    section,
    setting,
    to_flat,
)
from spike_perception.errors import InputError
from spike_perception.training.augment import AugmentConfig
from spike_perception.training.vl2spike.config import VL2SpikeConfig

PRESETS = Path(__file__).parent / "presets"
MAX_YAML_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW; parameters with one axis (norms, biases, scales) do not decay."""

    learning_rate: float = setting(1e-3, "learning rate at its peak", minimum=0.0)
    weight_decay: float = setting(0.05, "decoupled weight decay", minimum=0.0)
    beta1: float = setting(0.9, "decay of the gradient's average", minimum=0.0, maximum=0.9999)
    beta2: float = setting(0.99, "decay of the squares' average", minimum=0.0, maximum=0.99999)
    clip: float = setting(1.0, "greatest norm of the gradient; 0 for no limit", minimum=0.0)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the training."""

    kind: str = setting(
        "cosine",
        "cosine: linear warm-up, then a cosine; one_cycle: both halves cosines; constant: warm-up",
        choices=("cosine", "one_cycle", "constant"),
    )
    warm_up: float = setting(
        0.05, "share of the training in which the rate rises", minimum=0.0, maximum=0.9
    )
    final: float = setting(
        0.01, "learning rate at the end, share of the peak", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class TrainerConfig:
    """What the loop needs to know, whatever it trains."""

    seed: int = setting(0, "seed of weights, order and augmentation", minimum=0)
    batch: int = setting(64, "samples a step, over all processes", minimum=1)
    epochs: float = setting(10.0, "passes over the data, if steps is 0", minimum=0.0)
    steps: int = setting(0, "steps of the optimiser; 0 goes by epochs", minimum=0)
    precision: str = setting(
        "32-true",
        "precision: bf16-mixed is quicker where the processor has bfloat16",
        choices=("32-true", "bf16-mixed", "16-mixed"),
    )
    accelerator: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    threads: int = setting(0, "threads of a CPU process; 0 leaves torch's choice", minimum=0)
    average: float = setting(
        0.0,
        "share of the old value in the moving average of the weights; 0 for none",
        minimum=0.0,
        maximum=0.99999,
    )
    log_every: int = setting(20, "steps between log entries", minimum=1)
    checkpoint_every: int = setting(
        200, "steps between checkpoints; 0 writes one at the end and on signals", minimum=0
    )
    validate_every: int = setting(
        0, "steps between validations; 0 validates at the end alone", minimum=0
    )
    optimiser: OptimiserConfig = section(OptimiserConfig)
    schedule: ScheduleConfig = section(ScheduleConfig)


#: Leaves that change what is written down and when, but not what is computed.
WITHOUT_EFFECT = ("log_every", "checkpoint_every", "validate_every")


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher and what is kept of it."""

    name: str = setting("", "open_clip model, or folder that spike-train teacher wrote")
    checkpoint: str = setting("", "weights of an open_clip model; a folder has its own")
    token_dimensions: int = setting(
        128, "principal components kept of the teacher's tokens", minimum=1, maximum=4096
    )
    cache: str = setting("out/features", "folder for the teacher's features")
    evaluate: bool = setting(True, "measure the teacher on the evaluation sets too")


@dataclass(frozen=True)
class VocabularyConfig:
    """The words that logits are compared against."""

    words: str = setting("coco", "lists by name, or files, between commas; empty for none")
    templates: str = setting("general", "prompt templates, see training/words/templates.py")
    centre: bool = setting(
        False, "take the mean over the words from every text embedding (less modality gap)"
    )


@dataclass(frozen=True)
class StudentConfig:
    """The student; its own settings that differ are in ``overrides`` of the whole."""

    name: str = setting("spikformer-s", "student of the registry")
    initial: str = setting("", "bundle, run folder or checkpoint whose weights to start from")
    precision: str = setting(
        "int8", "how robots run it, see docs/deploy.md", choices=("int8", "f32", "bf16")
    )
    storage: str = setting(
        "float16",
        "how weights are stored; rounded before they are judged, so figures hold",
        choices=("float16", "float32"),
    )


@dataclass(frozen=True)
class ImageConfig:
    """Pixels between file and student."""

    mean: float = setting(0.45, "mean of values scaled to 0..1, all channels")
    std: float = setting(0.25, "standard deviation of values scaled to 0..1", minimum=1e-3)
    margin: float = setting(
        0.1,
        "images are kept larger than the student's input by this share, for crops",
        minimum=0.0,
        maximum=2.0,
    )


@dataclass(frozen=True)
class DistillSettings:
    """Everything of ``spike-train distill`` but the data."""

    name: str = setting("camera", "name of the run and of its model")
    student: StudentConfig = section(StudentConfig)
    teacher: TeacherConfig = section(TeacherConfig)
    vocabulary: VocabularyConfig = section(VocabularyConfig)
    image: ImageConfig = section(ImageConfig)
    trainer: TrainerConfig = section(TrainerConfig)
    augment: AugmentConfig = section(AugmentConfig)
    loss: VL2SpikeConfig = section(VL2SpikeConfig)


@dataclass(frozen=True)
class DataConfig:
    """One image set."""

    path: str = setting("", "folder, FILE.zip or FILE.zip/FOLDER")
    split: str = setting("", "sub-folder that holds the set, such as train")
    labels: bool = setting(False, "learn from its labels")
    words: str = setting("", "classes.tsv with the words of its class folders, if these are codes")
    weight: float = setting(1.0, "how often a sample is drawn, relative to others", minimum=1e-6)
    limit: int = setting(
        0, "take at most so many images, evenly over the set; 0 for all", minimum=0
    )

    @property
    def name(self) -> str:
        """What to call it in logs and metrics."""
        parts = [*Path(self.path).parts, *([self.split] if self.split else [])]
        zipped = [index for index, part in enumerate(parts) if part.endswith(".zip")]
        start = zipped[0] if zipped else -1
        if not zipped and len(parts) > 1 and parts[-1] in ("train", "test", "val", "validation"):
            start = -2
        return "/".join(part.removesuffix(".zip") for part in parts[start:])


@dataclass(frozen=True)
class DistillConfig:
    """A whole distillation.

    Attributes:
        settings: all single settings.
        overrides: settings of the student's own configuration that differ from its preset.
        data: image sets to learn from.
        evaluate: labelled image sets to judge by; their labels are never learnt from.
    """

    settings: DistillSettings = DistillSettings()
    overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
    data: tuple[DataConfig, ...] = ()
    evaluate: tuple[DataConfig, ...] = ()

    def changed(self, values: Mapping[str, object]) -> DistillConfig:
        """A copy with some dotted paths changed; ``student.overrides.X`` is the student's X.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        prefix = "student.overrides."
        own = {
            path.removeprefix(prefix): v for path, v in values.items() if path.startswith(prefix)
        }
        rest = {path: value for path, value in values.items() if not path.startswith(prefix)}
        return dataclasses.replace(
            self,
            settings=replace(self.settings, rest),
            overrides={**self.overrides, **own},
        )

    def document(self) -> dict[str, Any]:
        """Plain nested values, as the YAML file holds them."""
        nested = nest(to_flat(self.settings))
        if self.overrides:
            nested["student"]["overrides"] = dict(self.overrides)
        for key, sets in (("data", self.data), ("evaluate", self.evaluate)):
            nested[key] = [to_flat(each) for each in sets]
        return nested

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> DistillConfig:
        """From nested values; what is absent keeps its default.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        rest = dict(document)
        lists = {key: rest.pop(key, None) or [] for key in ("data", "evaluate")}
        overrides: Mapping[str, object] = {}
        if isinstance(rest.get("student"), Mapping):
            student = dict(rest["student"])
            overrides = student.pop("overrides", None) or {}
            rest["student"] = student
        if not isinstance(overrides, Mapping):
            raise InputError("invalid_setting", "student.overrides is no mapping of settings")
        sets: dict[str, tuple[DataConfig, ...]] = {}
        for key, entries in lists.items():
            if not isinstance(entries, Sequence) or not all(
                isinstance(each, Mapping) for each in entries
            ):
                raise InputError(
                    "invalid_setting", f"{key} is a list of image sets, each with path and so on"
                )
            sets[key] = tuple(from_flat(DataConfig, flatten(each)) for each in entries)
        return cls(from_flat(DistillSettings, flatten(rest)), dict(overrides), **sets)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{dotted path: value}`` as nested mappings."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for each in parents:
            inner = inner.setdefault(each, {})
        inner[last] = value
    return nested


def preset_names() -> tuple[str, ...]:
    """Configurations that come with the package."""
    return tuple(sorted(each.stem for each in PRESETS.glob("*.yaml")))


def load_yaml(name: str | Path) -> dict[str, Any]:
    """A configuration's nested values, from a preset by its name or from a file.

    Raises:
        InputError: ``config_missing`` or ``bad_config``.
    """
    import yaml

    path = PRESETS / f"{name}.yaml" if str(name) in preset_names() else Path(name)
    if not path.is_file():
        raise InputError(
            "config_missing",
            f"{name} is neither a YAML file nor one of the presets {', '.join(preset_names())}",
        )
    if path.stat().st_size > MAX_YAML_BYTES:
        raise InputError("bad_config", f"{path} is larger than {MAX_YAML_BYTES} bytes")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError("bad_config", f"{path} is no YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(each, str) for each in document):
        raise InputError("bad_config", f"{path} holds no mapping of settings")
    return document


def load_config(name: str | Path) -> DistillConfig:
    """A distillation's configuration, by preset or file.

    Raises:
        InputError: see :func:`load_yaml` and :meth:`DistillConfig.of`; the message names the file.
    """
    try:
        return DistillConfig.of(load_yaml(name))
    except InputError as error:
        raise InputError(error.reason, f"{name}: {error}") from error


def dump_yaml(document: Mapping[str, Any]) -> str:
    """Nested values as YAML text, in their order."""
    import yaml

    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True))


def parse_setting(text: str) -> tuple[str, object]:
    """``PATH=VALUE`` of a command line; the value is read as YAML reads it.

    Raises:
        InputError: ``invalid_setting``.
    """
    import yaml

    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError("invalid_setting", f"{text!r} is no PATH=VALUE")
    try:
        found = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise InputError("invalid_setting", f"{text!r}: the value is no YAML: {error}") from error
    if isinstance(found, str):
        # YAML 1.1 takes 1e-3 for a word.
        with contextlib.suppress(ValueError):
            found = float(found)
    return path.strip(), found


def parse_data(text: str) -> DataConfig:
    """``PATH[,SETTING=VALUE...]`` of a command line, such as ``set.zip/train,labels=true``.

    Raises:
        InputError: ``unknown_setting`` or ``invalid_setting``.
    """
    path, *rest = text.split(",")
    return from_flat(DataConfig, {"path": path, **dict(parse_setting(each) for each in rest)})
