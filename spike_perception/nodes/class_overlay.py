# SPDX-License-Identifier: Apache-2.0
"""A camera image with its answer written on it, for people."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from spike_perception.nodes.images import image_message
from spike_perception.sensing.image import RgbImage
from spike_perception.zero_shot.head import Decision

KNOWN, UNKNOWN = (120, 255, 140), (255, 190, 90)
# Lines of text that are written, and how many of them fill an image's height.
LINES, LINES_A_PAGE = 3, 18


def overlay(header: Header, image: RgbImage, decision: Decision) -> Image:
    """An rgb8 message of the image [H, W, 3] with the first hypotheses on it."""
    drawn = np.ascontiguousarray(image).copy()
    line = max(10, len(drawn) // LINES_A_PAGE)
    for row, text in enumerate(_lines(decision), start=1):
        at = (line // 2, row * line)
        # Dark below bright is readable on anything.
        for colour, thickness in (((0, 0, 0), 4), (UNKNOWN if decision.unknown else KNOWN, 1)):
            cv2.putText(
                drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, line / 30, colour, thickness, cv2.LINE_AA
            )
    return image_message(header, drawn)


def _lines(decision: Decision) -> list[str]:
    lines = [f"{each.name} {each.score:.2f}" for each in decision.hypotheses[:LINES]]
    if decision.unknown:
        return [f"unknown: {decision.reason.replace('_', ' ')}", *(f"({each})" for each in lines)]
    return lines
