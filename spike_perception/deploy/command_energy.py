# SPDX-License-Identifier: Apache-2.0
"""Estimate a bundle's energy per inference on given data, layer by layer."""

from __future__ import annotations

import argparse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.preprocessing import prepare_image, prepare_points
from spike_perception.errors import InputError

#: Largest file of points that is read.
MAX_BYTES = 1 << 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, help="model bundle (.safetensors)")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="what rates are counted on: a folder or zip file of images, or a .npy or .npz file "
        "of points, [N, 3 + F] or [samples, N, 3 + F]",
    )
    parser.add_argument("--samples", type=int, default=32, help="samples used, spread evenly")
    parser.add_argument(
        "--classes", type=int, default=0, help="classes of the head that is counted with it"
    )
    parser.add_argument(
        "--teacher-macs", type=float, default=0.0, help="MACs of the teacher for one sample"
    )
    parser.add_argument(
        "--binary", action="store_true", help="run the unfolded form of T x D binary steps"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Estimate and print."""
    if arguments.samples < 1 or arguments.classes < 0 or arguments.teacher_macs < 0:
        raise InputError(
            "invalid_option",
            f"--samples {arguments.samples} --classes {arguments.classes} --teacher-macs "
            f"{arguments.teacher_macs:g}: samples is at least 1, the others at least 0",
        )
    bundle = Bundle.load(arguments.bundle)
    samples = np.stack(list(_samples(bundle, arguments.data, arguments.samples)))
    # Imported here: bad data is refused before torch is loaded.
    import torch

    from spike_perception.deploy.network import student_of
    from spike_perception.spiking.energy import energy_report
    from spike_perception.spiking.folding import fold_batch_norm
    from spike_perception.spiking.unfolding import unfold

    student = student_of(bundle)
    network = unfold(student) if arguments.binary else fold_batch_norm(student)
    report = energy_report(
        network,
        torch.from_numpy(samples),
        arguments.classes or None,
        arguments.teacher_macs or None,
    )
    result: dict[str, Any] = {
        "bundle": str(arguments.bundle),
        "encoder_id": bundle.encoder_id,
        "data": str(arguments.data),
        "form": "binary" if arguments.binary else "integer",
        "estimated": True,
        **report.to_json(),
    }
    emit(arguments, result, report.text())
    return 0


def _samples(bundle: Bundle, path: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """At most ``count`` samples of the data as the student takes them, spread evenly."""
    if bundle.kind in ("image", "place"):
        from spike_perception.bags.images import ImageSequence

        with ImageSequence(path) as images:
            for index in _spread(len(images), count):
                yield prepare_image(images.image(index), bundle.preprocessing)
        return
    clouds = _clouds(path)
    for index in _spread(len(clouds), count):
        yield prepare_points(clouds[index], bundle.preprocessing)


def _spread(available: int, wanted: int) -> Any:
    number = min(available, wanted)
    indices = (each * available // number for each in range(number))
    return tqdm(indices, total=number, desc="samples", disable=None, leave=False)


def _clouds(path: Path) -> list[NDArray[Any]]:
    """Clouds of points in a .npy or .npz file, [N, 3 + F] each."""
    if not path.is_file() or path.suffix not in (".npy", ".npz"):
        raise InputError(
            "points_missing", f"{path}: points are read from one .npy or .npz file, which it is not"
        )
    if path.stat().st_size > MAX_BYTES:
        raise InputError("oversized_file", f"{path} is larger than {MAX_BYTES} bytes")
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(found, np.ndarray):
            arrays = [found]
        else:
            with found:
                _check_unpacked(path, found)
                arrays = [found[name] for name in found.files]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError("points_unreadable", f"{path} cannot be read: {error}") from error
    clouds: list[NDArray[Any]] = []
    for array in arrays:
        # Beside points an archive may hold labels, names and the like.
        if array.dtype.kind in "fiu" and array.ndim in (2, 3):
            clouds += [array] if array.ndim == 2 else list(array)
    if not clouds:
        raise InputError(
            "points_missing",
            f"{path} holds no cloud: expected are numbers, [N, 3 + F] or [samples, N, 3 + F]",
        )
    return clouds


def _check_unpacked(path: Path, archive: Any) -> None:
    size = sum(entry.file_size for entry in archive.zip.infolist())
    if size > MAX_BYTES:
        raise InputError("oversized_file", f"{path} unpacks to {size} bytes, more than {MAX_BYTES}")
