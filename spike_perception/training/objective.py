# SPDX-License-Identifier: Apache-2.0
"""What distillation trains: student and losses as one module, and the weights it starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.students.student import Student
from spike_perception.training.run_folder import RunFolder
from spike_perception.training.trainer import read_checkpoint
from spike_perception.training.vl2spike.total import TeacherBatch, VL2SpikeLoss


class Distillation(nn.Module):
    """A traced pass through the student and the losses on it; see ``trainer.Objective``.

    One module, so that distributed training sees every gradient.

    Attributes:
        student: the student.
        loss: the losses with their own parameters.
    """

    def __init__(self, student: Student, loss: VL2SpikeLoss) -> None:
        """Join them."""
        super().__init__()
        self.student = student
        self.loss = loss
        self._levels = {name: each.levels for name, each in student.neurons().items()}

    def forward(
        self, batch: dict[str, Tensor], progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise, and every term; with ``detail`` also weights and firing rates."""
        trace = self.student.trace(batch["images"], None if detail else self.loss.record)
        told = TeacherBatch(batch["features"], batch.get("tokens"))
        generator = torch.Generator().manual_seed(seed)
        losses = self.loss(trace, told, batch["labels"], progress, generator)
        scalars = {f"loss/{name}": term for name, term in losses.terms.items()}
        if detail:
            for name, weight in losses.weights.items():
                scalars[f"weight/{name}"] = torch.tensor(weight)
            for name, layer in trace.layers.items():
                mean = layer.spikes.detach().float().mean()
                scalars[f"rate/{name}"] = mean / self._levels[name]
        return losses.total, scalars


def start_from(path: Path, student: Student, loss: VL2SpikeLoss) -> None:
    """Take over weights: of a bundle the student's, of a run also the projection.

    Raises:
        InputError: ``weights_do_not_fit``, and the reasons of the files.
    """
    projection: Tensor | None = None
    if path.is_dir():
        tensors = _tensors(RunFolder(path).bundle())
        projection = torch.from_numpy(RunFolder(path).projection().matrix.copy())
    elif path.suffix == ".safetensors":
        tensors = _tensors(Bundle.load(path))
    else:
        state = read_checkpoint(path)
        averaged = state["average"] is not None
        held = {
            name.removeprefix("module."): each
            for name, each in state["average" if averaged else "objective"].items()
        }
        prefix = "student."
        tensors = {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}
        projection = held.get("loss.embedding.weight")
    try:
        student.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            "weights_do_not_fit",
            f"{path} holds weights of another student: {str(error).splitlines()[-1].strip()}",
        ) from error
    if projection is not None and projection.shape == loss.embedding.weight.shape:
        with torch.no_grad():
            loss.embedding.weight.copy_(projection)


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    return {name: torch.from_numpy(each.copy()) for name, each in bundle.tensors.items()}
