# SPDX-License-Identifier: Apache-2.0
"""Drives and photos, and batches of pairs of views drawn from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception.deploy.preprocessing import prepare_image
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.chance import key
from spike_perception.training.data.images import ImageSet, open_images
from spike_perception.training.data.pixels import load_pixels
from spike_perception.training.places.config import PlacesSettings
from spike_perception.training.places.losses import too_near
from spike_perception.training.places.views import Grey, relight, warp
from spike_perception.training.trainer import Batch

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
#: Photos are kept so much larger than the student's input, for views that see a part.
ENLARGED = 1.5


def open_frames(given: str) -> ImageSet:
    """Frames of a drive, ``PATH`` or ``PATH[FIRST:END]`` for a part of them.

    Raises:
        InputError: ``images_missing`` and as ``open_images``.
    """
    found = re.fullmatch(r"(.*?)(?:\[(\d*):(\d*)\])?", given)
    assert found is not None  # noqa: S101  (everything matches)
    path, first, end = found.groups()
    images = open_images(path)
    if first is None and end is None:
        return images
    chosen = np.arange(len(images))[int(first or 0) : int(end) if end else None]
    if not len(chosen):
        raise InputError(
            "images_missing", f"{given}: {path} has {len(images)} images, none in that range"
        )
    return images.subset(chosen)


@dataclass(frozen=True, eq=False)
class Traverse:
    """One way, driven under several conditions; frame k of one shows what frame k of another does.

    Attributes:
        sets: the frames of each condition.
        frames: uint8 [conditions, N, rows, columns], grey, of the student's size.
    """

    sets: tuple[ImageSet, ...]
    frames: Grey

    @property
    def id(self) -> str:
        """SHA-256 of what the frames are."""
        return sha256_json([each.id for each in self.sets])


def load_traverse(paths: Sequence[str], size: tuple[int, int]) -> Traverse:
    """Read all conditions of a traverse.

    Raises:
        InputError: ``mixed_traverse`` if they differ in number; ``corrupt_image`` for a frame that
            cannot be read: without it the others would no longer correspond.
    """
    sets = tuple(open_frames(each) for each in paths)
    counts = [len(each) for each in sets]
    if len(set(counts)) > 1:
        raise InputError(
            "mixed_traverse",
            f"the drives {', '.join(paths)} have {', '.join(map(str, counts))} frames; frame k of "
            "one must show what frame k of the others shows",
        )
    frames = []
    for each in sets:
        found = load_pixels(each, size, stretch=True)
        if found.skipped:
            name, reason = next(iter(found.skipped.items()))
            raise InputError("corrupt_image", f"{each.path}/{name}: {reason}")
        frames.append(grey(found.pixels))
    return Traverse(sets, np.stack(frames))


@dataclass(frozen=True, eq=False)
class Photos:
    """Single images, each a place of its own.

    Attributes:
        images: the set.
        pixels: uint8 [N, rows, columns], grey, larger than the student's input.
        indices: where each lies in the set, int64 [N]; corrupt ones are missing.
        skipped: corrupt images, name to reason.
    """

    images: ImageSet
    pixels: Grey
    indices: NDArray[np.int64]
    skipped: Mapping[str, str]


def load_photos(path: str, size: tuple[int, int]) -> Photos:
    """Read an image set; corrupt images are counted and left out."""
    images = open_images(path)
    larger = (round(size[0] * ENLARGED), round(size[1] * ENLARGED))
    found = load_pixels(images, larger, stretch=True)
    return Photos(images, grey(found.pixels), found.indices, found.skipped)


def grey(pixels: NDArray[np.uint8]) -> Grey:
    """Luminance uint8 [N, H, W] of RGB images uint8 [N, H, W, 3]."""
    found = np.empty(pixels.shape[:3], np.uint8)
    for k, each in enumerate(pixels):
        found[k] = np.rint(each.astype(np.float32) @ LUMA)
    return found


def prepared(views: Grey, preprocessing: Mapping[str, Any]) -> torch.Tensor:
    """Network input [B, 3, H, W] of grey views, made as a robot makes it."""
    images = [prepare_image(np.repeat(each[..., None], 3, 2), preprocessing) for each in views]
    return torch.from_numpy(np.stack(images))


@dataclass(frozen=True)
class Drawn:
    """Which places are in a batch.

    Attributes:
        drive: traverse of each, int64 [B]; -1 - s for photos of set s.
        place: frame on it, or number of the photo, int64 [B].
        conditions: of the two views, int64 [2, B]; 0 for photos.
    """

    drive: NDArray[np.int64]
    place: NDArray[np.int64]
    conditions: NDArray[np.int64]


class PlaceBatches:
    """Batches: a pure function of seed, step and process (see ``trainer.Batches``)."""

    def __init__(
        self,
        traverses: Sequence[Traverse],
        photos: Sequence[Photos],
        settings: PlacesSettings,
        preprocessing: Mapping[str, Any],
        targets: PlaceTargets | None = None,
    ) -> None:
        """Keep the data.

        Raises:
            InputError: ``images_missing`` if a batch asks for what is not there.
        """
        wanted = settings.sampling
        if (wanted.traverse_places and not traverses) or (wanted.photos and not photos):
            raise InputError(
                "images_missing",
                "batches hold places of traverses and photos; give both, or set "
                "sampling.traverse_places or sampling.photos to 0",
            )
        if not wanted.traverse_places and not wanted.photos:
            raise InputError(
                "invalid_setting",
                "sampling.traverse_places and sampling.photos are both 0; batches would be empty",
            )
        self.traverses, self.photos = traverses, photos
        self.settings, self.preprocessing, self.targets = settings, preprocessing, targets

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        """``views`` float32 [2B, 3, H, W], ``ignored`` bool [B, B], and the teacher's targets."""
        rng = np.random.default_rng(key(self.settings.trainer.seed, step, rank))
        drawn = self.draw(rng, world)
        pairs = [self._views(drawn, side, rng) for side in range(2)]
        views, still = (np.concatenate(each) for each in zip(*pairs, strict=True))
        near = too_near(
            torch.from_numpy(drawn.drive),
            torch.from_numpy(drawn.place),
            self.settings.sampling.apart,
        )
        batch = {"views": prepared(views, self.preprocessing), "ignored": near}
        if self.targets is not None:
            batch |= self.targets(drawn, still)
        return batch

    def draw(self, rng: np.random.Generator, world: int = 1) -> Drawn:
        """Draw this process's places of a batch."""
        c = self.settings.sampling
        drives: list[NDArray[np.int64]] = []
        places: list[NDArray[np.int64]] = []
        conditions: list[NDArray[np.int64]] = []
        counts = np.array([each.frames.shape[1] for each in self.traverses], np.float64)
        for _ in range(c.traverse_places // c.neighbourhood // world):
            drive = int(rng.choice(len(counts), p=counts / counts.sum()))
            kinds, frames = self.traverses[drive].frames.shape[:2]
            span = min(c.span, frames)
            start = int(rng.integers(0, frames - span + 1))
            size = min(c.neighbourhood, span)
            places.append(start + rng.choice(span, size, replace=False))
            drives.append(np.full(size, drive))
            first = rng.integers(0, kinds, size)
            step = rng.integers(1, kinds, size) if kinds > 1 else np.zeros(size, np.int64)
            same = rng.random(size) < c.same_condition
            conditions.append(np.stack([first, (first + np.where(same, 0, step)) % kinds]))
        if c.photos:
            sizes = np.array([len(each.pixels) for each in self.photos])
            total, count = int(sizes.sum()), c.photos // world
            rows = rng.choice(total, count, replace=total < count)
            ends = np.cumsum(sizes)
            number = np.searchsorted(ends, rows, side="right")
            places.append(rows - (ends - sizes)[number])
            drives.append(-1 - number)
            conditions.append(np.zeros((2, count), np.int64))
        return Drawn(
            np.concatenate(drives).astype(np.int64),
            np.concatenate(places).astype(np.int64),
            np.concatenate(conditions, 1).astype(np.int64),
        )

    def _views(
        self, drawn: Drawn, side: int, rng: np.random.Generator
    ) -> tuple[Grey, NDArray[np.bool_]]:
        """One view of every place, and whether its geometry is that of the image."""
        s = self.settings
        size = self.preprocessing["input_size"]
        found = np.empty((len(drawn.drive), *size), np.uint8)
        still = np.zeros(len(drawn.drive), bool)
        for number in np.unique(drawn.drive):
            rows = np.flatnonzero(drawn.drive == number)
            place = drawn.place[rows]
            if number >= 0:
                images = self.traverses[number].frames[drawn.conditions[side, rows], place]
            else:
                images = self.photos[-1 - number].pixels[place]
            config = s.traverse_views if number >= 0 else s.photo_views
            moved, still[rows] = warp(images, tuple(size), config, rng)
            found[rows] = relight(moved, config, rng)
        return found, still


class PlaceTargets:
    """The teacher's view of what is in a batch.

    A place of a traverse has one target under all conditions, their mean: a student that followed
    the teacher frame by frame would learn the season along with the place (our reading).
    """

    def __init__(
        self, traverses: Sequence[Sequence[Any]], photos: Sequence[tuple[Any, NDArray[np.int64]]]
    ) -> None:
        """Keep features.

        Args:
            traverses: ``TeacherFeatures`` of every condition of every traverse, in one basis.
            photos: those of every set of photos, and the set's ``Photos.indices``.
        """
        self._traverses = traverses
        self._photos = photos

    def __call__(self, drawn: Drawn, still: NDArray[np.bool_]) -> Batch:
        """Targets of the places, ``teacher_features`` [B, C] and ``teacher_tokens`` [B, h, w, d].

        ``still`` int64 [S] tells which of the 2B views show their image unmoved, so that tokens
        lie where the teacher's do.
        """
        features, tokens = [], []
        for number, place in zip(drawn.drive.tolist(), drawn.place.tolist(), strict=True):
            if number >= 0:
                sources, row = self._traverses[number], place
            else:
                found, indices = self._photos[-1 - number]
                sources, row = [found], int(indices[place])
            features.append(np.mean([each.features[row] for each in sources], 0, np.float32))
            tokens.append(np.mean([each.tokens[row] for each in sources], 0, np.float32))
        return {
            "teacher_features": torch.from_numpy(np.stack(features)),
            "teacher_tokens": torch.from_numpy(np.stack(tokens)),
            "still": torch.from_numpy(np.flatnonzero(still)),
        }
