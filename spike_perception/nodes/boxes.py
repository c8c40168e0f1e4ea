# SPDX-License-Identifier: Apache-2.0
"""Boxes around objects as messages, in the sensor's frame or a fixed one, and for RViz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from spike_perception.config import setting
from spike_perception.places.types import Pose as FramePose
from spike_perception.sensing.clusters import Box
from spike_perception.zero_shot.namer import Answer

KNOWN = ColorRGBA(r=0.1, g=0.8, b=0.3, a=0.45)
UNKNOWN = ColorRGBA(r=0.7, g=0.7, b=0.7, a=0.25)
LETTER_M = 0.5
# Boxes of a sensor that fell silent fade from RViz.
SHOWN = Duration(sec=1)
# A box of no thickness is not drawn.
THINNEST_M = 0.02


@dataclass(frozen=True)
class BoxConfig:
    """The frame of the boxes."""

    fixed_frame: str = setting(
        "", "tf frame that boxes are given in, such as map; empty: the sensor's own", fixed=True
    )
    wait_s: float = setting(
        0.2,
        "with a fixed frame: wait so long for tf as new as the scan (s)",
        minimum=0.0,
        maximum=5.0,
    )


def box_messages(
    boxes: Sequence[Box], sensor: FramePose | None = None
) -> list[tuple[Pose, Vector3]]:
    """Centre and size of each box.

    Args:
        boxes: in the sensor's frame (m).
        sensor: pose of the sensor in the frame that the answer is wanted in; None: its own.
    """
    messages = []
    for box in boxes:
        x, y, z = map(float, box.centre)
        half = box.yaw / 2
        turn = (0.0, 0.0, math.sin(half), math.cos(half))
        if sensor is not None:
            x, y, z = (
                a + b
                for a, b in zip(
                    sensor.position, _turned((x, y, z), sensor.orientation), strict=True
                )
            )
            turn = _product(sensor.orientation, turn)
        pose = Pose(
            position=Point(x=x, y=y, z=z),
            orientation=Quaternion(**dict(zip("xyzw", turn, strict=True))),
        )
        messages.append((pose, Vector3(**dict(zip("xyz", map(float, box.size), strict=True)))))
    return messages


Turn = tuple[float, float, float, float]


def _product(a: Turn, b: Turn) -> Turn:
    """Quaternion (x, y, z, w) of turning by b, then by a."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _turned(point: tuple[float, float, float], turn: Turn) -> tuple[float, float, float]:
    x, y, z, w = turn
    turned = _product(_product(turn, (*point, 0.0)), (-x, -y, -z, w))
    return turned[:3]


def object_markers(
    header: Header, boxes: Sequence[tuple[Pose, Vector3]], answers: Sequence[Answer]
) -> MarkerArray:
    """A box and a label for every object: green where it has a name, grey where it is unknown."""
    # What was shown of the scan before goes first: there may have been more objects.
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number, ((pose, size), answer) in enumerate(zip(boxes, answers, strict=True)):
        decision = answer.decision
        first = decision.hypotheses[0]
        markers.append(
            Marker(
                header=header,
                ns="boxes",
                id=number,
                type=Marker.CUBE,
                pose=pose,
                scale=Vector3(**{a: max(getattr(size, a), THINNEST_M) for a in "xyz"}),
                color=UNKNOWN if decision.unknown else KNOWN,
                lifetime=SHOWN,
            )
        )
        above = Point(
            x=pose.position.x, y=pose.position.y, z=pose.position.z + size.z / 2 + LETTER_M
        )
        markers.append(
            Marker(
                header=header,
                ns="labels",
                id=number,
                type=Marker.TEXT_VIEW_FACING,
                pose=Pose(position=above),
                scale=Vector3(z=LETTER_M),
                color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
                text="unknown" if decision.unknown else f"{first.name} {first.score:.2f}",
                lifetime=SHOWN,
            )
        )
    return MarkerArray(markers=markers)
