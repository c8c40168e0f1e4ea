# SPDX-License-Identifier: Apache-2.0
"""The command ``spike-train``: offline training, from the teacher to the files robots load."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spike_perception.cli import Commands, run_command

COMMANDS: Commands = {
    ("teacher",): ("spike_perception.training.teachers.command", "train a teacher for open_clip"),
    ("distill",): (
        "spike_perception.training.distill",
        "distil a teacher into a spiking student for images",
    ),
    ("places",): (
        "spike_perception.training.places.command",
        "train a spiking student that describes places",
    ),
    ("svl",): (
        "spike_perception.training.svl.command",
        "align a spiking point student with words and pictures",
    ),
    ("finetune",): (
        "spike_perception.training.svl.finetune",
        "train a student for points or events, with a head of its own",
    ),
    ("meshes",): (
        "spike_perception.training.svl.meshes",
        "sample shapes to train on from furniture catalogues, and abstract ones",
    ),
    ("svl-ablation",): (
        "spike_perception.training.svl.ablation",
        "compare the parts of SVL's losses, and time steps and levels",
    ),
    ("fold",): (
        "spike_perception.training.fold",
        "fold words into vocabularies and word banks for a student",
    ),
    ("export",): (
        "spike_perception.training.export",
        "make a model file and its card of a run",
    ),
    ("ablation",): (
        "spike_perception.training.ablation.command",
        "compare the losses, part by part",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (2 for input that cannot be used)."""
    return run_command("spike-train", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
