# SPDX-License-Identifier: Apache-2.0
"""Point cloud messages as arrays."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from spike_perception.sensing.points import (
    CloudLayout,
    Field,
    Points,
    PointsError,
    points_from_message_fields,
)


def cloud_layout(message: PointCloud2) -> CloudLayout:
    """How the bytes of a cloud message are laid out."""
    return CloudLayout(
        message.height,
        message.width,
        [Field(each.name, each.offset, each.datatype, each.count) for each in message.fields],
        bool(message.is_bigendian),
        message.point_step,
        message.row_step,
    )


def points_of(message: PointCloud2, most: int) -> Points:
    """The finite points of a cloud message, in its own frame [m].

    Args:
        message: the cloud.
        most: largest cloud that is looked into (points).

    Raises:
        PointsError: the message holds no cloud that can be used; the reason says why.
    """
    if message.height * message.width > most:
        raise PointsError(
            "too_large",
            f"cloud is {message.width}x{message.height} = {message.height * message.width} "
            f"points; at most {most} are taken: thin it out, or raise points.max_points",
        )
    return points_from_message_fields(cloud_layout(message), message.data)


def cloud_message(xyz: NDArray[np.float32], frame_id: str = "lidar") -> PointCloud2:
    """An unorganised cloud message of float32 x, y, z, from [N, 3] (m), without a stamp."""
    fields = [
        PointField(name=name, offset=4 * axis, datatype=PointField.FLOAT32, count=1)
        for axis, name in enumerate("xyz")
    ]
    size = 12 * len(xyz)
    message = PointCloud2(
        height=1, width=len(xyz), fields=fields, point_step=12, row_step=size, is_dense=True
    )
    message.header.frame_id = frame_id
    message.data = array("B", np.ascontiguousarray(xyz, "<f4").tobytes())
    return message
