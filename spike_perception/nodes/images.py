# SPDX-License-Identifier: Apache-2.0
"""Image messages as arrays."""

from __future__ import annotations

from array import array

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from spike_perception.nodes.perception_node import InputConfig
from spike_perception.sensing.image import RgbImage, decode_compressed, image_from_message_fields


def rgb_image(message: Image | CompressedImage) -> RgbImage:
    """RGB image, uint8 [H, W, 3], of a raw or compressed image message.

    Raises:
        ImageError: the message holds no image that can be used; the reason says why.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, message.format)
    return image_from_message_fields(
        message.height,
        message.width,
        message.encoding,
        bool(message.is_bigendian),
        message.step,
        message.data,
    )


def image_message(header: Header, image: RgbImage) -> Image:
    """An rgb8 message of an image, uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array("B", image.tobytes())
    return message


def image_subscription(config: InputConfig) -> tuple[type, str]:
    """Message type and topic that a configuration of images asks for."""
    if config.transport == "compressed":
        return CompressedImage, f"{config.topic}/compressed"
    return Image, config.topic
