# SPDX-License-Identifier: Apache-2.0
"""What SVL trains: a point student and the losses on its firing rates."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.spiking.folding import levels
from spike_perception.students.student import Student
from spike_perception.training.run_folder import RunFolder
from spike_perception.training.svl.mta import MTALoss
from spike_perception.training.trainer import Batch

#: Layer that sees the points' values: new columns start at zero.
_FIRST = ("patch_1.layer.weight", "first.synapses.layer.weight")


def firing_rates(student: Student, prepared: Tensor) -> Tensor:
    """Counts of the last layer over the greatest possible, ``F / (T D)``, [B, C] in 0..1.

    Args:
        student: the network.
        prepared: its input, grouped by its ``prepare``: [B, ...] for every step, or [B, T, ...]
            with one window a step.
    """
    if prepared.ndim == student.sample_axes + 1:
        sequence = prepared.expand(student.config.steps, *prepared.shape)
    else:
        sequence = prepared.transpose(0, 1)
    counts = student.run(sequence).counts
    return counts.float().sum(0) / (len(counts) * levels(student))


class SVLObjective(nn.Module):
    """See ``trainer.Objective``.

    Attributes:
        student: the network.
        loss: multi-scale triple alignment.
    """

    def __init__(self, student: Student, loss: MTALoss) -> None:
        """Join them."""
        super().__init__()
        self.student = student
        self.loss = loss

    def forward(
        self, batch: Batch, progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch and its terms."""
        del progress, seed
        rates = firing_rates(self.student, batch["points"])
        with torch.autocast(rates.device.type, enabled=False):
            # Mixed precision hands every float of a batch over in bfloat16.
            images = batch["images"].float() if "images" in batch else None
            total, terms = self.loss(rates, batch["texts"].float(), batch["labels"], images)
        scalars = {f"loss/{name}": term.detach() for name, term in terms.items()}
        if detail:
            scalars["rate/feature"] = rates.detach().mean()
        return total, scalars


def start_from(path: Path, student: Student) -> None:
    """Take over the student's weights of a bundle or run folder.

    A student of points may become one of points with more values, such as events: what is new in
    its first layer starts at zero, so it begins with the same answers.

    Raises:
        InputError: ``weights_do_not_fit``, and the reasons of the files.
    """
    bundle = RunFolder(path).bundle() if path.is_dir() else Bundle.load(path)
    weights = {name: torch.from_numpy(each.copy()) for name, each in bundle.student_tensors.items()}
    wanted = student.state_dict()
    for name in _FIRST:
        if name in weights and name in wanted:
            missing = wanted[name].shape[1] - weights[name].shape[1]
            if missing > 0:
                weights[name] = nn.functional.pad(weights[name], (0, missing))
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "weights_do_not_fit",
            f"{path} holds weights of another student: {str(error).splitlines()[-1].strip()}",
        ) from error
