# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Head, HeadConfig, any_time
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import Rejection

from .example import ENCODER, pack, rows, spike_counts

INT8 = HeadConfig(arithmetic="int8")
CONFIGS = [HeadConfig(), INT8]


def counts_of(p: VocabularyPack, count: int = 200, **options) -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(9).integers(len(p.names), size=count)
    return spike_counts(p.rows, labels, **options), labels


def test_logits_by_hand():
    p = VocabularyPack.build(
        ["a", "b"], [[0.6, 0.8, 0], [0, 0, 1]], ENCODER, feature_mean=np.array([1, 1, 1])
    )
    head = Head(p)
    np.testing.assert_allclose(head.logits([5, 5, 2]), [7 - 1.4, 1], rtol=1e-6)
    np.testing.assert_allclose(head.logits([5, 5, 2], elapsed=0.5), [7 - 0.7, 1.5], rtol=1e-6)
    centred = np.array([4, 4, 1])
    np.testing.assert_allclose(
        head.cosines([5, 5, 2]), [5.6 / np.linalg.norm(centred), 1 / np.linalg.norm(centred)]
    )


def test_integer_logits_are_exact_32_bit_sums():
    p = pack(20, 96)
    counts = np.random.default_rng(0).integers(0, 5000, (50, 96))
    expected = counts.astype(np.int32) @ p.quantised.values.astype(np.int32).T
    got = Head(p, INT8).integer_logits(counts)
    np.testing.assert_array_equal(got, expected)
    assert np.abs(expected).max() > 2**20


@pytest.mark.parametrize("config", CONFIGS)
def test_one_feature_and_a_batch_agree(config):
    head = Head(pack(), config)
    counts, _ = counts_of(head.pack, 20)
    batch = head.decide_all(counts)
    for one, each in zip(batch, map(head.decide, counts), strict=True):
        # BLAS sums a batch in another order than a vector.
        assert [h.name for h in one.hypotheses] == [h.name for h in each.hypotheses]
        assert one.score == pytest.approx(each.score, abs=1e-4)
    assert [d.index for d in batch] == head.nearest(counts).tolist()
    np.testing.assert_allclose(head.cosines(counts)[3], head.cosines(counts[3]), atol=1e-6)


def test_int8_cosines_are_close():
    p = pack(30, 128, feature_mean=np.full(128, 2.0, np.float32))
    counts, _ = counts_of(p)
    np.testing.assert_allclose(Head(p).cosines(counts), Head(p, INT8).cosines(counts), atol=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.float32, np.float64, bool])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_dtype_of_counts_gives_the_same(dtype, config):
    head = Head(pack(), config)
    counts, _ = counts_of(head.pack, 30, neurons=16)
    counts = counts.astype(dtype)
    np.testing.assert_array_equal(
        head.logits(counts), head.logits(counts.astype(np.int64)).astype(np.float64)
    )
    assert head.decide_all(counts) == head.decide_all(counts.astype(np.int64))


def test_scale_of_the_counts_does_not_change_the_answer():
    head = Head(pack())
    counts, _ = counts_of(head.pack)
    np.testing.assert_array_equal(head.nearest(counts), head.nearest(7 * counts))
    np.testing.assert_allclose(
        head.probabilities(counts), head.probabilities(7 * counts), atol=1e-4
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1), st.sampled_from(CONFIGS), st.booleans())
def test_threshold_test_equals_the_cosine_comparison(seed, threshold, config, centred):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0, 3, 12).astype(np.float32) if centred else None
    head = Head(
        VocabularyPack.build("abcde", rows(5, 12, seed), ENCODER, feature_mean=mean), config
    )
    counts = rng.integers(0, 9, (8, 12))
    norms = np.sqrt(head._row_norms)
    cosines = head.cosines(counts) / norms
    clear = np.abs(cosines - threshold) > 1e-6
    got = head.at_least(counts, threshold)
    np.testing.assert_array_equal(got[clear], (cosines >= threshold)[clear])


def test_probabilities_follow_the_temperature():
    p = pack()
    counts, labels = counts_of(p)
    sharp, soft = Head(p.replace(temperature=0.001)), Head(p.replace(temperature=1.0))
    for head in (sharp, soft):
        np.testing.assert_allclose(head.probabilities(counts).sum(axis=1), 1)
    assert sharp.probabilities(counts).max(axis=1).mean() > 0.95
    assert soft.probabilities(counts).max(axis=1).mean() < 0.5
    assert (sharp.nearest(counts) == labels).mean() > 0.9


def test_a_decision_ranks_the_nearest_names():
    p = pack(8)
    counts, labels = counts_of(p, 50, noise=0.2)
    for each, label in zip(counts, labels, strict=True):
        decision = Head(p).decide(each)
        assert decision.name == p.names[label]
        assert not decision.unknown and decision.reason == "" and decision.index == label
        assert len(decision.hypotheses) == 5
        scores = [h.score for h in decision.hypotheses]
        assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
        assert decision.score == scores[0]


def test_unknown_is_an_answer():
    p = pack(4).replace(rejection=Rejection("max_logit", 0.8, count_low=50, count_high=3000))
    head = Head(p)
    known, _ = counts_of(p, 30, noise=0.1)
    assert not any(d.unknown for d in head.decide_all(known))
    dull = head.decide(np.tile([3, 0], 32))
    assert (dull.unknown, dull.reason, dull.name, dull.index) == (True, "below_threshold", "", -1)
    assert 0 <= dull.known_score < dull.known_threshold == 0.8
    assert len(dull.hypotheses) == 4, "the nearest words are still told"
    silent = head.decide(np.zeros(64, int))
    assert (silent.reason, silent.known_score) == ("silent", 0.0)
    assert head.decide(np.eye(64, dtype=int)[0]).reason == "too_few_spikes"
    assert head.decide(1000 * known[0]).reason == "too_many_spikes"
    assert not Head(p, HeadConfig(reject=False)).decide(1000 * known[0]).unknown
    assert Head(p, HeadConfig(reject=False)).decide(np.zeros(64)).reason == "silent"


def test_a_class_may_ask_for_more_than_the_others():
    p = pack(3)
    counts, labels = counts_of(p, 60, noise=0.1)
    strict = p.replace(thresholds=np.array([-1, 0.9999, -1], np.float32))
    for decision, label in zip(Head(strict).decide_all(counts), labels, strict=True):
        assert decision.reason == ("below_class_threshold" if label == 1 else "")


def test_negative_labels_are_rows_but_never_answers():
    p = pack(4, negatives=("far a", "far b"), rejection=None)
    p = p.replace(rejection=Rejection("negative_labels", 0.5))
    head = Head(p)
    assert head.logits(np.ones(64)).shape == (6,)
    assert head.probabilities(np.ones(64)).shape == (4,)
    labels = np.arange(6)
    decisions = head.decide_all(spike_counts(p.rows, labels, noise=0.1))
    assert [d.unknown for d in decisions] == [False] * 4 + [True] * 2
    assert all(h.index < 4 for d in decisions for h in d.hypotheses)


@pytest.mark.parametrize(
    "feature",
    [
        np.zeros(63),
        np.zeros((2, 2, 64)),
        np.array(3),
        np.full(64, np.nan),
        np.full(64, np.inf),
        ["1"] * 64,
        np.zeros(64, complex),
        [None] * 64,
    ],
)
@pytest.mark.parametrize("config", CONFIGS)
def test_features_that_cannot_be_used(feature, config):
    head = Head(pack(), config)
    for use in (head.decide_all, head.logits, head.nearest, head.cosines):
        with pytest.raises(InputError) as caught:
            use(feature)
        assert caught.value.reason == "bad_feature"


def test_int8_refuses_what_it_cannot_sum_exactly():
    head = Head(pack(), INT8)
    with pytest.raises(InputError, match="whole"):
        head.logits(np.full(64, 0.5))
    with pytest.raises(InputError, match="overflow"):
        head.logits(np.full(64, 10**6))


def test_an_empty_batch_gives_no_decision():
    assert Head(pack()).decide_all(np.zeros((0, 64), int)) == []


def test_any_time_reading_ends_where_the_plain_decision_does():
    p = pack(6, feature_mean=np.full(64, 8.0, np.float32))
    head = Head(p)
    counts, _ = counts_of(p, 4)
    steps = [np.random.default_rng(k).multivariate_normal(np.ones(64), np.eye(64)) for k in (1, 2)]
    steps = [np.abs(np.rint(s)).astype(int) for s in steps]
    total = counts[0] + sum(steps)
    readings = list(any_time(head, [*steps, counts[0]], 3))
    assert [r.step for r in readings] == [1, 2, 3]
    np.testing.assert_allclose(readings[-1].logits, head.logits(total))
    assert readings[-1].index == head.nearest(total)


def test_any_time_reading_stops_at_a_clear_margin_and_pulls_no_further_step():
    p = pack(6)
    clear = spike_counts(p.rows, np.array([2]), noise=0.0)[0]
    pulled = []

    def steps():
        for k in range(8):
            pulled.append(k)
            yield clear

    readings = list(any_time(Head(p), steps(), 8, margin=0.05))
    assert (len(readings), pulled, readings[0].index) == (1, [0], 2)
    assert readings[0].margin >= 0.05
    assert len(list(any_time(Head(p), steps(), 8))) == 8


def test_any_time_with_a_single_class():
    p = pack(1)
    (reading,) = any_time(Head(p), [np.ones(64)] * 3, 3, margin=1.0)
    assert reading.margin == float("inf")
