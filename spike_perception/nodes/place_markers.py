# SPDX-License-Identifier: Apache-2.0
"""Places and matches for RViz."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from spike_perception.places.map import PlaceMap
from spike_perception.places.types import Pose, Recognition, Status

ACCEPTED = ColorRGBA(r=0.1, g=0.8, b=0.3, a=1.0)
REJECTED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.8)
PLACE = ColorRGBA(r=0.3, g=0.5, b=0.9, a=0.9)
# More markers than this make RViz slow; every n-th place is then shown.
MOST_PLACES = 20_000


def _point(pose: Pose) -> Point:
    x, y, z = pose.position
    return Point(x=x, y=y, z=z)


class PlaceMarkers:
    """A point for every place that has a pose; follows a map without reading it all again."""

    def __init__(self) -> None:
        self._points: dict[str, list[Point]] = {}
        self._seen = 0
        self._last_id = 0

    def update(self, stamp: Time, place_map: PlaceMap) -> MarkerArray:
        """One marker per frame of reference, as the map stands now."""
        for batch in place_map.places(after=self._last_id):
            for place in batch:
                self._seen += 1
                self._last_id = place.place_id
                if place.pose is not None:
                    self._points.setdefault(place.pose.frame_id, []).append(_point(place.pose))
        if self._seen != len(place_map):  # places were removed
            self._points, self._seen, self._last_id = {}, 0, 0
            return self.update(stamp, place_map)
        return MarkerArray(
            # What was shown before goes first: places may have been removed.
            markers=[
                Marker(action=Marker.DELETEALL),
                *(
                    Marker(
                        header=Header(stamp=stamp, frame_id=frame_id),
                        ns="places",
                        id=number,
                        type=Marker.SPHERE_LIST,
                        scale=Vector3(x=0.2, y=0.2, z=0.2),
                        color=PLACE,
                        points=some[:: len(some) // MOST_PLACES + 1],
                    )
                    for number, (frame_id, some) in enumerate(sorted(self._points.items()))
                ),
            ]
        )


def match_markers(stamp: Time, query: Pose, recognition: Recognition) -> MarkerArray:
    """A line from the robot to the best place: green if accepted, grey if not."""
    best = recognition.candidates[0].pose if recognition.candidates else None
    marker = Marker(
        header=Header(stamp=stamp, frame_id=query.frame_id),
        ns="match",
        type=Marker.LINE_LIST,
        scale=Vector3(x=0.08),
        color=ACCEPTED if recognition.status == Status.MATCHED else REJECTED,
    )
    if best is None or best.frame_id != query.frame_id:
        marker.action = Marker.DELETE
    else:
        marker.points = [_point(query), _point(best)]
    return MarkerArray(markers=[marker])
