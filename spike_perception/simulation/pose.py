# SPDX-License-Identifier: Apache-2.0
"""Rigid poses: translation in metres, rotation as a unit quaternion (x, y, z, w)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """Pose of a child frame in its parent frame.

    Attributes:
        translation: origin of the child in the parent, x, y, z (m).
        rotation: orientation of the child in the parent, unit quaternion x, y, z, w.
    """

    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)

    @staticmethod
    def from_euler(x: float, y: float, z: float, roll: float, pitch: float, yaw: float) -> Pose:
        """Pose from SDF's six numbers: metres, and radians about the fixed axes x, y, z."""
        cr, sr = math.cos(roll / 2), math.sin(roll / 2)
        cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
        cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
        return Pose(
            (x, y, z),
            (
                sr * cp * cy - cr * sp * sy,
                cr * sp * cy + sr * cp * sy,
                cr * cp * sy - sr * sp * cy,
                cr * cp * cy + sr * sp * sy,
            ),
        )

    @staticmethod
    def planar(x: float, y: float, yaw: float) -> Pose:
        """Pose on the ground, facing ``yaw`` (rad)."""
        return Pose.from_euler(x, y, 0.0, 0.0, 0.0, yaw)

    @staticmethod
    def driven(forward: float, leftward: float, turning: float, seconds: float) -> Pose:
        """Where a body stands after moving steadily on the ground, in the frame of its start.

        Args:
            forward: velocity along its own x (m/s).
            leftward: velocity along its own y (m/s).
            turning: about z (rad/s).
            seconds: for how long.
        """
        angle = turning * seconds
        # The exponential map of SE(2).
        along = seconds * (math.sin(angle) / angle if angle else 1.0)
        across = seconds * ((1 - math.cos(angle)) / angle if angle else 0.0)
        return Pose.planar(
            along * forward - across * leftward, across * forward + along * leftward, angle
        )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Rotation matrix ``[3, 3]``, child to parent."""
        x, y, z, w = self.rotation
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    @property
    def yaw(self) -> float:
        """Heading about z (rad)."""
        x, y, z, w = self.rotation
        return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    def __matmul__(self, child: Pose) -> Pose:
        """The pose of ``child``, given in this frame, in this frame's parent."""
        x, y, z = self.matrix @ child.translation + self.translation
        ax, ay, az, aw = self.rotation
        bx, by, bz, bw = child.rotation
        return Pose(
            (float(x), float(y), float(z)),
            (
                aw * bx + ax * bw + ay * bz - az * by,
                aw * by - ax * bz + ay * bw + az * bx,
                aw * bz + ax * by - ay * bx + az * bw,
                aw * bw - ax * bx - ay * by - az * bz,
            ),
        )

    def inverse(self) -> Pose:
        """The pose of the parent in the child frame."""
        x, y, z = -self.matrix.T @ self.translation
        a, b, c, w = self.rotation
        return Pose((float(x), float(y), float(z)), (-a, -b, -c, w))
