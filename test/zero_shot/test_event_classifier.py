# SPDX-License-Identifier: Apache-2.0
"""Streaming over windows: state, counts over T windows, resets."""

from __future__ import annotations

import numpy as np
import pytest

from spike_perception.config import from_flat
from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.sensing.event_views import event_points
from spike_perception.zero_shot.event_classifier import EventClassifier, EventClassifierConfig

STEPS = 6


@pytest.fixture
def classifier(event_files) -> EventClassifier:
    return EventClassifier.load(settings(event_files))


def settings(files, **more: object) -> EventClassifierConfig:
    values = {
        "model.bundle": str(files.bundle),
        "model.engine": "torch",
        "vocabulary.pack": str(files.pack),
        "vocabulary.bank": str(files.bank),
    }
    return from_flat(EventClassifierConfig, {**values, **more})


def features(classifier: EventClassifier, files, numbers: list[int]) -> list[np.ndarray]:
    """What the head is given after each window."""
    given: list[np.ndarray] = []
    name = classifier.name
    classifier.name = lambda each: given.append(each[0]) or name(each)  # type: ignore[method-assign]
    for number in numbers:
        classifier.observe(files.burst(number), *files.size)
    classifier.name = name  # type: ignore[method-assign]
    return given


def test_after_t_windows_the_stream_answers_as_the_network_does_of_all_at_once(
    classifier, event_files
):
    torch = pytest.importorskip("torch")
    from spike_perception.deploy.network import deployed_form, student_of

    numbers = [3, 1, 0, 2, 5, 4]
    streamed = features(classifier, event_files, numbers)[-1]
    clouds = [event_points(event_files.burst(n), *event_files.size, 128) for n in numbers]
    prepared = torch.from_numpy(classifier.runtime.prepare_points(clouds))
    student = deployed_form(student_of(Bundle.load(event_files.bundle)), "f32")
    with torch.no_grad():
        offline = student.run(prepared[:, None]).feature.numpy()[0]
    assert offline.any()
    np.testing.assert_array_equal(streamed, offline)


def test_windows_of_one_kind_are_named(classifier, event_files):
    for number, word in enumerate(event_files.words):
        classifier.reset()
        for _ in range(STEPS):
            answer = classifier.observe(event_files.burst(number), *event_files.size)
        assert answer.decision.name == word


def test_counts_roll_over_the_last_t_windows_while_the_state_goes_on(classifier, event_files):
    numbers = [0] * STEPS + [1] * (2 * STEPS)
    rolled = features(classifier, event_files, numbers)
    classifier.reset()
    single = features(classifier, event_files, [1] * STEPS)
    assert not np.array_equal(rolled[STEPS], single[0])  # the windows before still count
    assert np.array_equal(rolled[0] % STEPS, np.zeros_like(rolled[0]))  # one window stands for six
    totals = [each.sum() for each in rolled]
    assert totals[-1] > 0
    # Half a membrane is kept a step: after T windows next to nothing of the others is left.
    assert np.abs(rolled[-1] - single[-1]).sum() < 0.2 * totals[-1]


def test_reset_makes_the_stream_as_new(classifier, event_files):
    first = features(classifier, event_files, [2, 3, 4])
    classifier.reset()
    again = features(classifier, event_files, [2, 3, 4])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_whole_counts_are_kept_for_int8_rows(event_files):
    classifier = EventClassifier.load(settings(event_files, **{"head.arithmetic": "int8"}))
    for _ in range(4):  # 6 / 4 windows is no whole number
        answer = classifier.observe(event_files.burst(1), *event_files.size)
    assert answer.decision.hypotheses


def test_a_window_without_events_leaves_the_stream_as_it_was(classifier, event_files):
    before = features(classifier, event_files, [0, 1])
    classifier.reset()
    features(classifier, event_files, [0])
    with pytest.raises(InputError) as caught:
        classifier.observe(event_files.burst(0, 0), *event_files.size)
    assert caught.value.reason == "invalid_events"
    np.testing.assert_array_equal(features(classifier, event_files, [1])[0], before[1])


def test_a_bundle_of_something_else_is_refused(camera_files, event_files):
    files = {"model.bundle": str(camera_files.bundle), "vocabulary.pack": str(camera_files.pack)}
    config = settings(event_files, **files)
    with pytest.raises(InputError) as caught:
        EventClassifier.load(config)
    assert caught.value.reason == "wrong_kind"
