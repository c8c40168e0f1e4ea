# SPDX-License-Identifier: Apache-2.0
"""Decoders of packed events, one class a family of encodings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from spike_perception.sensing.decoders.address_words import EVT3, LIBCAER_CMP, AddressWordDecoder
from spike_perception.sensing.decoders.event_words import LibcaerDecoder, MonoDecoder
from spike_perception.sensing.events import EventError, Events


class Decoder(Protocol):
    """Decodes the packets of one camera, in order.

    Attributes:
        counts: what was passed over so far: ``outside`` (events beyond the sensor's size),
            ``unsynchronised`` (events whose time or address is in a packet not seen) and
            ``unknown_words``.
    """

    counts: Counter[str]

    def decode(
        self, data: npt.NDArray[np.uint8], time_base: int, is_bigendian: bool = False
    ) -> Events:
        """Decode one packet.

        Args:
            data: uint8, the packed events.
            time_base: the packet's time base (ns).
            is_bigendian: byte order of words that are packed in the machine's own order.

        Raises:
            EventError: ``truncated_packet``; the decoder is then as before the call.
        """
        ...

    def reset(self) -> None:
        """Forget everything earlier packets said; ``counts`` go on."""
        ...


_DECODERS: dict[str, Callable[[int, int], Decoder]] = {
    "evt3": partial(AddressWordDecoder, EVT3),
    "libcaer": LibcaerDecoder,
    "libcaer_cmp": partial(AddressWordDecoder, LIBCAER_CMP),
    "mono": MonoDecoder,
}


def encodings() -> tuple[str, ...]:
    """Names of the encodings that can be decoded."""
    return tuple(_DECODERS)


def create_decoder(encoding: str, width: int, height: int) -> Decoder:
    """A new decoder.

    Args:
        encoding: name as in ``EventPacket.encoding``.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).

    Raises:
        EventError: ``unknown_encoding`` or ``zero_size``.
    """
    decoder = _DECODERS.get(encoding)
    if decoder is None:
        raise EventError(
            "unknown_encoding", f"event encoding {encoding!r} is not one of {', '.join(_DECODERS)}"
        )
    if width < 1 or height < 1:
        raise EventError("zero_size", f"event sensor is {width}x{height}; both must be at least 1")
    return decoder(width, height)
