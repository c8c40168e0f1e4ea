# SPDX-License-Identifier: Apache-2.0
"""The core of camera_classifier, over a tiny bundle and files."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.zero_shot.classifier import Classifier, ClassifierConfig
from spike_perception.zero_shot.pack import VocabularyPack

SECOND = 1_000_000_000


def image(number: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """As the fixture's images."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (12, 16, 1), dtype=np.uint8).repeat(3, axis=2)
    return small.repeat(size[0] // 12, axis=0).repeat(size[1] // 16, axis=1)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


@pytest.fixture
def settings(camera_files):
    return {
        "model.bundle": str(camera_files.bundle),
        "vocabulary.pack": str(camera_files.pack),
        "vocabulary.bank": str(camera_files.bank),
    }


@pytest.fixture
def make(settings):
    def load(**changes):
        given = {**settings, **{k.replace("__", "."): v for k, v in changes.items()}}
        return Classifier.load(from_flat(ClassifierConfig, given))

    return load


def refusal(call, *arguments):
    with pytest.raises(InputError) as refused:
        call(*arguments)
    return refused.value


def test_images_get_their_words_and_others_are_unknown(make, camera_files):
    decisions = make().classify([image(n) for n in range(9)])
    assert [each.name for each in decisions] == [*camera_files.words, "", "", ""]
    assert [each.reason for each in decisions[6:]] == ["below_threshold"] * 3
    assert all(len(each.hypotheses) == 5 for each in decisions)


def test_words_by_name_answer_as_the_same_words_of_a_pack(make, camera_files):
    classifier = make(vocabulary__names=" couch,  Cup,dogs ")
    assert classifier.in_force.pack.names == ("couch", "Cup", "dogs")
    assert classifier.in_force.origin == str(camera_files.bank)
    names = [each.name for each in classifier.classify([image(0), image(3), image(4), image(5)])]
    assert names == ["couch", "Cup", "dogs", ""]


def test_a_vocabulary_is_changed_by_pack_and_by_names(make, camera_files):
    classifier = make()
    first = classifier.in_force
    second = classifier.set_pack(str(camera_files.other_pack))
    assert classifier.observe(image(1), SECOND).decision.name == camera_files.other_words[1]
    third = classifier.set_names(["mug", "lamp"])
    answer = classifier.observe(image(3), SECOND)
    assert answer.decision.name == "mug"
    assert answer.pack.vocabulary_id == third.pack.vocabulary_id
    assert (first.generation, second.generation, third.generation) == (0, 1, 2)
    assert len({each.pack.vocabulary_id for each in (first, second, third)}) == 3


@pytest.mark.parametrize(
    ("names", "reason", "told"),
    [
        (["mug", "tabel", "perzon"], "unknown_name", ("'tabel'", "'table'", "'person'")),
        (["light"], "ambiguous_name", ("'lamp'", "'traffic light'")),
        (["sofa", "couch"], "duplicate_name", ("'sofa'",)),
        (["mug", "Mug"], "duplicate_name", ("'mug'",)),
        ([" "], "bad_name", ()),
    ],
)
def test_refused_names_change_nothing_and_the_reason_helps(make, names, reason, told):
    classifier = make()
    before = classifier.in_force
    error = refusal(classifier.set_names, names)
    assert error.reason == reason
    for each in told:
        assert each in str(error)
    assert classifier.in_force == before


def test_refused_packs_change_nothing(make, camera_files, tmp_path):
    classifier = make()
    before = classifier.in_force
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(camera_files.pack.read_bytes()[:-1] + b"\x7f")
    narrow = VocabularyPack.build(["a", "b"], np.eye(2, 8), classifier.runtime.encoder_id)
    narrow.save(tmp_path / "narrow.safetensors")
    for given, reason in {
        str(camera_files.foreign_pack): "wrong_encoder",
        str(damaged): "wrong_checksum",
        str(tmp_path / "narrow.safetensors"): "bad_pack",
        str(tmp_path / "none.safetensors"): "file_missing",
        "no-such-name": "file_missing",
        str(camera_files.bundle): "wrong_format",
    }.items():
        assert refusal(classifier.set_pack, given).reason == reason
    assert classifier.in_force == before


def test_files_that_do_not_belong_together_are_refused_when_loading(make, camera_files, tmp_path):
    for changes, reason in (
        ({"model__bundle": str(tmp_path / "none.safetensors")}, "file_missing"),
        ({"vocabulary__pack": str(camera_files.foreign_pack)}, "wrong_encoder"),
        ({"vocabulary__bank": str(camera_files.pack), "vocabulary__names": "mug"}, "wrong_format"),
        ({"vocabulary__names": "unicorn"}, "unknown_name"),
        ({"unknown__method": "negative_labels"}, "bad_pack"),
    ):
        assert refusal(lambda given=changes: make(**given)).reason == reason


def test_a_stream_goes_forward_until_it_is_reset(make):
    classifier = make()
    classifier.observe(image(1), 5 * SECOND)
    classifier.observe(image(1), 5 * SECOND)
    assert refusal(classifier.observe, image(1), 4 * SECOND).reason == "stamp_out_of_order"
    assert refusal(classifier.observe, image(1), 0).reason == "zero_stamp"
    classifier.reset()
    assert classifier.observe(image(1), SECOND).decision.name == "table"
    assert classifier.counts() == {"known": 3}


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_smoothing_carries_a_name_over_a_glimpse_of_another(make, arithmetic):
    plain = make(head__arithmetic=arithmetic)
    smooth = make(head__arithmetic=arithmetic, smoothing__time_constant_s=1.0)
    seen = [0, 0, 0, 1, 0, 0, *[1] * 60]
    names = {"plain": [], "smooth": []}
    for k, number in enumerate(seen):
        stamp = SECOND + k * SECOND // 10
        names["plain"].append(plain.observe(image(number), stamp).decision.name)
        names["smooth"].append(smooth.observe(image(number), stamp).decision.name)
    assert names["plain"] == [("chair", "table")[number] for number in seen]
    assert names["smooth"][:6] == ["chair"] * 6
    assert names["smooth"][-1] == "table"
    # What was averaged outlives a change of words; a reset forgets it.
    smooth.set_names(["sofa", "lamp"])
    stamp = SECOND + len(seen) * SECOND // 10
    assert smooth.observe(image(0), stamp).decision.hypotheses[0].name == "lamp"
    smooth.reset()
    assert smooth.observe(image(0), stamp).decision.name == "sofa"


def test_settings_change_between_frames(make, settings):
    classifier = make()
    before = classifier.in_force
    changed = {"unknown.method": "max_softmax", "unknown.threshold": 0.0, "head.hypotheses": 2}
    after = classifier.configure(from_flat(ClassifierConfig, {**settings, **changed}))
    decision = classifier.observe(image(8), SECOND).decision
    assert not decision.unknown
    assert len(decision.hypotheses) == 2
    # The rule is part of what a vocabulary is; the band of counts stays that of its calibration.
    assert after.pack.vocabulary_id != before.pack.vocabulary_id
    assert after.pack.rejection.count_high == before.pack.rejection.count_high
    impossible = {**settings, "unknown.method": "negative_labels"}
    error = refusal(classifier.configure, from_flat(ClassifierConfig, impossible))
    assert error.reason == "bad_pack"
    assert classifier.in_force == after
    assert classifier.configure(from_flat(ClassifierConfig, settings)).pack.vocabulary_id == (
        before.pack.vocabulary_id
    )


def test_negative_labels_come_from_the_bank(make):
    classifier = make(
        vocabulary__names="mug, dog", vocabulary__negatives=3, unknown__method="negative_labels"
    )
    assert len(classifier.in_force.pack.negatives) == 3
    assert classifier.classify([image(3)])[0].name == "mug"


def test_vocabularies_change_under_load_and_no_frame_sees_two(make, camera_files):
    classifier = make()
    words = {classifier.in_force.pack.vocabulary_id: camera_files.words}
    words[classifier.set_pack(str(camera_files.other_pack)).pack.vocabulary_id] = (
        camera_files.other_words
    )
    ended, wrong, used = threading.Event(), [], []

    def frames() -> None:
        for k in range(400):
            number = k % 6
            answer = classifier.observe(image(number), SECOND + k)
            allowed = words[answer.pack.vocabulary_id]
            used.append(answer.pack.vocabulary_id)
            names = {each.name for each in answer.decision.hypotheses}
            if answer.decision.name != allowed[number] or not names <= set(allowed):
                wrong.append(answer)
        ended.set()

    worker = threading.Thread(target=frames)
    worker.start()
    while not ended.is_set():
        classifier.set_pack(str(camera_files.pack))
        classifier.set_pack(str(camera_files.other_pack))
    worker.join()
    assert wrong == []
    assert sum(a != b for a, b in pairwise(used)) > 3
