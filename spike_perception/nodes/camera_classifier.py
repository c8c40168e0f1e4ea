# SPDX-License-Identifier: Apache-2.0
"""The node ``camera_classifier``: camera images in, names out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from spike_perception.config import section
from spike_perception.nodes.class_overlay import overlay
from spike_perception.nodes.classifier_node import ClassifierNode
from spike_perception.nodes.images import image_subscription, rgb_image
from spike_perception.nodes.perception_node import InputConfig, TimeConfig, spin
from spike_perception.zero_shot.classifier import Classifier, ClassifierConfig


@dataclass(frozen=True)
class CameraClassifierConfig(ClassifierConfig):
    """Every parameter of the node: those of the classifier, and what ROS adds."""

    image: InputConfig = section(InputConfig)
    time: TimeConfig = section(TimeConfig)


class CameraClassifierNode(ClassifierNode[CameraClassifierConfig, Classifier]):
    """Lifecycle node around :class:`~spike_perception.zero_shot.classifier.Classifier`."""

    source = "camera"

    def __init__(self, **options: Any) -> None:
        super().__init__("camera_classifier", CameraClassifierConfig, **options)
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", 1)

    def make(self) -> Classifier:
        """Load bundle and vocabulary, and name one image to warm up."""
        return Classifier.load(self.config)

    def listen(self) -> None:
        """Subscribe to images."""
        image = self.config.image
        self.subscribe(
            *image_subscription(image),
            self.receive,
            reliability=image.reliability,
            depth=image.depth,
        )

    def process(self, message: Image | CompressedImage, arrived_s: float) -> None:
        """Name one image and publish what came out."""
        classifier = self._classifier
        if classifier is None:
            return
        image = rgb_image(message)
        answer = classifier.observe(image, self.begin(message.header))
        self.tell(message.header, [answer], arrived_s)
        if self._overlay.get_subscription_count():
            self._overlay.publish(overlay(message.header, image, answer.decision))


def main() -> None:
    """Entry point of ``ros2 run spike_perception camera_classifier``."""
    sys.exit(spin(CameraClassifierNode))


if __name__ == "__main__":
    main()
