# SPDX-License-Identifier: Apache-2.0
"""Recognised places as messages."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Header

from spike_perception.places.map import PlaceMap
from spike_perception.places.types import Candidate, Pose, Recognition
from spike_perception_msgs.msg import MapInfo, PlaceCandidate, PlaceMatch


def pose_stamped(stamp: Time, pose: Pose) -> PoseStamped:
    """``geometry_msgs/PoseStamped`` of a pose, with the stamp of the query."""
    message = PoseStamped(header=Header(stamp=stamp, frame_id=pose.frame_id))
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position
    orientation.x, orientation.y, orientation.z, orientation.w = pose.orientation
    return message


def place_match(header: Header, recognition: Recognition, place_map: PlaceMap) -> PlaceMatch:
    """``PlaceMatch`` of a recognition, without its latency."""
    answer = PlaceMatch(
        header=header,
        status=int(recognition.status),
        place_id=recognition.place_id,
        score=_number(recognition.score),
        margin=_number(recognition.margin),
        threshold=_number(recognition.threshold),
        candidates=[_candidate(header.stamp, each) for each in recognition.candidates],
        map_id=place_map.map_id,
        weights_id=place_map.descriptor.weights_id,
    )
    if recognition.pose is not None:
        answer.has_pose = True
        answer.pose = pose_stamped(header.stamp, recognition.pose)
    return answer


def _candidate(stamp: Time, candidate: Candidate) -> PlaceCandidate:
    message = PlaceCandidate(place_id=candidate.place_id, score=_number(candidate.score))
    if candidate.pose is not None:
        message.has_pose = True
        message.pose = pose_stamped(stamp, candidate.pose)
    return message


def _number(value: float) -> float:
    """Values for float32 fields: NaN stays, infinities and what is out of range are clipped."""
    return value if math.isnan(value) else max(-3.0e38, min(3.0e38, value))


def map_info(header: Header, place_map: PlaceMap, mode: str, max_places: int) -> MapInfo:
    """``MapInfo`` of an open map."""
    info = place_map.info()
    return MapInfo(
        header=header,
        map_id=place_map.map_id,
        path=info["path"],
        mode=mode,
        places=len(place_map),
        max_places=max_places,
        descriptor=place_map.descriptor.name,
        descriptor_kind=place_map.descriptor.kind,
        descriptor_dimension=place_map.descriptor.dimension,
        weights_id=place_map.descriptor.weights_id,
        file_bytes=info["bytes"],
    )
