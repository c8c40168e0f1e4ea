# SPDX-License-Identifier: Apache-2.0
"""The node ``place_recognizer``: camera images in, places out."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from spike_perception.config import section, to_flat
from spike_perception.errors import InputError
from spike_perception.nodes.health import make_status
from spike_perception.nodes.images import image_subscription, rgb_image
from spike_perception.nodes.perception_node import (
    LATCHED,
    InputConfig,
    PerceptionNode,
    TimeConfig,
    spin,
)
from spike_perception.nodes.place_markers import PlaceMarkers, match_markers
from spike_perception.nodes.place_messages import map_info, place_match, pose_stamped
from spike_perception.nodes.pose_source import (
    NoPoses,
    OdometryPoses,
    PoseConfig,
    PoseSource,
    TfPoses,
)
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.places.config import RecognitionConfig
from spike_perception.places.descriptors import Descriptor, create_descriptor
from spike_perception.places.map import PlaceMap
from spike_perception.places.recogniser import PlaceRecognizer
from spike_perception.places.types import Query, Status
from spike_perception_msgs.msg import MapInfo, PlaceMatch
from spike_perception_msgs.srv import GetMapInfo, RemovePlaces, SetMode

MODES = ("mapping", "localisation", "both")


@dataclass(frozen=True)
class PlaceRecognizerConfig(RecognitionConfig):
    """Every parameter of the node: those of recognition, and what ROS adds."""

    image: InputConfig = section(InputConfig)
    pose: PoseConfig = section(PoseConfig)
    time: TimeConfig = section(TimeConfig)


@dataclass(frozen=True)
class Engine:
    """What a configured node works with."""

    descriptor: Descriptor
    map: PlaceMap
    recognizer: PlaceRecognizer

    @property
    def full(self) -> bool:
        """Whether the map takes no more places."""
        limits = self.recognizer.config.map
        return limits.when_full == "refuse" and len(self.map) >= limits.max_places


class PlaceRecognizerNode(PerceptionNode[PlaceRecognizerConfig]):
    """Lifecycle node around :class:`~spike_perception.places.recogniser.PlaceRecognizer`."""

    def __init__(self, **options: Any) -> None:
        # One frame, or one service, at a time touches the recogniser and its map.
        self._engine_lock = threading.RLock()
        self._engine: Engine | None = None
        self._poses: PoseSource = NoPoses()
        self._last_stamp_ns = 0
        self._shown_generation = -1
        self._places_shown = PlaceMarkers()
        super().__init__("place_recognizer", PlaceRecognizerConfig, **options)
        self._match = self.create_lifecycle_publisher(PlaceMatch, "place_match", 10)
        self._match_pose = self.create_lifecycle_publisher(PoseStamped, "place_match/pose", 10)
        self._markers = self.create_lifecycle_publisher(MarkerArray, "~/markers", 10)
        self._place_markers = self.create_publisher(MarkerArray, "~/place_markers", LATCHED)
        self._info = self.create_publisher(MapInfo, "~/map_info", LATCHED)
        self.create_service(SetMode, "~/set_mode", self._set_mode)
        self.create_service(RemovePlaces, "~/remove_places", self._remove_places)
        self.create_service(GetMapInfo, "~/get_map_info", self._get_map_info)
        self.create_timer(1.0, self._publish_map)

    # Lifecycle.

    def load(self) -> None:
        """Make the descriptor, open the map and describe one image to warm up."""
        config = self.config
        if not config.map.path:
            raise InputError(
                "map_path_missing",
                "map.path is empty; set it to the file of the place map, such as places.db",
            )
        descriptor = create_descriptor(config.descriptor.name)
        descriptor.describe(np.zeros((480, 640, 3), np.uint8))
        if config.pose.source == "tf":
            self._poses = TfPoses(self, config.pose)
        elif config.pose.source == "odometry":
            self._poses = OdometryPoses(config.pose, self.count_drop)
        self._engine = self._open(descriptor, config.map.mode)

    def listen(self) -> None:
        """Subscribe to images, and to odometry where poses come from it."""
        image = self.config.image
        self.subscribe(
            *image_subscription(image),
            self.receive,
            reliability=image.reliability,
            depth=image.depth,
        )
        if isinstance(self._poses, OdometryPoses):
            self.subscribe(Odometry, self.config.pose.topic, self._poses.add)

    def unload(self) -> None:
        """Close the map."""
        with self._engine_lock:
            if self._engine is not None:
                self._engine.map.close()
            self._engine = None
            self._poses.close()
            self._poses = NoPoses()

    def interrupt(self) -> None:
        """Let the frame at work not wait for odometry."""
        self._poses.interrupt()

    def forget(self) -> None:
        """Begin a new run: sequence, confirmations and poses of the old one no longer hold."""
        with self._engine_lock:
            self._last_stamp_ns = 0
            self._poses.clear()
            if self._engine is not None:
                self._engine.recognizer.reset()

    def apply(self, config: PlaceRecognizerConfig) -> None:
        """Take changed settings, with the frame after the one at work."""
        with self._engine_lock:
            if self._engine is None:
                return
            self._poses.configure(config.pose)
            if config.map.mode == self._engine.recognizer.mode:
                self._engine.recognizer.configure(config)
                return
            try:
                self._change_mode(self._engine, config.map.mode)
            except InputError as error:
                self.get_logger().error(f"the mode stays as it is: {error}")
                self._show_mode(self._engine.recognizer.mode)

    def _show_mode(self, mode: str) -> None:
        """Make the parameter say what is in force; else the next change of any would undo it."""
        self.set_parameters([Parameter("map.mode", value=mode)])

    def _open(self, descriptor: Descriptor, mode: str) -> Engine:
        """Open the map as ``mode`` needs it: localisation never writes a byte."""
        config = replace(self.config, map=replace(self.config.map, mode=mode))
        path = Path(config.map.path).expanduser()
        place_map = (
            PlaceMap.open(path, descriptor, read_only=True)
            if mode == "localisation"
            else PlaceMap.open_or_create(path, descriptor, to_flat(config))
        )
        self._shown_generation = -1
        self._places_shown = PlaceMarkers()
        try:
            return Engine(descriptor, place_map, PlaceRecognizer(config, place_map, descriptor))
        except BaseException:  # whatever it is, the map must be free to be opened again
            place_map.close()
            raise

    def _change_mode(self, engine: Engine, mode: str) -> None:
        """Reopen the map for ``mode``; if that fails, for the mode before.

        Raises:
            InputError: the map cannot be opened for ``mode``.
        """
        engine.map.close()
        try:
            self._engine = self._open(engine.descriptor, mode)
        except InputError:
            self._engine = self._open(engine.descriptor, engine.recognizer.mode)
            raise

    # Frames.

    def process(self, message: Image | CompressedImage, arrived_s: float) -> None:
        """Recognise one image and publish what came out."""
        stamp = stamp_ns(message.header.stamp)
        image = rgb_image(message)
        # A stamp of zero is none: refused below, and no reason to forget.
        if stamp > 0 and self._last_stamp_ns - stamp > self.config.time.jump_back_s * 1e9:
            self.forget()
        # Outside the lock: it may wait for the executor to deliver odometry.
        query = Query(image, stamp, message.header.frame_id, self._poses.at(stamp))
        with self._engine_lock:
            if self._engine is None:
                return
            recognition = self._engine.recognizer.register(query)
            self._last_stamp_ns = stamp
            answer = place_match(message.header, recognition, self._engine.map)
        if recognition.store_error is not None:
            self.count_drop(recognition.store_error)
        answer.latency_ms = (time.monotonic() - arrived_s) * 1e3
        self._match.publish(answer)
        if recognition.status == Status.MATCHED and recognition.pose is not None:
            self._match_pose.publish(pose_stamped(message.header.stamp, recognition.pose))
        if query.pose is not None and self._markers.get_subscription_count():
            self._markers.publish(match_markers(message.header.stamp, query.pose, recognition))

    # Services.

    def _set_mode(self, request: SetMode.Request, response: SetMode.Response) -> SetMode.Response:
        if request.mode not in MODES:
            response.result = SetMode.Response.RESULT_UNKNOWN_MODE
            response.message = f"mode {request.mode!r}; allowed is one of {', '.join(MODES)}"
            return response
        with self._engine_lock:
            if self._engine is None:
                response.result = SetMode.Response.RESULT_NOT_CONFIGURED
                response.message = "the node is not configured"
                return response
            before = self._engine.recognizer.mode
            try:
                self._change_mode(self._engine, request.mode)
            except InputError as error:
                response.result = SetMode.Response.RESULT_MAP_NOT_WRITABLE
                response.message = f"{error}; the mode stays {before}"
                return response
            self._show_mode(request.mode)
        response.message = f"mode {request.mode}"
        return response

    def _remove_places(
        self, request: RemovePlaces.Request, response: RemovePlaces.Response
    ) -> RemovePlaces.Response:
        with self._engine_lock:
            if self._engine is None:
                response.result = RemovePlaces.Response.RESULT_NOT_CONFIGURED
                response.message = "the node is not configured"
                return response
            try:
                response.removed = self._engine.map.remove(
                    [int(each) for each in request.place_ids]
                )
            except InputError as error:
                response.result = (
                    RemovePlaces.Response.RESULT_UNKNOWN_PLACE
                    if error.reason == "unknown_place"
                    else RemovePlaces.Response.RESULT_MAP_NOT_WRITABLE
                )
                response.message = str(error)
                return response
        response.message = f"removed {response.removed} of {len(request.place_ids)} places"
        return response

    def _get_map_info(
        self, request: GetMapInfo.Request, response: GetMapInfo.Response
    ) -> GetMapInfo.Response:
        with self._engine_lock:
            if self._engine is None:
                response.result = GetMapInfo.Response.RESULT_NOT_CONFIGURED
                response.message = "the node is not configured"
            else:
                response.info = self._map_info(self._engine)
        return response

    # What it shows.

    def _map_info(self, engine: Engine) -> MapInfo:
        limit = self.config.map.max_places
        return map_info(self._now_header(), engine.map, engine.recognizer.mode, limit)

    def _publish_map(self) -> None:
        """Publish map info and the places' markers when the map has changed."""
        with self._engine_lock:
            engine = self._engine
            if engine is None or engine.map.generation == self._shown_generation:
                return
            self._shown_generation = engine.map.generation
            self._info.publish(self._map_info(engine))
            now = self.get_clock().now().to_msg()
            try:
                markers = self._places_shown.update(now, engine.map)
            except InputError as error:  # the file went away or was damaged
                self.get_logger().error(f"places are not shown: {error}")
                return
            self._place_markers.publish(markers)

    def statuses(self) -> list[DiagnosticStatus]:
        """State of the map."""
        name = f"{self.get_name()}: map"
        with self._engine_lock:
            if self._engine is None:
                return [make_status(name, DiagnosticStatus.OK, "not configured", {})]
            report = {k: str(v) for k, v in self._engine.recognizer.map_report().items()}
            full = self._engine.full
        level = DiagnosticStatus.WARN if full else DiagnosticStatus.OK
        message = "full" if full else f"{report['places']} places, {report['mode']}"
        return [make_status(name, level, message, report)]


def main() -> None:
    """Entry point of ``ros2 run spike_perception place_recognizer``."""
    sys.exit(spin(PlaceRecognizerNode))


if __name__ == "__main__":
    main()
