# SPDX-License-Identifier: Apache-2.0
"""Images and other messages by their position, for reports and estimates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError
from spike_perception.evaluation.heard import Times
from spike_perception.places.map import PlaceMap
from spike_perception.sensing.image import RgbImage, decode_compressed


class Pictures(Protocol):
    """Images by position; ``names`` has a name for each."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each image, as a report shows it."""

    def image(self, index: int) -> RgbImage:
        """One image, uint8 ``[H, W, 3]``, RGB; raises InputError where there is none."""


class BagMessages(BagReader):
    """Messages of one topic of a bag, read one at a time, as a context manager.

    Args:
        path: the bag.
        topic: the topic.
        times: times of its messages, as :func:`heard.read_times` gives them.
    """

    def __init__(self, path: Path, topic: str, times: Times) -> None:
        super().__init__(path)
        self._topic = topic
        self._times = times
        self._at_ns = 0

    def message(self, index: int) -> Any:
        """One message; refusals as :meth:`BagReader.messages`, or ``message_missing``."""
        wanted = self._go_to(index)
        for stamp_ns, message in self.messages(self._topic):
            if stamp_ns == wanted:
                return message
        raise InputError("message_missing", f"{self.path} has no message of stamp {wanted} ns")

    def _go_to(self, index: int) -> int:
        """Read at this position from now on; its stamp [ns]."""
        self._at_ns = int(self._times.recorded_ns[index])
        return int(self._times.stamp_ns[index])

    def _data(self, topic: str) -> Iterator[tuple[str, bytes]]:
        connections = [each for each in self._reader.connections if each.topic == topic]
        found = self._reader.messages(connections, start=self._at_ns, stop=self._at_ns + 1)
        for connection, _, data in found:
            yield connection.msgtype, data


class BagImages(BagMessages):
    """Images of one topic of a bag; arguments as of :class:`BagMessages`."""

    def __init__(self, path: Path, topic: str, times: Times) -> None:
        super().__init__(path, topic, times)
        self.names = tuple(str(k) for k in range(len(times.stamp_ns)))

    def image(self, index: int) -> RgbImage:
        """One image; refusals as :meth:`BagReader.images`, or ``image_missing``."""
        wanted = self._go_to(index)
        for each in self.images(self._topic):
            if each.stamp_ns == wanted:
                return each.image
        raise InputError("image_missing", f"{self.path} has no image of stamp {wanted} ns")


class MapImages:
    """Thumbnails of a place map, in order of its places."""

    def __init__(self, place_map: PlaceMap) -> None:
        self._map = place_map
        self._ids = place_map.ids()
        self.names = tuple(str(k) for k in range(len(self._ids)))

    def image(self, index: int) -> RgbImage:
        """One thumbnail; ``image_missing`` if the map keeps none."""
        data = self._map.thumbnail(int(self._ids[index]))
        if data is None:
            raise InputError("image_missing", f"{self._map.path} keeps no thumbnails")
        return decode_compressed(data)
