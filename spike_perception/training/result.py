# SPDX-License-Identifier: Apache-2.0
"""The end of a distillation: calibrate, judge, and write what robots and vocabularies need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.network import deployed_form
from spike_perception.spiking.energy import energy_report
from spike_perception.spiking.folding import fold_batch_norm
from spike_perception.students.registry import student_config_to_json
from spike_perception.students.student import Student
from spike_perception.training import run_folder
from spike_perception.training.card import card, version
from spike_perception.training.config import dump_yaml
from spike_perception.training.evaluate import (
    accuracies,
    embedding_scores,
    folded_scores,
    recalibrate,
    spike_counts,
)
from spike_perception.training.objective import Distillation
from spike_perception.training.scene import JudgedSet, Scene

Float = NDArray[np.float32]

#: Clean batches that batch normalisation is calibrated on.
CALIBRATION_BATCHES = 32
ENERGY_IMAGES = 32


def write_run(
    scene: Scene, trained: Distillation, out: Path, command: str, *, steps: int, speed: float
) -> dict[str, Any]:
    """Calibrate, judge, and write bundle, projection, configuration, metrics and card.

    Args:
        scene: what it was trained on.
        trained: student and losses, on the CPU; changed in place.
        out: folder of the run.
        command: what to name as the command that made it.
        steps: of the training.
        speed: of the training (images/s).

    Returns:
        The metrics document.
    """
    settings, student = scene.config.settings, trained.student
    half = settings.student.storage == "float16"
    if half:
        for weight in student.parameters():
            weight.copy_(weight.half().float())
    clean = scene.batches.clean(CALIBRATION_BATCHES)
    sized = [_shrunk(each, scene.size) for each in clean]
    recalibrate(student, (scene.augment.clean(each) for each in sized))
    projection = trained.loss.embedding.weight.detach().float().numpy().copy()
    metrics: list[dict[str, Any]] = []

    def add(name: str, value: float) -> None:
        metrics.append({"name": name, "value": value, "command": command[:2000]})

    own = "int8" if settings.student.precision == "int8" else "f32"
    forms = {each: deployed_form(student, each) for each in dict.fromkeys(("f32", own))}
    for judged in scene.judged:
        for form, network in forms.items():
            counts = spike_counts(network, judged.pixels, scene.augment.clean)
            for name, value in _judge(scene, counts, judged, projection).items():
                add(f"{judged.name}.{form}.{name}", value)
        for name, value in (judged.teacher or {}).items():
            add(f"{judged.name}.teacher.{name}", value)
    counts = spike_counts(forms[own], np.concatenate(sized), scene.augment.clean)
    energy = energy_report(
        fold_batch_norm(student),
        scene.augment.clean(sized[0][:ENERGY_IMAGES]).contiguous(),
        len(scene.words),
    )
    add("energy_mj_estimated", energy.student_mj)
    add("energy_ratio_to_ann_twin_estimated", energy.ratio_to_ann_twin)
    add("mean_firing_rate", energy.mean_firing_rate)
    bundle = _bundle(scene, student, command, metrics)
    bundle.save(out / run_folder.BUNDLE)
    run_folder.Projection(
        projection,
        counts.mean(0),
        scene.text_mean,
        bundle.encoder_id,
        scene.teacher,
        scene.logit_scale,
    ).save(out / run_folder.PROJECTION)
    document = {
        "run": settings.name,
        "encoder_id": bundle.encoder_id,
        "teacher": scene.teacher,
        "data": scene.described,
        "skipped": scene.skipped,
        "steps": steps,
        "images_per_second": speed,
        "threads": torch.get_num_threads(),
        "metrics": {each["name"]: each["value"] for each in metrics},
        "command": command,
    }
    text = dump_yaml(scene.config.document())
    run_folder.write_text(out / run_folder.CONFIG, text)
    run_folder.write_text(
        out / run_folder.METRICS, json.dumps(document, indent=2, allow_nan=False) + "\n"
    )
    run_folder.write_text(out / run_folder.CARD, card(bundle, document, energy, text))
    return document


def _judge(scene: Scene, counts: Float, judged: JudgedSet, projection: Float) -> dict[str, float]:
    """The folded head's accuracy, and for comparison that of the cosine of both towers."""
    folded = folded_scores(counts, judged.texts, projection, scene.text_mean)
    towers = embedding_scores(counts @ projection.T, judged.texts, scene.text_mean)
    return {
        **accuracies(folded, judged.labels),
        "top_1_of_both_towers": accuracies(towers, judged.labels)["top_1"],
    }


def _shrunk(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels stored with a margin at the size that the student takes."""
    height, width = size
    if pixels.shape[1:3] == (height, width):
        return pixels
    return np.stack(
        [cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in pixels]
    ).astype(np.uint8)


def _bundle(scene: Scene, student: Student, command: str, metrics: list[dict[str, Any]]) -> Bundle:
    c: Any = student.config
    described = student_config_to_json(student)
    return Bundle(
        "image",
        described["student"],
        described["config"],
        scene.preprocessing,
        c.steps,
        c.levels if c.neuron == "ilif" else 1,
        student.feature_dim,
        _stored(student, scene.config.settings.student.storage == "float16"),
        {
            "command": command[:2000],
            "data": scene.described[:64],
            "seeds": [scene.config.settings.trainer.seed],
            "version": version(),
            "teacher": scene.teacher,
        },
        metrics[:256],
    )


def _stored(student: Student, half: bool) -> dict[str, NDArray[Any]]:
    """Weights by name; parameters, which have been rounded, as float16 if ``half``.

    Statistics of batch normalisation keep float32: variances can leave float16's range.
    """
    parameters = {name for name, _ in student.named_parameters()}
    return {
        name: (each.half() if half and name in parameters else each).detach().numpy()
        for name, each in student.state_dict().items()
    }
