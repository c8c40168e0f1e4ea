# SPDX-License-Identifier: Apache-2.0
"""One run of the ablation: train, judge on the test images, count energy."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spike_perception.config import replace
from spike_perception.identity import sha256_json
from spike_perception.spiking.energy import energy_report
from spike_perception.spiking.folding import fold_batch_norm
from spike_perception.students.registry import create_student
from spike_perception.students.student import Student
from spike_perception.training.ablation.config import AblationConfig
from spike_perception.training.ablation.rows import ROWS, Run
from spike_perception.training.ablation.sets import LearningSet
from spike_perception.training.augment import Augment
from spike_perception.training.batches import DistillBatches, TrainingSet
from spike_perception.training.evaluate import recalibrate
from spike_perception.training.objective import Distillation
from spike_perception.training.scene import input_size
from spike_perception.training.trainer import fit
from spike_perception.training.vl2spike.manifold import Basis
from spike_perception.training.vl2spike.total import TeacherBatch, VL2SpikeLoss
from spike_perception.zero_shot.folding import fold

RESULT = "result.json"
ENERGY_IMAGES = 32
#: Clean batches that batch normalisation is calibrated on.
CALIBRATION_BATCHES = 16
TEST_BATCH = 250


class LinearlyClassified(Distillation):
    """Distillation whose cross-entropy is over a learned linear layer on the spike counts.

    The layer normalises each channel first: counts are far from zero mean. Both are affine, so a
    robot would run one matrix, as for the text head.
    """

    def __init__(self, student: Student, loss: VL2SpikeLoss, classes: int) -> None:
        """Join them with a new layer."""
        super().__init__(student, loss)
        self.head = nn.Sequential(
            nn.BatchNorm1d(student.feature_dim), nn.Linear(student.feature_dim, classes)
        )

    def forward(
        self, batch: dict[str, Tensor], progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As :class:`Distillation`."""
        trace = self.student.trace(batch["images"], record=self.loss.record)
        logits = self.logits(trace.counts)
        told = TeacherBatch(batch["features"])
        generator = torch.Generator().manual_seed(seed)
        found = self.loss(trace, told, batch["labels"], progress, generator, logits)
        shown = found.terms if detail else {}
        return found.total, {f"loss/{name}": term for name, term in shown.items()}

    def logits(self, counts: Tensor) -> Tensor:
        """Logits [T, B, K] of counts [T, B, C]."""
        with torch.autocast(counts.device.type, enabled=False):
            flat: Tensor = self.head(counts.float().flatten(0, 1))
            return flat.reshape(*counts.shape[:2], -1)


def run_identity(run: Run, config: AblationConfig, ids: Sequence[str]) -> str:
    """SHA-256 of all that decides a run's result.

    Args:
        run: the run.
        config: the ablation.
        ids: of its set, of the set that the tokens' basis was fitted on, of the teacher.
    """
    recipe = config.document()["recipe"]
    for name in ("cache", "name", "evaluate", "checkpoint"):
        recipe["teacher"].pop(name)
    recipe.pop("name")
    for name in ("log_every", "checkpoint_every", "seed"):
        recipe["trainer"].pop(name)
    return sha256_json([run.key, recipe, list(ids)])


def run_folder(out: Path, run: Run, identity: str) -> Path:
    """Folder of a run; other settings have another."""
    return out / "runs" / f"{run.key}-{identity[:8]}"


def make_student(run: Run, config: AblationConfig) -> Student:
    """The run's student, with random weights of its seed.

    An initial potential needs a membrane, so W2 is without effect for one step of I-LIF.
    """
    overrides = {**config.overrides, "steps": run.steps, "levels": run.levels}
    if ROWS[run.row].initial and (run.steps > 1 or overrides.get("neuron") == "lif"):
        overrides["learn_initial"] = True
    torch.manual_seed(run.seed)
    return create_student(config.recipe.student.name, overrides)


def carry_out(
    run: Run, learning: LearningSet, config: AblationConfig, out: Path, identity: str, command: str
) -> dict[str, Any]:
    """Train and judge; the result is written last, and whole.

    Args:
        run: what to train.
        learning: its image set.
        config: the ablation.
        out: the ablation's folder.
        identity: of :func:`run_identity`.
        command: what to name as the command that repeats it.

    Returns:
        The result as it is written.

    Raises:
        InputError: as ``trainer.fit``.
        Stopped: after a signal; the same call goes on.
    """
    started = time.perf_counter()
    trainer = replace(config.recipe.trainer, {"seed": run.seed})
    student = make_student(run, config)
    parameters = sum(each.numel() for each in student.parameters())
    size = input_size(student)
    objective = _objective(run, student, learning, config)
    batches = batches_of(run, learning, config)
    augment = batches.augment
    labelled = len(batches.sets[0].labels)
    steps = (
        learning.config.steps
        or trainer.steps
        or max(1, round(trainer.epochs * labelled / trainer.batch))
    )
    folder = run_folder(out, run, identity)
    trained = fit(objective, batches, steps, folder, trainer, identity={"run": identity})
    best: Any = trained.objective.cpu()
    clean = [_shrunk(each, size) for each in batches.clean(min(CALIBRATION_BATCHES, steps))]
    recalibrate(best.student, (augment.clean(each) for each in clean))
    by_step = _accuracy_by_step(best, learning, augment)
    energy = energy_report(
        fold_batch_norm(best.student),
        augment.clean(learning.test_pixels[:ENERGY_IMAGES]).contiguous(),
        len(learning.words),
    )
    result = {
        "key": run.key,
        "set": run.set,
        "row": run.row,
        "steps": run.steps,
        "levels": run.levels,
        "seed": run.seed,
        "accuracy": by_step[-1],
        "accuracy_by_step": by_step,
        "energy_mj": energy.student_mj,
        "energy_ratio": energy.ratio_to_ann_twin,
        "mean_rate": energy.mean_firing_rate,
        "parameters": parameters,
        "labelled_images": labelled,
        "unlabelled_images": sum(len(each.labels) for each in batches.sets[1:]),
        "test_images": len(learning.test_labels),
        "training_steps": steps,
        "seconds": time.perf_counter() - started,
        "identity": identity,
        "command": command,
    }
    partial = folder / f".{RESULT}"
    partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / RESULT)
    for each in folder.iterdir():  # weights and logs of a hundred runs are of no use
        if each.name != RESULT:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    return result


def read_result(folder: Path, identity: str) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("identity") != identity:
        return None
    return found


def batches_of(run: Run, learning: LearningSet, config: AblationConfig) -> DistillBatches:
    """Batches of labelled images, half of each unlabelled where the row learns from such."""
    recipe, row = config.recipe, ROWS[run.row]
    labelled, unlabelled = learning.chosen(run.seed)
    parts = [(labelled, learning.labels[labelled])]
    if row.without_labels and len(unlabelled):
        parts.append((unlabelled, np.full(len(unlabelled), -1, np.int64)))
    size = (learning.test_pixels.shape[1], learning.test_pixels.shape[2])
    return DistillBatches(
        [
            TrainingSet(learning.pixels[r], learning.features[r], learning.tokens, r, labels)
            for r, labels in parts
        ],
        [1.0 / len(r) for r, _ in parts],
        recipe.trainer.batch,
        Augment(recipe.augment, size, (recipe.image.mean,), (recipe.image.std,), run.seed),
        run.seed,
        row.loss()["manifold.enabled"],
    )


def _objective(
    run: Run, student: Student, learning: LearningSet, config: AblationConfig
) -> Distillation:
    row = ROWS[run.row]
    text = torch.from_numpy(learning.texts - learning.text_mean)
    dimensions = learning.tokens.shape[-1]
    features = getattr(student.config, "features", None)
    loss = VL2SpikeLoss(
        student,
        text,
        logit_scale=learning.logit_scale,
        # Tokens that were cached are coordinates in the basis already.
        basis=Basis(torch.zeros(dimensions), torch.eye(dimensions), learning.explained),
        grid=getattr(student, "grid", None),
        token_channels=features if isinstance(features, int) else None,
        config=replace(config.recipe.loss, row.loss()),
    )
    if row.linear:
        return LinearlyClassified(student, loss, len(learning.words))
    return Distillation(student, loss)


@torch.no_grad()
def _accuracy_by_step(best: Any, learning: LearningSet, augment: Augment) -> list[float]:
    """Test accuracy of the run's own head after 1, 2, ... T steps."""
    rows = None
    if not isinstance(best, LinearlyClassified):
        projection = best.loss.embedding.weight.float().numpy()
        folded = fold(list(learning.texts), projection=projection.T, text_mean=learning.text_mean)
        rows = torch.from_numpy(folded.rows)
    right: Tensor | None = None
    for start in range(0, len(learning.test_labels), TEST_BATCH):
        part = slice(start, start + TEST_BATCH)
        counts = best.student.trace(augment.clean(learning.test_pixels[part])).counts
        scores = best.logits(counts) if rows is None else counts @ rows.T
        labels = torch.from_numpy(learning.test_labels[part])
        hits = (scores.cumsum(0).argmax(-1) == labels).sum(1)
        right = hits if right is None else right + hits
    if right is None:
        return []
    return [float(each) / len(learning.test_labels) for each in right]


def _shrunk(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels stored with a margin at the size that the student takes."""
    if pixels.shape[1:3] == size:
        return pixels
    return np.stack(
        [cv2.resize(each, size[::-1], interpolation=cv2.INTER_AREA) for each in pixels]
    ).astype(np.uint8)
