# SPDX-License-Identifier: Apache-2.0
"""The node ``lidar_classifier``: point clouds in, named objects with their boxes out."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from spike_perception.config import section, setting
from spike_perception.errors import InputError
from spike_perception.nodes.boxes import BoxConfig, box_messages, object_markers
from spike_perception.nodes.classifier_node import ClassifierNode
from spike_perception.nodes.clouds import points_of
from spike_perception.nodes.health import make_status
from spike_perception.nodes.perception_node import TimeConfig, TopicConfig, spin
from spike_perception.nodes.pose_source import Transforms
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.places.types import Pose
from spike_perception.zero_shot.cluster_classifier import (
    ClusterClassifier,
    ClusterClassifierConfig,
)


@dataclass(frozen=True)
class PointsConfig(TopicConfig):
    """The topic of the point clouds."""

    topic: str = setting("/lidar/points", "sensor topic, sensor_msgs/PointCloud2", fixed=True)
    max_points: int = setting(
        500_000,
        "larger clouds are refused, since they would take too long (points)",
        minimum=1_000,
        maximum=4_194_304,
    )


@dataclass(frozen=True)
class LidarClassifierConfig(ClusterClassifierConfig):
    """Every parameter of the node: those of the classifier, and what ROS adds."""

    points: PointsConfig = section(PointsConfig)
    boxes: BoxConfig = section(BoxConfig)
    time: TimeConfig = section(TimeConfig)


class LidarClassifierNode(ClassifierNode[LidarClassifierConfig, ClusterClassifier]):
    """Lifecycle node around a ``ClusterClassifier``."""

    source = "lidar"

    def __init__(self, **options: Any) -> None:
        self._transforms: Transforms | None = None
        self._seen: Counter[str] = Counter()
        super().__init__("lidar_classifier", LidarClassifierConfig, **options)
        self._markers = self.create_lifecycle_publisher(MarkerArray, "~/markers", 10)

    def input_config(self) -> TopicConfig:
        """Of the point clouds."""
        return self.config.points

    # Lifecycle.

    def make(self) -> ClusterClassifier:
        """Load bundle and vocabulary, name two objects to warm up, and listen to tf if need be."""
        self._seen.clear()
        if self.config.boxes.fixed_frame:
            self._transforms = Transforms(self, "boxes.fixed_frame is set")
        return ClusterClassifier.load(self.config)

    def listen(self) -> None:
        """Subscribe to point clouds."""
        points = self.config.points
        self.subscribe(
            PointCloud2,
            points.topic,
            self.receive,
            reliability=points.reliability,
            depth=points.depth,
        )

    def unload(self) -> None:
        """Let go of the network and of tf."""
        super().unload()
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    def forget(self) -> None:
        """Begin a new stream: transforms of the one before do not hold."""
        super().forget()
        if self._transforms is not None:
            self._transforms.clear()

    # Scans.

    def process(self, message: PointCloud2, arrived_s: float) -> None:
        """Name the objects of one scan and publish what came out."""
        classifier = self._classifier
        if classifier is None:
            return
        points = points_of(message, self.config.points.max_points)
        stamp = self.begin(message.header)
        scan = classifier.observe(points.xyz, stamp)
        self._last_stamp_ns = stamp  # the classifier has followed, whatever tf says
        header, sensor = self._placed(message.header)
        boxes = box_messages([each.box for each in scan.clusters], sensor)
        self.tell(header, scan.answers, arrived_s, boxes)
        self._seen.update(
            {
                "scans": 1,
                "objects named": len(scan.answers),
                "objects left out": scan.left_out,
                "points not finite": points.dropped,
            }
        )
        if self._markers.get_subscription_count():
            self._markers.publish(object_markers(header, boxes, scan.answers))

    def _placed(self, header: Header) -> tuple[Header, Pose | None]:
        """Header of a scan's boxes, and the sensor's pose in their frame if it is another.

        Raises:
            InputError: ``no_transform`` if tf does not know the fixed frame at that time.
        """
        boxes = self.config.boxes
        if self._transforms is None:
            return header, None
        stamp = stamp_ns(header.stamp)
        pose = self._transforms.pose(header.frame_id, boxes.fixed_frame, stamp, boxes.wait_s)
        if pose is None:
            raise InputError(
                "no_transform",
                f"tf knows no transform from {header.frame_id!r} to {boxes.fixed_frame!r} at "
                f"{stamp} ns; publish it, raise boxes.wait_s, or leave boxes.fixed_frame empty",
            )
        return Header(stamp=header.stamp, frame_id=boxes.fixed_frame), pose

    def statuses(self) -> list[DiagnosticStatus]:
        """What runs, by which words it names, and how many objects."""
        values = {what: str(count) for what, count in sorted(self._seen.copy().items())}
        name = f"{self.get_name()}: objects"
        message = f"{values.get('objects named', 0)} named"
        return [*super().statuses(), make_status(name, DiagnosticStatus.OK, message, values)]


def main() -> None:
    """Entry point of ``ros2 run spike_perception lidar_classifier``."""
    sys.exit(spin(LidarClassifierNode))


if __name__ == "__main__":
    main()
