# SPDX-License-Identifier: Apache-2.0
from diagnostic_msgs.msg import DiagnosticStatus

from spike_perception.nodes.health import Health


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {each.key: each.value for each in status.values}


def test_an_active_node_without_input_is_stale_and_an_inactive_one_is_not():
    time = Time()
    health = Health(2.0, time)
    time.now += 3.0
    assert health.status("input", active=True).level == DiagnosticStatus.STALE
    assert health.status("input", active=True).message == "no input yet"
    assert health.status("input", active=False).level == DiagnosticStatus.OK


def test_rate_and_percentiles_are_of_what_happened():
    time = Time()
    health = Health(2.0, time)
    for number in range(101):
        health.received()
        health.answered(float(number))
        time.now += 0.1
    told = values(health.status("input", active=True))
    assert float(told["latency p50 [ms]"]) == 50.0
    assert float(told["latency p95 [ms]"]) == 95.0
    assert abs(float(told["input rate [Hz]"]) - 10.0) < 0.5
    assert told["received"] == told["answered"] == "101"


def test_drops_warn_once_and_stay_counted():
    health = Health(2.0, Time())
    health.received()
    health.dropped("wrong_step", "step is 3")
    health.dropped("wrong_step", "step is 3")
    first = health.status("input", active=True)
    assert first.level == DiagnosticStatus.WARN
    assert "2 wrong_step (step is 3)" in first.message
    second = health.status("input", active=True)
    assert second.level == DiagnosticStatus.OK
    assert values(second)["dropped wrong_step"] == "2"
