# SPDX-License-Identifier: Apache-2.0
"""What a recorder heard of nodes under evaluation: when, and what they say of themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.event_replay import open_recording
from spike_perception.bags.raw import RawBag
from spike_perception.errors import InputError

Stamps = npt.NDArray[np.int64]

# The recorder begins to hear /clock some time after it is there [ns].
CLOCK_GAP_NS = 1_000_000
DROPPED = "dropped "


@dataclass(frozen=True)
class Times:
    """Messages of one topic, in order of recording.

    Attributes:
        recorded_ns: int64 ``[N]``, when each was recorded.
        stamp_ns: int64 ``[N]``, their header stamps.
    """

    recorded_ns: Stamps
    stamp_ns: Stamps


def read_times(bag: Path, topic: str) -> Times:
    """Times of the messages of a topic whose first field is a header or a stamp.

    Raises:
        InputError: ``bag_unreadable``, or ``no_header``.
    """
    from spike_perception.nodes.replay import header_stamp_ns

    with open_recording(bag) as opened:
        found = [(each.time_ns, header_stamp_ns(each.data)) for each in opened.raw([topic])]
    recorded, stamps = np.array(found, np.int64).reshape(-1, 2).T
    return Times(recorded, stamps)


def read_messages(bag: Path, topic: str) -> list[tuple[int, int, Any]]:
    """When a message was recorded [ns], its stamp [ns] and the message, in order of the stamps.

    Raises:
        InputError: ``no_answers`` if there are none.
    """
    with RawBag(bag) as opened:
        pairs = zip(opened.raw([topic]), opened.messages(topic), strict=True)
        found = [(raw.time_ns, stamp, message) for raw, (stamp, message) in pairs]
    if not found:
        raise InputError("no_answers", f"{bag} holds no message on {topic}")
    return sorted(found, key=lambda each: each[1])


def positions(stamps: Stamps, answered: Stamps) -> Stamps:
    """Which message each answer is to, by its stamp: int64 ``[A]``, -1 for none.

    Of messages with one stamp the first counts.
    """
    order = np.argsort(stamps, kind="stable")
    at = np.searchsorted(stamps[order], answered)
    inside = np.minimum(at, len(stamps) - 1)
    if not len(stamps):
        return np.full(len(answered), -1, np.int64)
    found = order[inside]
    return np.where(stamps[found] == answered, found, -1)


def latest(stamps: Stamps, answered: Stamps) -> Stamps:
    """The last message at or before each answer's stamp: int64 ``[A]``, -1 for none.

    Answers to windows of events bear the time of the window's end; it lies in the packet that
    closed the window.

    Args:
        stamps: int64 ``[N]``, stamps of the messages, ascending.
        answered: int64 ``[A]``, stamps of the answers.
    """
    return np.asarray(np.searchsorted(stamps, answered, side="right") - 1, np.int64)


def end_to_end_s(sent: Times, clock: Times, message: Stamps, heard_ns: Stamps) -> Any:
    """From the sending of a message to the hearing of its answer [s]: float64 ``[A]``.

    The replay ticks ``/clock`` right before each message, at the message's time of recording, and
    the recorder hears clock and answers on one clock of its own. Messages of one time have a tick
    each; a message's own is the last one that was heard before its first answer, as the replay
    goes on only then.

    Args:
        sent: the sensor's messages, as in the bag.
        clock: ``/clock`` as heard.
        message: int64 ``[A]``, the message that each answer is to, -1 for none.
        heard_ns: int64 ``[A]``, when each answer was heard.

    Returns:
        NaN where no tick, or no message, was found.
    """
    if not len(clock.stamp_ns) or not len(sent.stamp_ns):
        return np.full(len(message), np.nan)
    due = sent.recorded_ns[np.maximum(message, 0)]
    first_ns = np.full(len(sent.stamp_ns) + 1, np.iinfo(np.int64).max)  # the last one is the -1
    np.minimum.at(first_ns, message, heard_ns)
    last = np.minimum(
        np.searchsorted(clock.stamp_ns, due, side="right"),
        np.searchsorted(clock.recorded_ns, first_ns[message], side="right"),
    )
    tick = np.maximum(last - 1, 0)
    known = (message >= 0) & (np.abs(clock.stamp_ns[tick] - due) < CLOCK_GAP_NS)
    return np.where(known, (heard_ns - clock.recorded_ns[tick]) / 1e9, np.nan)


def read_diagnostics(bag: Path, node: str) -> dict[str, dict[str, str]]:
    """The last word of a node on ``/diagnostics``: values by key, by part (``input``, ...)."""
    last: dict[str, dict[str, str]] = {}
    with RawBag(bag) as opened:
        for _, message in opened.messages("/diagnostics"):
            for status in message.status:
                owner, _, part = status.name.partition(": ")
                if owner == node:
                    last[part] = {each.key: each.value for each in status.values}
    return last


def drops(diagnostics: dict[str, dict[str, str]]) -> dict[str, int]:
    """Dropped messages by reason."""
    values = diagnostics.get("input", {})
    return {
        key.removeprefix(DROPPED): int(value)
        for key, value in values.items()
        if key.startswith(DROPPED)
    }


def answers_id(columns: Sequence[Any]) -> str:
    """SHA-256 of what was answered, to tell whether two runs gave the same answers.

    Args:
        columns: arrays, or nested tuples of text, without times of the computer.
    """
    digest = hashlib.sha256()
    for each in columns:
        data = each.tobytes() if isinstance(each, np.ndarray) else repr(each).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
