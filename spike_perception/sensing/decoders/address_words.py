# SPDX-License-Identifier: Apache-2.0
"""Encodings of 16-bit words that each set a part of an event's address or time.

EVT 3.0 (Prophesee) and ``libcaer_cmp`` (the ROS driver of iniVation cameras) are one machine with
two layouts: the upper four bits of a word say what the lower twelve set, and a word that completes
an address emits an event with everything set before. The machine's registers are forward fills,
which NumPy does for a whole packet at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from spike_perception.sensing.events import EventError, Events, concatenate

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Layout:
    """Meaning of the upper four bits.

    Attributes:
        line: address that the following events share: the row of EVT 3.0, the column of
            ``libcaer_cmp``. Bits 0-10.
        single: one event: its other address in bits 0-10, its polarity in bit 11.
        base: address (bits 0-10) and polarity (bit 11) that the next vector starts at.
        vectors: code to number of addresses; bit k set is an event at the base + k, and the base
            moves on behind the vector.
        time_low: lower 12 bits of the time (µs).
        time_high: upper 12 bits of the time.
        ignored: known codes that say nothing of contrast events.
        line_is_row: whether ``line`` is y.
        counts_on: whether time goes on from packet to packet and wraps every 2^24 µs = 16.8 s;
            else each packet's time starts at its time base.
        fixed_order: whether words are little endian on every machine.
    """

    line: int
    single: int
    base: int
    vectors: dict[int, int]
    time_low: int
    time_high: int
    ignored: tuple[int, ...]
    line_is_row: bool
    counts_on: bool
    fixed_order: bool


# Prophesee, "EVT 3.0 Format". Ignored: the continuations of "others" (7, 15), external triggers
# (10), "others" (14) and the padding that some cameras write (9).
EVT3 = Layout(0, 2, 3, {4: 12, 5: 8}, 6, 8, (7, 9, 10, 14, 15), True, True, True)
# As ros-event-camera's libcaer_driver writes it.
LIBCAER_CMP = Layout(2, 3, 4, {5: 8}, 1, 0, (), False, False, False)

_ADDRESS = 0x7FF
_POLARITY = 0x800
_PAYLOAD = 0xFFF
_TURN = 1 << 12  # steps of time_high until it wraps
_HIGH_NS = _TURN * 1000
_LONGEST = 1 << 37  # steps of time_high: 17 years; what follows counts from zero again
_LOW_NS = 1000
_NO_LINE = 0xFFFF
_NO_TIME = -(1 << 61)
_NO_BASE = -(1 << 31)
_FAR = 1 << 16  # a base past every sensor

# Words are worked on in blocks that stay in the processor's cache, and so few that four counts of
# them share one 64-bit sum.
_BLOCK = 1 << 15
_COUNT_BITS = 16
_LINES, _LOWS, _HIGHS, _OTHERS = (1 << (_COUNT_BITS * k) for k in range(4))

_Words = npt.NDArray[np.uint16]
_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class AddressWordDecoder:
    """Decodes EVT 3.0 or ``libcaer_cmp``; see :class:`~spike_perception.sensing.decoders.Decoder`.

    Time of EVT 3.0 is unwrapped: a new upper half is taken the shorter way round, so that it may
    also fall back a little, as cameras do, without gaining 16.8 s.

    Args:
        layout: the encoding.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
    """

    def __init__(self, layout: Layout, width: int, height: int) -> None:
        self.counts: Counter[str] = Counter()
        self._layout = layout
        self._line_end, self._cross_end = (height, width) if layout.line_is_row else (width, height)
        self._advance = np.zeros(16, np.int64)
        for code, length in layout.vectors.items():
            self._advance[code] = length
        self._known = np.zeros(16, np.bool_)
        self._known[[layout.line, layout.single, layout.base, *layout.vectors]] = True
        self._known[[layout.time_low, layout.time_high, *layout.ignored]] = True
        self._steps = np.full(16, _OTHERS)
        self._steps[[layout.single, *layout.ignored]] = 0
        self._steps[[layout.line, layout.time_low, layout.time_high]] = _LINES, _LOWS, _HIGHS
        self.reset()

    def reset(self) -> None:
        """Forget addresses and time; events are passed over until they are set again."""
        self._line = _NO_LINE
        self._high: int | None = None  # unwrapped
        self._low_ns = _NO_TIME
        self._base, self._base_polarity = _NO_BASE, False

    def decode(
        self, data: npt.NDArray[np.uint8], time_base: int, is_bigendian: bool = False
    ) -> Events:
        """Decode one packet; EVT 3.0 uses neither ``time_base`` nor ``is_bigendian``.

        Raises:
            EventError: ``truncated_packet``; the decoder is then as before the call.
        """
        if data.size % 2:
            raise EventError(
                "truncated_packet", f"packet of {data.size} bytes; its words are 2 bytes each"
            )
        swapped = is_bigendian and not self._layout.fixed_order
        words = data.view(">u2" if swapped else "<u2").astype(np.uint16, copy=False)
        if not self._layout.counts_on:
            self._high, self._low_ns = 0, 0
        blocks = range(0, words.size, _BLOCK)
        events = concatenate([self._block(words[k : k + _BLOCK]) for k in blocks])
        if not self._layout.counts_on:
            events.t_ns[:] += time_base
        return events

    def _block(self, words: _Words) -> Events:
        layout = self._layout
        synchronised = self._synchronised
        codes: _Words = (words >> 12).astype(np.uint16, copy=False)
        counts = np.cumsum(self._steps.take(codes))
        lines = _register(self._line, words.compress(codes == layout.line) & _ADDRESS, np.uint16)
        lows = words.compress(codes == layout.time_low) & _PAYLOAD
        low_ns = _register(self._low_ns, lows, np.int64)
        low_ns[1:] *= _LOW_NS
        high_ns = self._high_ns(words.compress(codes == layout.time_high))
        if counts[-1] < _OTHERS:
            (at,) = (codes == layout.single).nonzero()
            singles = words.take(at)
            cross: npt.NDArray[np.int64 | np.uint16] = singles & _ADDRESS
            polarity = singles >= (layout.single << 12 | _POLARITY)
        else:
            self._count_unknown(codes)
            at, cross, polarity = self._vectors(words, codes)
        # Each event has the registers as they stand at its word.
        before = counts.take(at)
        field = (1 << _COUNT_BITS) - 1
        line = lines.take(before & field)
        before >>= _COUNT_BITS
        t_ns = low_ns.take(before & field)
        before >>= _COUNT_BITS
        t_ns += high_ns.take(before & field)
        self._line, self._low_ns = int(lines[-1]), int(low_ns[-1])
        if not (
            synchronised
            and lines.max() < self._line_end
            and (not at.size or (cross.max() < self._cross_end and cross.min() >= 0))
        ):
            line, cross, polarity, t_ns = self._inside(line, cross, polarity, t_ns)
        across = cross.astype(np.uint16, copy=False)
        x, y = (across, line) if layout.line_is_row else (line, across)
        return Events(x, y, polarity, t_ns)

    @property
    def _synchronised(self) -> bool:
        """Whether row and time are known; only vectors need the base too."""
        return self._line != _NO_LINE and self._high is not None and self._low_ns != _NO_TIME

    def _inside(
        self,
        line: _Words,
        cross: npt.NDArray[np.int64 | np.uint16],
        polarity: _Flags,
        t_ns: _Ints,
    ) -> tuple[_Words, npt.NDArray[np.int64 | np.uint16], _Flags, _Ints]:
        """The events on the sensor whose registers were all set; others are counted."""
        unset = (line == _NO_LINE) | (cross < 0) | (t_ns <= _NO_TIME // 2)
        outside = ((line >= self._line_end) | (cross >= self._cross_end)) & ~unset
        self.counts["unsynchronised"] += int(np.count_nonzero(unset))
        self.counts["outside"] += int(np.count_nonzero(outside))
        keep = ~(unset | outside)
        return line[keep], cross[keep], polarity[keep], t_ns[keep]

    def _high_ns(self, words: _Words) -> _Ints:
        """Unwrapped upper half of the time (ns) before and after each of its words."""
        state = _NO_TIME if self._high is None else self._high * _HIGH_NS
        high = _register(0, words & _PAYLOAD, np.int64)
        if words.size:
            if self._layout.counts_on:
                # Words that jump to and fro can unwrap to any time: it must stay within 64 bits.
                if self._high is not None and abs(self._high) > _LONGEST:
                    self._high %= _TURN
                high[0] = high[1] if self._high is None else self._high
                steps = np.diff(high)
                steps += _TURN // 2
                steps &= _TURN - 1
                steps -= _TURN // 2
                np.cumsum(steps, out=high[1:])
                high[1:] += high[0]
            self._high = int(high[-1])
        high *= _HIGH_NS
        high[0] = state
        return high

    def _vectors(
        self, words: _Words, codes: _Words
    ) -> tuple[_Ints, npt.NDArray[np.int64 | np.uint16], _Flags]:
        """Position of its word, address across the line, and polarity of each event."""
        layout = self._layout
        is_single = codes == layout.single
        is_base = codes == layout.base
        is_vector = self._advance[codes] > 0

        # Where each vector starts: at its base, moved on by the vectors in between.
        moves = np.flatnonzero(is_base | is_vector)
        lengths = self._advance[codes[moves]]
        moved = np.cumsum(lengths) - lengths
        sets = is_base[moves]
        last = np.cumsum(sets)
        bases = words[is_base]
        starts = _register(self._base, bases & _ADDRESS, np.int64)
        starts[1:] -= moved[sets]
        starts = starts[last] + moved
        signs = _register(self._base_polarity, (bases & _POLARITY) != 0, np.bool_)[last]
        if moves.size:
            end = int(starts[-1] + lengths[-1])
            self._base = min(end, _FAR) if end >= 0 else _NO_BASE
            self._base_polarity = bool(signs[-1])

        # A single event is a vector of one bit; the bits that are set are the events, in order.
        carriers = np.flatnonzero(is_single | is_vector)
        payload = words[carriers]
        vector = is_vector[carriers]
        start = (payload & _ADDRESS).astype(np.int64)
        start[vector] = starts[~sets]
        sign = (payload & _POLARITY) != 0
        sign[vector] = signs[~sets]
        length = np.where(vector, self._advance[codes[carriers]], 1)
        mask = np.where(vector, payload, 1) & ((1 << length) - 1)
        found = np.flatnonzero(np.unpackbits(mask.astype("<u2").view(np.uint8), bitorder="little"))
        carrier = found >> 4
        return carriers[carrier], start[carrier] + (found & 15), sign[carrier]

    def _count_unknown(self, codes: _Words) -> None:
        unknown = codes.size - np.count_nonzero(self._known[codes])
        if unknown:
            self.counts["unknown_words"] += int(unknown)


def _register(state: int | bool, values: npt.NDArray[Any], dtype: type[_T]) -> npt.NDArray[_T]:
    """Values of a register before the block and after each word that sets it."""
    register = np.empty(values.size + 1, dtype)
    register[0] = state
    register[1:] = values
    return register
