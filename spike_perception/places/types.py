# SPDX-License-Identifier: Apache-2.0
"""What goes into place recognition and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError


@dataclass(frozen=True)
class Pose:
    """Where the camera was, in metres, in the frame ``frame_id``.

    Attributes:
        position: x, y, z in metres.
        orientation: unit quaternion x, y, z, w (normalised here).
        frame_id: name of the frame that the pose is given in, such as ``"map"`` or ``"odom"``.

    Raises:
        InputError: ``invalid_pose`` for a number that is not finite, a wrong count of numbers, or
            a quaternion of length zero.
    """

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    frame_id: str = "map"

    def __post_init__(self) -> None:
        position = tuple(float(v) for v in self.position)
        orientation = tuple(float(v) for v in self.orientation)
        if len(position) != 3 or len(orientation) != 4:
            raise InputError(
                "invalid_pose",
                f"a pose has {len(position)} position and {len(orientation)} orientation numbers; "
                "it takes 3 (x, y, z in metres) and 4 (quaternion x, y, z, w)",
            )
        norm = math.sqrt(sum(v * v for v in orientation))
        if not all(map(math.isfinite, position)) or not math.isfinite(norm) or norm < 1e-6:
            raise InputError(
                "invalid_pose",
                f"pose {position}, {orientation} in frame {self.frame_id!r}: every number must be "
                "finite and the quaternion not zero; leave the pose out where it is unknown",
            )
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "orientation", tuple(v / norm for v in orientation))

    def distance_to(self, other: Pose) -> float:
        """Distance between the two positions in metres; infinite across different frames."""
        if self.frame_id != other.frame_id:
            return math.inf
        return math.dist(self.position, other.position)

    def angle_to(self, other: Pose) -> float:
        """Angle between the two orientations in radians; infinite across different frames."""
        if self.frame_id != other.frame_id:
            return math.inf
        dot = abs(sum(a * b for a, b in zip(self.orientation, other.orientation, strict=True)))
        return 2.0 * math.acos(min(1.0, dot))


@dataclass(frozen=True)
class Query:
    """One camera image to recognise.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        stamp_ns: time of the exposure in nanoseconds, greater than zero and never falling.
        frame_id: the camera's frame.
        pose: where the camera was, if known.
    """

    image: NDArray[np.uint8]
    stamp_ns: int
    frame_id: str = ""
    pose: Pose | None = None


@dataclass(frozen=True)
class Candidate:
    """One place that resembles the query.

    Attributes:
        place_id: id of the place in the map.
        score: sequence score in units of the map's background spread (see ``sequence``).
        pose: pose stored with the place, if any.
    """

    place_id: int
    score: float
    pose: Pose | None = None


class Status(IntEnum):
    """Why a query got the answer it got."""

    NOT_SEARCHED = 0  # mapping mode: nothing is looked up
    MATCHED = 1  # the place is known
    NO_MAP = 2  # nothing to search: the map is empty, or all of it is within the exclusion time
    WARMING_UP = 3  # fewer frames seen than the sequence is long
    BELOW_THRESHOLD = 4  # nothing resembles the query enough: never been here
    AMBIGUOUS = 5  # two different places resemble the query about equally
    UNCONFIRMED = (
        6  # passed, but not yet as often in a row as asked for, or not by the newest image
    )
    NEW_PLACE = 7  # not recognised (or mapping mode) and stored as a new place


@dataclass(frozen=True)
class Recognition:
    """The answer to one query.

    Attributes:
        status: what came out, and if nothing, why.
        place_id: the matched place, the new place for ``NEW_PLACE``, otherwise -1.
        score: score of the best candidate; NaN where nothing was searched.
        margin: best score minus the best score of a different place; infinite without a rival,
            NaN where nothing was searched.
        threshold: the score that had to be reached; NaN where nothing was searched.
        candidates: the best places, best first.
        pose: pose of the matched place, if matched and if the place has one.
        added_place_id: id of the place stored for this query, if one was.
        store_error: why a place that was to be stored could not be (map full, disk full), if so.
    """

    status: Status
    place_id: int = -1
    score: float = math.nan
    margin: float = math.nan
    threshold: float = math.nan
    candidates: tuple[Candidate, ...] = ()
    pose: Pose | None = None
    added_place_id: int | None = None
    store_error: InputError | None = None
