# SPDX-License-Identifier: Apache-2.0
"""Settings of ``spike-train places``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spike_perception.config import flatten, replace, section, setting, to_flat
from spike_perception.errors import InputError
from spike_perception.training.config import (
    OptimiserConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainerConfig,
    nest,
)
from spike_perception.training.places.views import ViewConfig
from spike_perception.training.vl2spike.config import ManifoldConfig


@dataclass(frozen=True)
class InputConfig:
    """What the student sees; the size is the student's own."""

    patch_small: int = setting(
        5, "first channel: side of the patch a pixel is normalised by (pixels, odd)", minimum=3
    )
    patch_middle: int = setting(9, "second channel, likewise", minimum=3)
    patch_large: int = setting(21, "third channel, likewise", minimum=3)
    floor: float = setting(
        0.05, "added to a patch's deviation (share of full scale)", minimum=1e-4, maximum=1.0
    )


@dataclass(frozen=True)
class SamplingConfig:
    """What is in a batch."""

    traverse_places: int = setting(
        64, "places of traverses in a batch, over all processes", minimum=0
    )
    photos: int = setting(48, "photos in a batch, over all processes", minimum=0)
    neighbourhood: int = setting(
        8, "places of a batch that lie near one another on their traverse", minimum=1
    )
    span: int = setting(40, "frames within which they lie: near enough to be confused", minimum=1)
    same_condition: float = setting(
        0.15, "share of the pairs of a traverse in one condition", minimum=0.0, maximum=1.0
    )
    apart: int = setting(
        2, "frames up to which two places of a traverse are no negatives", minimum=0
    )


@dataclass(frozen=True)
class PlaceLossConfig:
    """The objective."""

    bits: float = setting(1.0, "weight of the loss on signs", minimum=0.0)
    temperature: float = setting(0.07, "temperature at the start", minimum=0.01, maximum=10.0)
    distillation: float = setting(
        0.0, "weight of the teacher's manifold (SVS); 0 trains without a teacher", minimum=0.0
    )
    manifold: ManifoldConfig = section(ManifoldConfig)


@dataclass(frozen=True)
class PlacesSettings:
    """Everything of ``spike-train places`` but the data."""

    name: str = setting("place", "name of the run and of its model")
    dimension: int = setting(
        1024, "floats, or bits, of the descriptor; a multiple of 8", minimum=8, maximum=8192
    )
    student: StudentConfig = dataclasses.field(
        default_factory=lambda: StudentConfig(precision="f32")
    )
    input: InputConfig = section(InputConfig)
    sampling: SamplingConfig = section(SamplingConfig)
    #: Traverses bring real changes of light and season, so little is added; and little is moved,
    #: since views that lie a frame or two apart are what has to be told apart.
    traverse_views: ViewConfig = dataclasses.field(
        default_factory=lambda: ViewConfig(
            shift=0.08,
            min_scale=0.92,
            max_scale=1.1,
            rotation_deg=2.0,
            perspective=0.03,
            still=0.4,
            light=0.5,
            night=0.05,
            snow=0.05,
        )
    )
    photo_views: ViewConfig = dataclasses.field(default_factory=lambda: ViewConfig(still=0.1))
    loss: PlaceLossConfig = section(PlaceLossConfig)
    teacher: TeacherConfig = section(TeacherConfig)
    trainer: TrainerConfig = dataclasses.field(
        default_factory=lambda: TrainerConfig(
            batch=112,
            steps=2200,
            precision="bf16-mixed",
            log_every=20,
            optimiser=OptimiserConfig(learning_rate=3e-3, weight_decay=0.02, clip=5.0),
            schedule=ScheduleConfig(warm_up=0.02, final=0.005),
        )
    )


#: The student that ``spike-train places`` trains if nothing else is said: 128 tokens on 64 x 32
#: pixels, spikes counted in 8 x 4 regions.
STUDENT: Mapping[str, object] = {
    "height": 32,
    "width": 64,
    "first_stride": 1,
    "stem_channels": 32,
    "middle_channels": 64,
    "channels": 128,
    "heads": 4,
    "blocks": 2,
    "mlp_ratio": 2,
    "features": 32,
    "regions_rows": 4,
    "regions_columns": 8,
}


@dataclass(frozen=True)
class PlacesConfig:
    """A whole training.

    Attributes:
        settings: all single settings.
        overrides: settings of the student's own configuration that differ from its preset.
    """

    settings: PlacesSettings = PlacesSettings()
    overrides: Mapping[str, object] = dataclasses.field(default_factory=lambda: dict(STUDENT))

    def __post_init__(self) -> None:
        """Check what no single setting can."""
        s = self.settings
        if s.dimension % 8:
            raise InputError("invalid_setting", f"dimension is {s.dimension}, no multiple of 8")
        if s.sampling.traverse_places % s.sampling.neighbourhood:
            raise InputError(
                "invalid_setting",
                f"sampling.traverse_places is {s.sampling.traverse_places}, no multiple of "
                f"sampling.neighbourhood, {s.sampling.neighbourhood}",
            )
        if s.sampling.span < s.sampling.neighbourhood:
            raise InputError(
                "invalid_setting",
                f"sampling.span is {s.sampling.span}: no room for sampling.neighbourhood, "
                f"{s.sampling.neighbourhood}",
            )

    def changed(self, values: Mapping[str, object]) -> PlacesConfig:
        """A copy with some dotted paths changed; ``student.overrides.X`` is the student's X.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        prefix = "student.overrides."
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        rest = {k: v for k, v in values.items() if not k.startswith(prefix)}
        return PlacesConfig(replace(self.settings, rest), {**self.overrides, **own})

    def document(self) -> dict[str, Any]:
        """Plain nested values, as a YAML file holds them."""
        nested = nest(to_flat(self.settings))
        nested["student"]["overrides"] = dict(self.overrides)
        return nested

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PlacesConfig:
        """From nested values; what is absent keeps its default.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        return cls().changed(flatten(dict(document)))
