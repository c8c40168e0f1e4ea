# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.zero_shot.calibration import calibrate_rejection, calibrate_temperature
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.rejection import (
    METHODS,
    Rejection,
    auroc,
    count_band,
    false_positive_rate,
    known_scores,
    threshold_at,
)

from .example import pack, rows, spike_counts

SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("known", "unknown", "area", "rate"),
    [
        ([3, 4], [1, 2], 1.0, 0.0),
        ([1, 2], [3, 4], 0.0, 1.0),
        ([1, 1], [1, 1], 0.5, 1.0),
        ([1, 3], [2], 0.5, 1.0),
        ([2, 3], [2], 0.75, 1.0),
        ([0.8, 0.4, 0.35], [0.1, 0.37], 5 / 6, 0.5),
        (np.arange(100), np.arange(100) - 20, 1 - (80 * 79 / 2 + 80 / 2) / 1e4, 0.75),
    ],
)
def test_known_values(known, unknown, area, rate):
    assert auroc(known, unknown) == pytest.approx(area)
    assert false_positive_rate(known, unknown) == pytest.approx(rate)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES)
def test_auroc_is_the_share_of_ordered_pairs(known, unknown):
    k, u = np.array(known)[:, None], np.array(unknown)
    assert auroc(known, unknown) == pytest.approx(((k > u) + 0.5 * (k == u)).mean())
    assert auroc(known, unknown) + auroc(unknown, known) == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.floats(0.01, 1.0))
def test_the_threshold_is_the_greatest_that_lets_enough_pass(known, rate):
    threshold = threshold_at(known, rate)
    k = np.array(known)
    assert (k >= threshold).mean() >= rate - 1e-9
    assert (k > threshold).mean() < rate


def test_20_samples_at_95_percent_lose_one():
    assert threshold_at(np.arange(20), 0.95) == 1
    assert threshold_at(np.arange(20), 1.0) == 0


@pytest.mark.parametrize("bad", [[], [np.nan], [1, np.inf]])
def test_scores_that_are_missing_or_not_finite(bad):
    for use in (threshold_at, lambda x: auroc(x, [1]), lambda x: auroc([1], x), count_band):
        with pytest.raises(InputError) as caught:
            use(bad)
        assert caught.value.reason == "no_calibration_data"


def test_scores_by_hand():
    cos = np.array([0.3, 0.1, -0.2])
    e = np.exp(cos / 0.1)
    assert known_scores("max_softmax", cos, 3, 0.1) == pytest.approx(e[0] / e.sum())
    assert known_scores("max_softmax", cos, 2, 0.1) == pytest.approx(e[0] / e[:2].sum())
    assert known_scores("max_logit", cos, 3, 0.1) == pytest.approx(0.65)
    assert known_scores("energy", cos, 3, 0.1) == pytest.approx((1 + 0.1 * np.log(e.mean())) / 2)
    assert known_scores("negative_labels", cos, 2, 0.1) == pytest.approx(e[:2].sum() / e.sum())


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.lists(st.floats(-1, 1), min_size=2, max_size=9),
    st.floats(1e-4, 100),
)
def test_every_score_lies_between_0_and_1(method, cosines, temperature):
    score = known_scores(method, cosines, len(cosines) - 1, temperature)
    assert 0 <= score <= 1


@pytest.mark.parametrize(("method", "classes"), [("negative_labels", 3), ("max", 3)])
def test_methods_that_cannot_be_used(method, classes):
    with pytest.raises(InputError, match="negative labels"):
        known_scores(method, [0.1, 0.2, 0.3], classes, 0.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "guess", "threshold": 0.5},
        {"method": "energy", "threshold": 1.5},
        {"method": "energy", "threshold": float("nan")},
        {"method": "energy", "threshold": 0.5, "count_low": 5, "count_high": 4},
        {"method": "energy", "threshold": 0.5, "count_low": -1},
        {"method": "energy", "threshold": 0.5, "true_positive_rate": 0},
    ],
)
def test_rules_that_make_no_sense(fields):
    with pytest.raises(InputError) as caught:
        Rejection(**fields)
    assert caught.value.reason == "bad_rejection"


def samples(directions, count, seed, noise=2.0):
    labels = np.random.default_rng(seed).integers(len(directions), size=count)
    return spike_counts(directions, labels, noise=noise, seed=seed), labels


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_rejection_keeps_95_percent_and_finds_the_unknown(method):
    w = rows(20, 128)
    p = pack(6, 128, negatives=tuple(f"far {k}" for k in range(6)))
    assert np.array_equal(p.rows, w[:12]), "classes, negative labels, then what neither knows"
    held_out, labels = samples(w[:6], 2000, 1)
    p = calibrate_rejection(calibrate_temperature(p, held_out, labels), held_out, method)
    head = Head(p)
    known, unknown = samples(w[:6], 2000, 2)[0], samples(w[12:], 2000, 3)[0]
    passed = np.mean([not d.unknown for d in head.decide_all(known)])
    assert passed == pytest.approx(0.95, abs=0.02)
    area = auroc(head.known_scores(known, method), head.known_scores(unknown, method))
    assert area > 0.9
    rejected = np.mean([d.unknown for d in head.decide_all(unknown)])
    rate = false_positive_rate(head.known_scores(known, method), head.known_scores(unknown, method))
    assert 1 - rejected == pytest.approx(rate, abs=0.1)
    assert head.decide(np.zeros(128, int)).reason == "silent"
    assert head.decide(np.full(128, 64)).reason == "too_many_spikes"


def test_the_band_of_counts_covers_the_samples():
    totals = np.random.default_rng(0).normal(1000, 50, 5000)
    low, high = count_band(totals)
    assert 500 < low < totals.min() and totals.max() < high < 1600


def test_calibrated_probabilities_are_right_as_often_as_they_say():
    w = rows(6, 128)
    p = pack(6, 128)
    held_out, labels = samples(w, 4000, 4, noise=6.0)
    calibrated = Head(calibrate_temperature(p, held_out, labels))
    fresh, truth = samples(w, 4000, 5, noise=6.0)
    confidence = calibrated.probabilities(fresh).max(axis=1).mean()
    accuracy = (calibrated.nearest(fresh) == truth).mean()
    assert 0.5 < accuracy < 0.98, "some are wrong, or there is nothing to calibrate"
    assert confidence == pytest.approx(accuracy, abs=0.03)
    assert abs(Head(p).probabilities(fresh).max(axis=1).mean() - accuracy) > 0.03


@pytest.mark.parametrize("labels", [[0], [0, 9], [0, -1], [[0, 1]]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match="leaf"):
        calibrate_temperature(pack(), np.ones((2, 64)), labels)
