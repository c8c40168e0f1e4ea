# SPDX-License-Identifier: Apache-2.0
"""What every perception node shares: lifecycle, worker, health, diagnostics, autostart."""

from __future__ import annotations

import sys
import time
import traceback
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.event_handler import (
    QoSRequestedIncompatibleQoSInfo,
    SubscriptionEventCallbacks,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from threadpoolctl import threadpool_limits

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.nodes.allocator import give_back_freed_memory
from spike_perception.nodes.fifo_worker import FifoWorker
from spike_perception.nodes.health import Health, make_status
from spike_perception.nodes.latest_worker import LatestWorker
from spike_perception.nodes.parameters import ConfigParameters

ConfigT = TypeVar("ConfigT")
# Logged again at most so often for one reason [s]; the counters in /diagnostics see every case.
LOG_INTERVAL_S = 10.0
# What stays as it is for long: those who subscribe later get it too.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True)
class TopicConfig:
    """The sensor topic of a node."""

    topic: str = setting("/camera/image_raw", "sensor topic", fixed=True)
    reliability: str = setting(
        "best_effort",
        "best_effort hears every publisher; reliable hears only reliable ones",
        choices=("best_effort", "reliable"),
        fixed=True,
    )
    depth: int = setting(
        5, "messages the middleware may queue (messages)", minimum=1, maximum=1000, fixed=True
    )
    stale_after_s: float = setting(
        2.0, "/diagnostics says stale after so long without input (s)", minimum=0.1, maximum=3600.0
    )


@dataclass(frozen=True)
class InputConfig(TopicConfig):
    """The image topic of a node."""

    transport: str = setting(
        "raw",
        "raw subscribes the topic, compressed subscribes <topic>/compressed",
        choices=("raw", "compressed"),
        fixed=True,
    )


@dataclass(frozen=True)
class TimeConfig:
    """How stamps are taken."""

    jump_back_s: float = setting(
        1.0,
        "messages older than the last by more than this begin a new run, by less are dropped (s)",
        minimum=0.0,
        maximum=3600.0,
    )


@dataclass(frozen=True)
class Arrival:
    """A message and when it arrived on the monotonic clock [s]."""

    message: Any
    time_s: float


class PerceptionNode(LifecycleNode, Generic[ConfigT]):
    """A lifecycle node that answers each sensor message with one result.

    Loading, and warming up, happen in configure so that activating is quick; a missing or bad file
    makes configure fail, which leaves the node unconfigured and ready to be configured again.
    Subclasses fill in :meth:`load`, :meth:`listen`, :meth:`process` and :meth:`unload`.
    """

    def __init__(self, name: str, config_type: type[ConfigT], **options: Any) -> None:
        super().__init__(name, **options)
        self.config: ConfigT = config_type()
        self.health = Health(stale_after_s=2.0)
        self._is_configured = False
        self._is_active = False
        self._worker: LatestWorker[Arrival] | FifoWorker[Arrival] | None = None
        self._subscriptions_held: list[Subscription[Any]] = []
        self._logged: dict[str, float] = {}
        self._refusals: Counter[str] = Counter()
        self._refused: InputError | None = None
        self._config_parameters = ConfigParameters(
            self, config_type, lambda: self._is_configured, self._reconfigure
        )
        self.declare_parameter("autostart", False)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A simulated clock stops with its bag; what was dropped last is told all the same.
        self.create_timer(
            1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._clock_jumped,
        )

    # What subclasses fill in.

    @abstractmethod
    def load(self) -> None:
        """Load and warm up by ``self.config``; raises InputError for what cannot be used."""

    @abstractmethod
    def listen(self) -> None:
        """Create the subscriptions with :meth:`subscribe`."""

    @abstractmethod
    def process(self, message: Any, arrived_s: float) -> None:
        """Answer one message, in the worker thread; raises InputError for what cannot be used."""

    @abstractmethod
    def unload(self) -> None:
        """Release what :meth:`load` took; also called after a load that failed half way."""

    def create_worker(self) -> LatestWorker[Arrival] | FifoWorker[Arrival]:
        """The thread that works on messages: here always on the newest."""
        return LatestWorker(self._answer, lambda: self.health.dropped("overload"))

    def interrupt(self) -> None:
        """Wake a :meth:`process` that waits for other input: none comes any more."""

    def forget(self) -> None:
        """Forget what depends on the order of time: called when the clock jumps backwards."""

    def apply(self, config: ConfigT) -> None:
        """Take a changed configuration whose fixed leaves are as before."""

    def input_config(self) -> TopicConfig:
        """The section of ``self.config`` that describes the sensor topic."""
        return self.config.image  # type: ignore[attr-defined,no-any-return]

    def statuses(self) -> list[DiagnosticStatus]:
        """Further diagnostic statuses besides that of the input."""
        return []

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters and load; FAILURE, not ERROR, for what a person can put right."""
        try:
            self.config = self._config_parameters.read()
            self.health = Health(self.input_config().stale_after_s)
            self.load()
        except InputError as error:
            self.get_logger().error(f"cannot configure: {error}")
            return self._refuse(error)
        except Exception as error:  # noqa: BLE001 - configure can be tried again whatever it was
            self.get_logger().error(f"cannot configure:\n{traceback.format_exc()}")
            return self._refuse(InputError("internal_error", repr(error)))
        self._is_configured = True
        self._refused = None
        self._config_parameters.log(self.config)
        return super().on_configure(state)

    def _refuse(self, error: InputError) -> TransitionCallbackReturn:
        """Tell in /diagnostics why the node cannot be configured, by the reason."""
        self._refused = error
        self._refusals[error.reason] += 1
        self.unload()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe; FAILURE if that cannot be, as with a bad topic name."""
        self.forget()
        self._worker = self.create_worker()
        try:
            self.listen()
        except Exception:  # noqa: BLE001 - rclpy would not tell of it
            self.get_logger().error(f"cannot activate:\n{traceback.format_exc()}")
            self._stop()
            return TransitionCallbackReturn.FAILURE
        self._is_active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, then let the frame at work finish."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release from any state."""
        self._stop()
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall back to unconfigured, from where configure can be tried again."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop and release before the node is destroyed, whatever its state."""
        self._stop()
        self._release()

    def _stop(self) -> None:
        self._is_active = False
        while self._subscriptions_held:
            self.destroy_subscription(self._subscriptions_held.pop())
        if self._worker is not None:
            self.interrupt()
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        self._is_configured = False
        self.unload()

    def _reconfigure(self, config: ConfigT) -> None:
        self.config = config
        self.health.stale_after_s = self.input_config().stale_after_s
        self.apply(config)

    # Input.

    def subscribe(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        *,
        reliability: str = "best_effort",
        depth: int = 50,
    ) -> None:
        """Subscribe until the node is deactivated; tells of publishers with unfit QoS."""
        profile = QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE
            if reliability == "reliable"
            else ReliabilityPolicy.BEST_EFFORT,
        )

        def incompatible(info: QoSRequestedIncompatibleQoSInfo) -> None:
            self.count_drop(
                InputError(
                    "incompatible_qos",
                    f"{info.total_count} publisher(s) of {topic} cannot be heard with "
                    f"{reliability} reliability (policy {info.last_policy_kind}); set the "
                    "reliability parameter to best_effort",
                )
            )

        self._subscriptions_held.append(
            self.create_subscription(
                message_type,
                topic,
                callback,
                profile,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
                qos_overriding_options=self._overriding(topic),
            )
        )

    def _overriding(self, topic: str) -> QoSOverridingOptions:
        """The policies of a subscription that ``qos_overrides`` sets.

        No others: rclpy would declare them as they are at the first subscription, read-only, and a
        later one, whose publisher or parameters ask for another reliability, could not have it.
        """
        name = f"qos_overrides.{self.resolve_topic_name(topic)}.subscription."
        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return QoSOverridingOptions(
            [kind for kind in kinds if name + kind.name.lower() in self._parameter_overrides]
        )

    def receive(self, message: Any) -> None:
        """Callback of the sensor topic: hand the message to the worker."""
        self.health.received()
        worker = self._worker
        if worker is not None:
            worker.offer(Arrival(message, time.monotonic()))

    def attempt(self, work: Callable[[], None]) -> bool:
        """Do a piece of work; True if it was done, else its refusal is counted."""
        try:
            work()
        except InputError as error:
            self.count_drop(error)
        except Exception as error:  # noqa: BLE001 - a node never dies of a message
            if not self.context.ok():
                return False  # told to stop while at work: nothing can be published any more
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=LOG_INTERVAL_S)
            self.count_drop(InputError("internal_error", repr(error)))
        else:
            return True
        return False

    def _answer(self, arrival: Arrival) -> None:
        if self.attempt(lambda: self.process(arrival.message, arrival.time_s)):
            self.health.answered((time.monotonic() - arrival.time_s) * 1e3)

    def count_drop(self, error: InputError) -> None:
        """Count a refusal by its reason and log it, not more often than every ten seconds."""
        self.health.dropped(error.reason, str(error))
        now = time.monotonic()
        if now - self._logged.get(error.reason, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged[error.reason] = now
            self.get_logger().warning(f"{error.reason}: {error}")

    def _clock_jumped(self, jump: TimeJump) -> None:
        self.get_logger().info("the clock jumped: starting afresh in time")
        if self._is_configured:
            self.forget()

    # Diagnostics.

    def _publish_diagnostics(self) -> None:
        name = self.get_name()
        statuses = [self.health.status(f"{name}: input", self._is_active), *self.statuses()]
        if self._refusals:
            statuses.append(self._configuration_status())
        self._diagnostics.publish(DiagnosticArray(header=self._now_header(), status=statuses))

    def _configuration_status(self) -> DiagnosticStatus:
        level, message = DiagnosticStatus.OK, "configured"
        if self._refused is not None:
            level, message = DiagnosticStatus.ERROR, f"{self._refused.reason}: {self._refused}"
        values = {f"refused {reason}": str(n) for reason, n in sorted(self._refusals.items())}
        return make_status(f"{self.get_name()}: configuration", level, message, values)

    def _now_header(self) -> Any:
        from std_msgs.msg import Header

        return Header(stamp=self.get_clock().now().to_msg())


def spin(*creators: Callable[[], PerceptionNode[Any]]) -> int:
    """Run perception nodes until they are told to stop; returns the process's exit status.

    A node with the parameter ``autostart`` configures and activates itself.
    """
    # BLAS threads wait for their next product in a loop: at 30 Hz that costs a whole core.
    threadpool_limits(1, user_api="blas")
    give_back_freed_memory()
    rclpy.init(args=sys.argv)
    nodes: list[PerceptionNode[Any]] = []
    executor = SingleThreadedExecutor()
    status = 0
    try:
        for create in creators:
            nodes.append(create())
            executor.add_node(nodes[-1])
    except Exception as error:  # noqa: BLE001 - a bad override raises many types here
        print(f"cannot start: {error}", file=sys.stderr)
        status = 2
    try:
        if not status:
            for node in nodes:
                _autostart(node)
            executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
        # Told to stop within a callback, which each part of rclpy reports by its own exception.
    finally:
        for node in nodes:
            node.close()
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return status


def _autostart(node: PerceptionNode[Any]) -> None:
    if (
        node.get_parameter("autostart").value
        and node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    ):
        node.trigger_activate()
