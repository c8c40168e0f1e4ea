# SPDX-License-Identifier: Apache-2.0
"""Rendered samples as files, one folder a class: what commands that make labelled sets share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spike_perception.cli import add_json
from spike_perception.errors import InputError


def add_arguments(parser: argparse.ArgumentParser, option: str, things: str) -> None:
    """Declare output, number of samples of a class (``--OPTION``), seed and JSON."""
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"new folder of {things}")
    parser.add_argument(f"--{option}", type=int, default=60, help=f"{things} of each class")
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    add_json(parser)


def check(arguments: argparse.Namespace, option: str, most: int) -> None:
    """Refuse settings before anything is written.

    Raises:
        InputError: ``invalid_setting``, or ``output_exists`` for a folder that holds something.
    """
    output, count, seed = arguments.output, getattr(arguments, option), arguments.seed
    if not 1 <= count <= most:
        raise InputError("invalid_setting", f"--{option} is {count}; allowed is 1 to {most}")
    if seed < 0:
        raise InputError("invalid_setting", f"--seed is {seed}; allowed is 0 or more")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError("output_exists", f"{output} exists; name a new folder")


def write(
    samples: Iterable[tuple[str, Any]],
    classes: Iterable[str],
    total: int,
    output: Path,
    suffix: str,
    save: Callable[[Path, Any], object],
) -> dict[str, int]:
    """Write ``OUTPUT/WORD/NUMBER.SUFFIX`` of each sample; returns how many each class has.

    Args:
        samples: word and sample.
        classes: every word there may be.
        total: how many samples will come, for the progress bar.
        output: folder.
        suffix: of the files, without a dot.
        save: writes one sample to a path.
    """
    counts = dict.fromkeys(classes, 0)
    for word, sample in tqdm(samples, total=total, desc="making", unit="sample", disable=None):
        folder = output / word
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / f"{counts[word]:05}.{suffix}", sample)
        counts[word] += 1
    return counts
