# SPDX-License-Identifier: Apache-2.0
"""The end of a training on points or events: calibrate, judge, write the run's folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.network import deployed_form
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.spiking.energy import EnergyReport, energy_report, of_a_window
from spike_perception.spiking.folding import fold_batch_norm, levels
from spike_perception.students.registry import student_config_to_json
from spike_perception.students.student import Student
from spike_perception.training import run_folder
from spike_perception.training.card import markdown, version
from spike_perception.training.config import dump_yaml
from spike_perception.training.evaluate import recalibrate
from spike_perception.training.svl.config import RunConfig

Float = NDArray[np.float32]

#: Clean batches that batch normalisation is calibrated on.
CALIBRATION_BATCHES = 32
ENERGY_SAMPLES = 32


def preprocessing(kind: str, config: RunConfig) -> dict[str, Any]:
    """What a bundle says of its input.

    Args:
        kind: ``points`` or ``events``.
        config: the run's.
    """
    settings = config.settings
    given: dict[str, Any] = {"points": settings.input.points}
    if kind == "points":
        given |= {"channels": ["x", "y", "z"], "normalise": "unit_sphere"}
    else:
        # Windows are scaled when they are cut, see sensing.event_views.event_points.
        given |= {"channels": ["x", "y", "z", "polarity"], "normalise": "none"}
        given["window_ms"] = settings.events.window_ms
        given["window_overlap"] = settings.events.overlap
    if settings.student.precision != "f32":
        given["precision"] = settings.student.precision
    return given


def clean_input(rule: Mapping[str, Any]) -> Callable[[Float], Tensor]:
    """What makes clouds [B, P, 3] the student's input, as robots do; windows stay as they are."""

    def clean(clouds: Float) -> Tensor:
        if clouds.ndim == 4:
            return torch.from_numpy(clouds)
        return torch.from_numpy(np.stack([prepare_points(each, rule) for each in clouds]))

    return clean


def with_statistics(
    student: Student, clean: Sequence[Float], make: Callable[[Float], Tensor]
) -> Student:
    """A copy that is normalised as the finished student will be, for validations on the way.

    Running statistics follow augmented clouds, and averaged weights have none of their own.

    Args:
        student: on any device.
        clean: batches without augmentation.
        make: makes them the student's input, see :func:`clean_input`.
    """
    found, device = copy.deepcopy(student), next(student.parameters()).device
    recalibrate(found, (make(each).to(device) for each in clean))
    return found


@dataclass(eq=False)
class Ending:
    """A trained student on its way to a run folder.

    Attributes:
        kind: ``points`` or ``events``.
        config: of the run.
        student: on the CPU; changed in place.
        command: what made it.
        teacher: its name and hash, or None.
        described: the data in words.
        forms: student as trained and as deployed, by precision, once :meth:`prepare` ran.
        metrics: name and value of every figure.
    """

    kind: str
    config: RunConfig
    student: Student
    command: str
    teacher: dict[str, str] | None
    described: list[str]
    skipped: dict[str, dict[str, str]]
    forms: dict[str, Student] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """The form whose figures count, ``int8`` or ``f32``."""
        return "int8" if self.config.settings.student.precision == "int8" else "f32"

    @property
    def rule(self) -> dict[str, Any]:
        """The bundle's preprocessing."""
        return preprocessing(self.kind, self.config)

    def prepare(self, clean: Sequence[Float], classes: int) -> EnergyReport:
        """Round weights as they are stored, calibrate, make the forms, estimate the energy.

        Args:
            clean: batches without augmentation.
            classes: rows of the head, for the energy.
        """
        if self._half:
            for weight in self.student.parameters():
                weight.copy_(weight.half().float())
        make = clean_input(self.rule)
        recalibrate(self.student, (make(each) for each in clean))
        for form in dict.fromkeys(("f32", self.precision)):
            self.forms[form] = deployed_form(self.student, form)
        sample = make(clean[0][:ENERGY_SAMPLES])
        energy = energy_report(fold_batch_norm(self.student), sample, classes)
        if self.kind == "events":
            energy = of_a_window(energy, self.student.config.steps)
        self.metrics["energy_mj_estimated"] = energy.student_mj
        self.metrics["energy_ratio_to_ann_twin_estimated"] = energy.ratio_to_ann_twin
        self.metrics["mean_firing_rate"] = energy.mean_firing_rate
        return energy

    @property
    def _half(self) -> bool:
        return bool(self.config.settings.student.storage == "float16")

    def bundle(self) -> Bundle:
        """The student with all that robots need."""
        student, half = self.student, self._half
        c: Any = student.config
        written = student_config_to_json(student)
        # Statistics of batch normalisation stay: variances can leave the range of float16.
        halved = {name for name, _ in student.named_parameters()} if half else set()
        tensors = {
            name: (each.half() if name in halved else each).detach().numpy()
            for name, each in student.state_dict().items()
        }
        return Bundle(
            self.kind,
            written["student"],
            written["config"],
            self.rule,
            c.steps,
            levels(student),
            student.feature_dim,
            tensors,
            {
                "command": self.command[:2000],
                "data": self.described[:64],
                "seeds": [self.config.settings.trainer.seed],
                "version": version(),
                "teacher": self.teacher,
            },
            [
                {"name": name, "value": value, "command": self.command[:2000]}
                for name, value in self.metrics.items()
            ][:256],
        )

    def write(
        self,
        bundle: Bundle,
        out: Path,
        energy: EnergyReport,
        *,
        steps: int,
        speed: float,
        what: str,
        reading: str,
        limits: Sequence[str],
    ) -> dict[str, Any]:
        """Bundle, configuration, metrics and card; returns the metrics document.

        Args:
            bundle: from :meth:`bundle`.
            out: folder of the run.
            energy: from :meth:`prepare`.
            steps: of the training.
            speed: of the training (samples/s).
            what: what the model is, a paragraph.
            reading: how to read the figures, a paragraph.
            limits: what it cannot do, a sentence each.
        """
        bundle.save(out / run_folder.BUNDLE)
        text = dump_yaml(self.config.document())
        document = {
            "run": self.config.settings.name,
            "encoder_id": bundle.encoder_id,
            "teacher": self.teacher,
            "data": self.described,
            "skipped": self.skipped,
            "steps": steps,
            "samples_per_second": speed,
            "threads": torch.get_num_threads(),
            "metrics": self.metrics,
            "command": self.command,
        }
        run_folder.write_text(out / run_folder.CONFIG, text)
        card = markdown(
            bundle, document, energy, text, what=what, identity="encoder", reading=reading,
            limits=limits,
            sample="cloud" if self.kind == "points" else "window",
        )  # fmt: skip
        run_folder.write_text(out / run_folder.CARD, card)
        # Last: who finds it finds a finished run.
        run_folder.write_text(
            out / run_folder.METRICS, json.dumps(document, indent=2, allow_nan=False) + "\n"
        )
        return document
