# SPDX-License-Identifier: Apache-2.0
"""The node ``dvs_classifier``: events in, names out."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from spike_perception.config import section, setting
from spike_perception.errors import InputError
from spike_perception.nodes.class_overlay import overlay
from spike_perception.nodes.classifier_node import ClassifierNode
from spike_perception.nodes.event_input import (
    EventInputConfig,
    Offer,
    Piece,
    missing_packages,
    offer,
    pieces,
    weigh,
)
from spike_perception.nodes.fifo_worker import FifoWorker, Limits
from spike_perception.nodes.health import make_status
from spike_perception.nodes.images import image_message
from spike_perception.nodes.perception_node import LOG_INTERVAL_S, Arrival, TimeConfig, spin
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.sensing.event_noise import create_filter
from spike_perception.sensing.event_stream import JOINED_BYTES
from spike_perception.sensing.event_views import FRAME_KINDS, event_frame
from spike_perception.sensing.event_windows import EventConfig, Window, WindowedPackets
from spike_perception.zero_shot.event_classifier import EventClassifier, EventClassifierConfig
from spike_perception.zero_shot.stream import check_stamp

# How often it is looked for a publisher to subscribe to, or another instead of one that left [s].
LOOK_S = 0.2
# A window's end cannot lie farther from the first event of the packet that closed it [ns].
FARTHEST_NS = 60_000_000_000
# What breaks a run, by its name in the counts of WindowedPackets; what to do about it.
BREAKS = {
    "lost_packets": "packets are missing by their seq; raise events.depth, or let the driver "
    "publish reliably",
    "seq_restarts": "seq fell or stood still, as when a driver or a bag starts again",
    "format_changes": "the sensor's size or the encoding changed",
    "time_jumps": "time fell by more than 50 ms within the stream",
}


@dataclass(frozen=True)
class FrameConfig:
    """Windows as images."""

    kind: str = setting(
        "counts",
        "what ~/event_frame shows: counts of events, or how recent the last of a pixel is",
        choices=FRAME_KINDS,
    )


@dataclass(frozen=True)
class EventTimeConfig(TimeConfig):
    """How stamps of packets are taken."""

    jump_back_s: float = setting(
        1.0,
        "packets stamped before the last answer by more than this begin a new run (s)",
        minimum=0.0,
        maximum=3600.0,
    )


@dataclass(frozen=True)
class DvsClassifierConfig(EventClassifierConfig):
    """Every parameter of the node: those of the classifier, and what ROS adds."""

    events: EventInputConfig = section(EventInputConfig)
    frame: FrameConfig = section(FrameConfig)
    time: EventTimeConfig = section(EventTimeConfig)


class DvsClassifierNode(ClassifierNode[DvsClassifierConfig, EventClassifier]):
    """Lifecycle node around :class:`~spike_perception.zero_shot.event_classifier.EventClassifier`.

    Packets are pieces of one stream: they wait in a queue, and none is passed over for a newer
    one. What breaks the stream (a packet lost, refused or dropped, another format, time that
    falls) is counted by its reason, and windows and membrane potentials begin anew.
    """

    source = "events"

    def __init__(self, **options: Any) -> None:
        # Set by other threads, taken by the worker before its next piece.
        self._afresh = threading.Event()
        self._windows = WindowedPackets(EventConfig())
        self._seen: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._source = "not active"
        self._offer: Offer | None = None
        super().__init__("dvs_classifier", DvsClassifierConfig, **options)
        self._frame = self.create_lifecycle_publisher(Image, "~/event_frame", 10)
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", 1)
        # A simulated clock may stand still until somebody listens.
        self.create_timer(LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle.

    def make(self) -> EventClassifier:
        """Load bundle and vocabulary, and take one step to warm up."""
        create_filter(self.config.events.noise, 1, 1)  # refused here if it is not installed
        self._windows = WindowedPackets(self.config.events)
        self._cut = self.config.events.window, self.config.events.noise
        self._seen, self._counts = Counter(), Counter()
        return EventClassifier.load(self.config)

    def input_config(self) -> EventInputConfig:
        """The event topic."""
        return self.config.events

    def create_worker(self) -> FifoWorker[Arrival]:
        """A queue: a lost packet breaks the decoder."""
        events = self.config.events
        limits = Limits(round(events.queue_mb * 1e6), events.queue_s, batch=JOINED_BYTES)
        return FifoWorker(self._work_off, self._overflowed, weigh, limits)

    def listen(self) -> None:
        """Subscribe if there is a publisher; else :meth:`_look` will find one."""
        events = self.config.events
        topic = self.resolve_topic_name(events.topic)
        publishers = self.get_publishers_info_by_topic(topic)
        self._offer = found = offer(events, publishers)
        if found is None:
            types = sorted({each.topic_type for each in publishers})
            there = ", ".join(types) or "nobody"
            wanted = "events" if events.type == "auto" else events.type
            self._source = f"waiting for {wanted} on {topic}, where {there} publishes"
            if missing := missing_packages(events, types):
                self._source += f"; not installed here: {', '.join(missing)}"
        else:
            self._source = f"{found.message_type.__name__} on {topic}, {found.reliability}"
            self.subscribe(
                found.message_type,
                events.topic,
                self.receive,
                reliability=found.reliability,
                depth=events.depth,
            )

    def _look(self) -> None:
        """Listen where nothing is listened to yet, or nobody publishes any more what is."""
        if not self._is_active:
            return
        if self._subscriptions_held and self._is_replaced():
            self.destroy_subscription(self._subscriptions_held.pop())
            self.forget()
        if not self._subscriptions_held:
            try:
                self.listen()
            except Exception as error:  # noqa: BLE001 - a timer's would end the process
                topic = self.resolve_topic_name(self.config.events.topic)
                self._source = f"cannot subscribe to {topic}: {error}"
                self.get_logger().error(self._source, throttle_duration_sec=LOG_INTERVAL_S)

    def _is_replaced(self) -> bool:
        """Whether only publishers are left that must be heard in another way."""
        events = self.config.events
        publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(events.topic))
        if self._offer is None or any(map(self._offer.hears, publishers)):
            return False
        return offer(events, publishers) not in (None, self._offer)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening."""
        self._source = "not active"
        return super().on_deactivate(state)

    def forget(self) -> None:
        """Begin a new stream with the next piece."""
        super().forget()
        self._afresh.set()

    def apply(self, config: DvsClassifierConfig) -> None:
        """Take changed settings; other windows or another noise filter begin a new stream."""
        super().apply(config)
        cut = config.events.window, config.events.noise
        if cut != self._cut:
            self._cut = cut
            self._afresh.set()

    # Events.

    def _overflowed(self, number: int) -> None:
        """Count packets that did not find their place in the queue, and windows left out."""
        self.health.dropped(
            "overload",
            "more events came than the node can work off: lengthen windows or their step "
            "(events.window), or raise events.queue_mb and events.queue_s for bursts",
            number,
        )

    def _work_off(self, arrivals: list[Arrival], after_gap: bool) -> None:
        if after_gap:
            self._afresh.set()
        for each in pieces(arrivals):
            if not self._is_active:
                return
            self.attempt(partial(self.process, each.message, each.time_s))
        self._counts = self._windows.counts

    def process(self, message: Piece, arrived_s: float) -> None:
        """Decode a piece of the stream, and name the windows that it closes."""
        began_s = time.monotonic()
        stamp = self.begin(message.header)
        if self._afresh.is_set():
            self._afresh.clear()
            self._windows.configure(self.config.events)
        try:
            check_stamp(stamp, "events")
            packet = message.packet(self.config.events)
        except InputError:
            self._windows.reset()
            raise
        windows, continues = self._windows.feed(packet)
        if not continues:
            self._begin_anew()
        for number, each in enumerate(windows):
            if not self._is_active:
                return
            # No packet of a camera closes so many: one that does must not hold up the node.
            if time.monotonic() - began_s > self.config.events.queue_s:
                self._overflowed(len(windows) - number)
                self._afresh.set()
                return
            self.attempt(partial(self._name, each, message.header, arrived_s))

    def _begin_anew(self) -> None:
        """Forget what came before a break of the stream, and count why it broke."""
        super().forget()
        counts = self._windows.stream.counts
        for reason, told in BREAKS.items():
            if number := counts[reason] - self._seen[reason]:
                message = f"{number}: {told}; windows and membrane potentials begin anew"
                self.count_drop(InputError(reason, message))
        self._seen = counts

    def _name(self, window: Window, header: Header, arrived_s: float) -> None:
        """Name one window and publish what came out."""
        classifier, stream = self._classifier, self._windows.stream
        if classifier is None:
            return
        header = Header(stamp=to_stamp(self._stamp_ns(window, header)), frame_id=header.frame_id)
        answer = classifier.observe(window.events, stream.width, stream.height)
        self.tell(header, [answer], arrived_s)
        self.health.answered((time.monotonic() - arrived_s) * 1e3)
        wanted = [p for p in (self._frame, self._overlay) if p.get_subscription_count()]
        if wanted:
            kind = self.config.frame.kind
            image = event_frame(window.events, stream.width, stream.height, kind)
            if self._frame in wanted:
                self._frame.publish(image_message(header, image))
            if self._overlay in wanted:
                self._overlay.publish(overlay(header, image, answer.decision))

    def _stamp_ns(self, window: Window, header: Header) -> int:
        """When the window ended by the host's clock [ns], later than the window before.

        A packet's stamp is the host's time of its first event; on from there, or back, the
        sensor's clock counts.
        """
        first_ns = self._windows.first_ns
        passed = 0 if first_ns is None else window.end_ns - first_ns
        stamp = stamp_ns(header.stamp) + max(-FARTHEST_NS, min(FARTHEST_NS, passed))
        return max(stamp, self._last_stamp_ns + 1)

    # What it shows.

    def statuses(self) -> list[DiagnosticStatus]:
        """What runs, and what became of the events."""
        counts = self._counts
        waiting = self._is_active and not self._subscriptions_held
        level = DiagnosticStatus.WARN if waiting else DiagnosticStatus.OK
        values = {name.replace("_", " "): str(counts[name]) for name in sorted(counts)}
        name = f"{self.get_name()}: events"
        return [*super().statuses(), make_status(name, level, self._source, values)]


def main() -> None:
    """Entry point of ``ros2 run spike_perception dvs_classifier``."""
    sys.exit(spin(DvsClassifierNode))


if __name__ == "__main__":
    main()
