# SPDX-License-Identifier: Apache-2.0
"""Publishing without loss: a full reliable queue is waited for."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.publisher import Publisher

CLOCK_PERIOD_S = 0.01


def publish(publisher: Publisher[Any], data: bytes) -> None:
    """Publish one serialised message, as soon as the reliable queue has room for it.

    Raises:
        RCLError: if ROS was shut down meanwhile.
    """
    while True:
        try:
            publisher.publish(data)
            return
        except RCLError:
            if not rclpy.ok():
                raise
            time.sleep(CLOCK_PERIOD_S)  # the queue is full: let it drain
