# SPDX-License-Identifier: Apache-2.0
"""A teacher's features of an image set, computed once and kept on disk."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.data.images import ImageSet
from spike_perception.training.teachers.encoder import Images
from spike_perception.training.teachers.store import Rows, stored
from spike_perception.training.teachers.teacher import ImageFeatures
from spike_perception.training.vl2spike.manifold import Basis, TokenStatistics

_VERSION = 1  # counts up when what is stored changes its meaning


class ImageTeacher(Protocol):
    """What of a teacher the features need."""

    @property
    def id(self) -> str:
        """SHA-256 of all that decides its answers."""

    def encode_images(self, images: Images) -> ImageFeatures:
        """Features and tokens of images."""


@dataclass(frozen=True, eq=False)
class TeacherFeatures:
    """Memory-mapped features; row i belongs to image i, rows of corrupt images are zero.

    Attributes:
        features: unit vectors, float16 [N, C].
        tokens: float16 [N, h, w, d]: coordinates in the basis, (token - mean) axes^T; the plain
            tokens where ``token_dim`` was None.
        basis: of the coordinates, frozen; None for plain tokens.
        indices: images that could be decoded, int64 [M].
        skipped: the others, name to reason.
    """

    features: NDArray[np.float16]
    tokens: NDArray[np.float16]
    basis: Basis | None
    indices: NDArray[np.int64]
    skipped: dict[str, str]


def cached_features(
    teacher: ImageTeacher,
    images: ImageSet,
    folder: Path,
    token_dim: int | None = 128,
    progress: bool = True,
    *,
    basis: Basis | None = None,
    sample: int = 1000,
    shard: int = 256,
) -> TeacherFeatures:
    """Features of an image set from ``folder``, or computed and put there.

    Args:
        teacher: the teacher.
        images: the set.
        folder: holds the features of any number of teachers and sets.
        token_dim: dimensions that tokens are reduced to by their principal components; None keeps
            them all.
        progress: show a progress bar on a terminal.
        basis: use this basis (of a training set, for its test set) instead of fitting one.
        sample: images, drawn at random, whose tokens fit the basis.
        shard: images after which work is safe on the disk.

    Raises:
        InputError: ``wrong_dimensions`` and as :func:`~.store.stored`.
    """
    if token_dim is None:
        basis = None
    elif basis is None:
        options = [_VERSION, teacher.id, images.id, token_dim, sample]
        basis = _basis(folder / f"basis-{_key(options)}.npz", teacher, images, token_dim, sample)
    elif len(basis.axes) != token_dim:
        raise InputError(
            "wrong_dimensions",
            f"the basis has {len(basis.axes)} dimensions, token_dim is {token_dim}",
        )
    described = [_VERSION, teacher.id, images.id, _digest(basis)]

    def compute(batch: list[NDArray[np.uint8]]) -> Rows:
        found = teacher.encode_images(batch)
        tokens = found.tokens
        if basis is not None:
            tokens = (tokens - basis.mean.numpy()) @ basis.axes.numpy().T
        return {"features": found.features, "tokens": tokens}

    label = f"encode {images.path.name}"
    found = stored(
        folder / f"features-{_key(described)}",
        images,
        compute,
        shard=shard,
        label=label,
        progress=progress,
    )
    arrays = found.arrays
    return TeacherFeatures(
        arrays["features"], arrays["tokens"], basis, found.indices, found.skipped
    )


def _basis(
    file: Path, teacher: ImageTeacher, images: ImageSet, token_dim: int, sample: int
) -> Basis:
    """The principal components of the tokens of randomly drawn images."""
    if file.is_file():
        return _read_basis(file, token_dim)
    chosen = np.random.default_rng(0).permutation(len(images))[:sample]
    statistics: TokenStatistics | None = None
    for start in range(0, len(chosen), 64):
        batch = []
        for index in chosen[start : start + 64]:
            try:
                batch.append(images.image(int(index)))
            except InputError as error:
                if error.reason != "corrupt_image":
                    raise
        if batch:
            tokens = torch.from_numpy(teacher.encode_images(batch).tokens)
            statistics = statistics or TokenStatistics(tokens.shape[-1])
            statistics.add(tokens)
    if statistics is None:
        raise InputError(
            "images_missing", f"none of {len(chosen)} images of {images.path} can be decoded"
        )
    basis = statistics.basis(token_dim)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Its own name: of several processes that start together each may come here.
    partial = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.npz")
    np.savez(
        partial,
        mean=basis.mean.numpy(),
        axes=basis.axes.numpy(),
        explained=np.float64(basis.explained),
    )
    partial.replace(file)
    return basis


def _read_basis(file: Path, token_dim: int) -> Basis:
    try:
        with np.load(file, allow_pickle=False) as found:
            mean, axes = found["mean"], found["axes"]
            explained = float(found["explained"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError("bad_cache", f"{file} cannot be read ({error}); delete it") from error
    if mean.dtype != np.float32 or axes.dtype != np.float32 or axes.shape[1:] != mean.shape:
        raise InputError("bad_cache", f"{file} holds no basis; delete it")
    if len(axes) != token_dim:
        raise InputError("bad_cache", f"{file} has {len(axes)} dimensions; delete it")
    return Basis(torch.from_numpy(mean), torch.from_numpy(axes), explained)


def _digest(basis: Basis | None) -> str:
    if basis is None:
        return ""
    return sha256_json([basis.mean.tolist(), basis.axes.tolist()])


def _key(described: list[object]) -> str:
    return sha256_json(described)[:32]
