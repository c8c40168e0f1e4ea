# SPDX-License-Identifier: Apache-2.0
"""Weights and vocabularies that the suite ships, by name."""

from __future__ import annotations

from pathlib import Path

from spike_perception.errors import InputError
from spike_perception.share import share_folder

SUFFIX = ".safetensors"
MODELS = "models"
VOCABULARIES = "models/vocabularies"


def shipped_file(given: str, folder: str = MODELS) -> Path:
    """The file that a setting means.

    Args:
        given: a bare name, such as ``camera``, stands for ``NAME.safetensors`` in ``folder``;
            what has a folder or ends in ``.safetensors`` is a path, ``~`` being the user's home.
        folder: folder of shared files, :data:`MODELS` or :data:`VOCABULARIES`.

    Raises:
        InputError: ``file_missing`` for an empty setting, or a name that is not shipped, with
            those that are; ``package_missing``.
    """
    if "/" in given or given.endswith(SUFFIX):
        try:
            return Path(given).expanduser()
        except RuntimeError as error:  # ~somebody
            raise InputError("file_missing", f"{given}: {error}") from error
    path = share_folder() / folder / f"{given}{SUFFIX}"
    try:
        shipped = bool(given) and path.is_file()
    except OSError:  # a name too long for a file
        shipped = False
    if not shipped:
        there = ", ".join(sorted(each.stem for each in path.parent.glob(f"*{SUFFIX}"))) or "none"
        raise InputError(
            "file_missing",
            f"{given!r} is no shipped file: {path} does not exist (shipped there: {there}); give "
            f"one of these names, or the path of a file NAME{SUFFIX}",
        )
    return path
