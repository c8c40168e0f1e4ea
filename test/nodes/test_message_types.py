# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from sensor_msgs.msg import Image

from spike_perception.nodes.message_types import message_class


def test_a_type_is_found_by_its_name():
    assert message_class("sensor_msgs/msg/Image") is Image


@pytest.mark.parametrize(
    "name", ["", "Image", "sensor_msgs/Image", "no_such_msgs/msg/Image", "/msg/Image", "a.b/msg/C"]
)
def test_what_is_not_installed_or_no_name_is_none(name):
    assert message_class(name) is None
