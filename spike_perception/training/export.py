# SPDX-License-Identifier: Apache-2.0
"""Make a model file to ship, and its card, of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError

#: Largest model that belongs into a source repository (bytes).
MAX_BYTES = 12_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of a finished spike-train run")
    parser.add_argument(
        "out", type=Path, help="model file, such as models/camera.safetensors; the card is beside"
    )
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write model and card."""
    from spike_perception.training.run_folder import RunFolder, write_text

    out: Path = arguments.out
    card = out.with_suffix(".md")
    if out.suffix != ".safetensors":
        raise InputError("invalid_option", f"{out} is no name of a .safetensors file")
    taken = [each for each in (out, card) if each.exists()]
    if taken and not arguments.force:
        raise InputError("cannot_write", f"{taken[0]} is there already; give --force to replace it")
    folder = RunFolder(arguments.run)
    bundle, text = folder.bundle(), folder.card()
    size = sum(each.nbytes for each in bundle.tensors.values())
    if size > MAX_BYTES:
        raise InputError(
            "oversized_file",
            f"{arguments.run} holds weights of {size / 1e6:.1f} MB, allowed are "
            f"{MAX_BYTES / 1e6:.0f}: choose a smaller student, or student.storage float16",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(out)
    write_text(card, text)
    result = {
        "model": str(out),
        "card": str(card),
        "encoder_id": bundle.encoder_id,
        "bytes": out.stat().st_size,
    }
    emit(arguments, result, f"{out}: {out.stat().st_size / 1e6:.2f} MB, card {card}")
    return 0
