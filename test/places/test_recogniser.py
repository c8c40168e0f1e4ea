# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.places import recogniser as recogniser_module
from spike_perception.places.descriptors import create_descriptor
from spike_perception.places.index import PlaceIndex
from spike_perception.places.map import PlaceMap
from spike_perception.places.recogniser import PlaceRecognizer
from spike_perception.places.types import Pose, Query, Status


def refused(reason: str):
    return pytest.raises(InputError, check=lambda error: error.reason == reason)


def statuses(answers) -> Counter:
    return Counter(answer.status for answer in answers)


# ------------------------------------------------------------------ recognising


def test_second_lap_by_night_is_recognised_and_nothing_is_stored_twice(robot, world) -> None:
    driver = robot()
    first = driver.drive(world, 0, 100)
    assert set(statuses(first)) == {Status.NEW_PLACE}
    assert [a.place_id for a in first] == [a.added_place_id for a in first] == list(range(1, 101))
    second = driver.drive(world, 0, 100, night=True)
    matched = [n for n, a in enumerate(second) if a.status == Status.MATCHED]
    assert len(matched) >= 95
    for number in matched:
        answer = second[number]
        assert abs(answer.place_id - (number + 1)) <= 1
        assert answer.pose is not None
        assert abs(answer.pose.position[0] - 0.5 * number) <= 0.5
        assert answer.candidates[0].place_id == answer.place_id
        assert answer.score >= answer.threshold
        assert answer.added_place_id is None
    assert len(driver.map) <= 105


def test_the_last_seconds_are_not_matched(robot, world) -> None:
    driver = robot(**{"decision.exclusion_s": 1000.0})
    driver.drive(world, 0, 30)
    assert set(statuses(driver.drive(world, 0, 30))) == {Status.NEW_PLACE}
    assert driver.recogniser.map_report()["searchable_places"] == 0


@pytest.mark.parametrize("descriptor", ["patch_norm", "patch_norm_bits"])
def test_a_map_rejects_another_world_and_knows_its_own(robot, world, worlds, descriptor) -> None:
    robot("mapping", descriptor=descriptor).drive(world, 0, 120)
    driver = robot("localisation", descriptor=descriptor)
    seen = statuses(driver.drive(worlds(99, 130), 0, 120, posed=False))
    assert seen[Status.MATCHED] <= 1
    assert seen[Status.WARMING_UP] == 4
    assert seen[Status.BELOW_THRESHOLD] + seen[Status.AMBIGUOUS] >= 115
    driver.recogniser.reset()
    known = driver.drive(world, 0, 120, night=True, posed=False)
    right = [a.status == Status.MATCHED and a.place_id == n + 1 for n, a in enumerate(known)]
    assert sum(right) >= 110
    assert driver.recogniser.map_report()["calibration_source"] == "map"


def test_the_same_view_twice_in_the_map_is_ambiguous(robot, world) -> None:
    driver = robot("mapping")
    driver.drive(world, 0, 40, posed=False)
    driver.drive(world, 60, 90, posed=False)
    driver.drive(world, 5, 30, posed=False)
    answers = robot("localisation").drive(world, 8, 28, posed=False)[4:]
    assert set(statuses(answers)) == {Status.AMBIGUOUS}
    assert all(a.place_id == -1 and a.pose is None and len(a.candidates) == 5 for a in answers)


def test_candidate_search_agrees_with_searching_everything(
    robot, world, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot("mapping").drive(world, 0, 120)
    exact = robot("localisation").drive(world, 20, 60, night=True)
    monkeypatch.setattr(recogniser_module, "ENDS_NOW", 20)
    monkeypatch.setattr(
        recogniser_module, "PlaceIndex", lambda *identity: PlaceIndex(*identity, exact_bytes=0)
    )
    driver = robot("localisation")
    bounded = driver.drive(world, 20, 60, night=True)
    assert driver.recogniser.map_report()["index"] == "hamming_prefilter"
    for one, other in zip(exact[4:], bounded[4:], strict=True):
        assert one.candidates[0].place_id == other.candidates[0].place_id
        assert other.score == pytest.approx(one.score, rel=1e-3)
        assert one.status == other.status == Status.MATCHED


@pytest.fixture
def exact_up_to_50(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of more than 50 places are searched by their bits first."""
    monkeypatch.setattr(
        recogniser_module,
        "PlaceIndex",
        lambda *identity: PlaceIndex(*identity, exact_bytes=50 * 8192),
    )


def test_the_exact_search_gives_way_while_the_map_grows(robot, world, exact_up_to_50) -> None:
    driver = robot()
    driver.drive(world, 0, 100)
    second = driver.drive(world, 0, 100, night=True)
    assert driver.recogniser.map_report()["index"] == "hamming_prefilter"
    assert statuses(second)[Status.MATCHED] >= 93


def test_a_map_that_shrinks_is_compared_as_a_whole_again(robot, world, exact_up_to_50) -> None:
    driver = robot()
    driver.drive(world, 0, 60)
    driver.drive(world, 0, 20, night=True)
    assert not driver.recogniser._index.exact
    driver.map.remove(range(45, 61))
    answers = driver.drive(world, 20, 40, night=True)
    assert driver.recogniser._index.exact
    assert statuses(answers)[Status.MATCHED] >= 18
    driver.drive(world, 60, 64)  # new places, for which the sequence needs scores


def test_confirmations_must_follow_one_another(robot, world) -> None:
    robot("mapping").drive(world, 0, 100)
    driver = robot("localisation", **{"decision.confirmations": 3})
    known = driver.drive(world, 10, 30)
    first = next(n for n, a in enumerate(known) if a.status == Status.UNCONFIRMED)
    assert [a.status for a in known[first : first + 3]] == [
        Status.UNCONFIRMED,
        Status.UNCONFIRMED,
        Status.MATCHED,
    ]
    assert known[first].place_id == -1
    driver.recogniser.reset()
    again = driver.drive(world, 10, 20)
    assert statuses(again)[Status.UNCONFIRMED] == 2


def test_between_keyframes_every_image_has_an_answer_and_none_is_stored(robot, world) -> None:
    driver = robot()
    driver.drive(world, 0, 60)
    driver.drive(world, 10, 20)
    places = len(driver.map)
    answers = [driver.see(world.view(9.5 + 0.05 * n), 9.5 + 0.05 * n) for n in range(8)]
    assert set(statuses(answers)) == {Status.MATCHED}
    assert all(abs(a.pose.position[0] - 9.6) < 0.7 for a in answers)
    assert len(driver.map) == places


def test_leaving_the_map_ends_the_matches_at_once(robot, world) -> None:
    robot("mapping").drive(world, 0, 60)
    driver = robot("localisation")
    assert set(statuses(driver.drive(world, 20, 60, night=True)[4:])) == {Status.MATCHED}
    beyond = statuses(driver.drive(world, 100, 125, night=True))
    assert beyond[Status.MATCHED] <= 2


def test_standing_still_stores_one_place(robot, world) -> None:
    driver = robot("mapping")
    answers = [driver.see(world.view(3.0), 3.0) for _ in range(10)]
    assert statuses(answers) == {Status.NEW_PLACE: 1, Status.NOT_SEARCHED: 9}


def test_blank_images_match_nothing(robot, world) -> None:
    driver = robot("mapping")
    driver.drive(world, 0, 60)
    black = np.zeros((48, 96, 3), dtype=np.uint8)
    for number in range(20):
        driver.see(black, 100.0 + number)
    driver = robot("localisation")
    answers = [driver.see(black, 0.5 * n) for n in range(20)]
    assert statuses(answers)[Status.MATCHED] == 0


# ------------------------------------------------------------------ modes and the map


def test_an_empty_map_and_a_sequence_not_yet_full(robot, world) -> None:
    robot("mapping")
    driver = robot("localisation")
    assert set(statuses(driver.drive(world, 0, 6))) == {Status.NO_MAP}
    robot("mapping").drive(world, 0, 30)
    driver = robot("localisation")
    assert [a.status for a in driver.drive(world, 0, 5)][:4] == [Status.WARMING_UP] * 4


def test_modes(robot, world) -> None:
    driver = robot("mapping")
    assert driver.drive(world, 0, 1)[0].status == Status.NEW_PLACE
    driver.recogniser.set_mode("both")
    assert driver.recogniser.mode == "both"
    driver.recogniser.set_mode("localisation")
    places = len(driver.map)
    driver.drive(world, 0, 20)
    assert len(driver.map) == places
    with refused("invalid_mode"):
        driver.recogniser.set_mode("dreaming")
    driver = robot("localisation")
    with refused("map_read_only"):
        driver.recogniser.set_mode("both")
    assert driver.recogniser.mode == "localisation"


def test_sessions_end_where_the_chain_of_stored_places_ends(robot, world) -> None:
    driver = robot()
    driver.drive(world, 0, 60)
    driver.drive(world, 10, 40)  # known, not stored
    new = driver.drive(world, 100, 125)
    stored = [a.added_place_id for a in new if a.added_place_id]
    assert len(stored) >= 18
    assert driver.map.get(60).session < driver.map.get(stored[-1]).session
    assert driver.map.get(stored[-2]).session == driver.map.get(stored[-1]).session


def test_removed_places_are_not_found_again(robot, world) -> None:
    robot("mapping").drive(world, 0, 100)
    driver = robot("both")
    driver.drive(world, 0, 10)
    driver.map.remove(range(1, 101))
    answers = driver.drive(world, 10, 30)
    assert statuses(answers)[Status.MATCHED] == 0
    assert driver.recogniser.map_report()["searchable_places"] <= 20


def test_removal_within_a_sequence_keeps_the_others_matching(robot, world) -> None:
    robot("mapping").drive(world, 0, 100)
    driver = robot("both")
    driver.drive(world, 40, 50)
    driver.map.remove(range(1, 21))
    answers = driver.drive(world, 50, 60)
    assert [a.place_id for a in answers] == list(range(51, 61))


def test_a_reader_sees_new_places_after_a_refresh(robot, world) -> None:
    writer = robot("mapping")
    writer.drive(world, 0, 60)
    descriptor = create_descriptor("patch_norm")
    with PlaceMap.open(writer.map.path, descriptor, read_only=True) as place_map:
        config = replace(writer.config, {"map.mode": "localisation"})
        reader = PlaceRecognizer(config, place_map, descriptor)
        writer.drive(world, 60, 100)

        def look(start: int) -> Counter:
            return statuses(
                reader.register(Query(world.view(n * 0.5), (start + n) * 10**9, "", pose(n)))
                for n in range(70, 90)
            )

        assert look(1)[Status.MATCHED] == 0
        place_map.refresh()
        assert look(100)[Status.MATCHED] >= 14


def pose(number: int) -> Pose:
    return Pose((number * 0.5, 0.0, 0.0))


def test_a_full_map_goes_on_recognising(robot, world) -> None:
    driver = robot(**{"map.max_places": 60})
    answers = driver.drive(world, 0, 70)
    assert [a.store_error is None for a in answers] == [True] * 60 + [False] * 10
    assert answers[65].store_error.reason == "map_full"
    assert answers[65].status in (Status.BELOW_THRESHOLD, Status.AMBIGUOUS)
    assert statuses(driver.drive(world, 20, 50))[Status.MATCHED] >= 25
    assert driver.recogniser.map_report()["counts"]["map_full"] >= 10


def test_a_full_map_may_drop_its_oldest(robot, world) -> None:
    driver = robot(**{"map.max_places": 50, "map.when_full": "drop_oldest"})
    driver.drive(world, 0, 90)
    assert driver.map.ids().tolist() == list(range(41, 91))
    assert statuses(driver.drive(world, 50, 80))[Status.MATCHED] >= 25


def test_other_weights_are_refused(robot, world) -> None:
    driver = robot("mapping")
    with refused("map_other_descriptor"):
        PlaceRecognizer(driver.config, driver.map, create_descriptor("patch_norm_bits"))


# ------------------------------------------------------------------ input


def test_time(robot, world) -> None:
    driver = robot()
    driver.drive(world, 0, 20)
    image = world.view(10)
    with refused("zero_stamp"):
        driver.recogniser.register(Query(image, 0))
    with refused("stamp_out_of_order"):
        driver.recogniser.register(Query(image, 5))
    driver.recogniser.reset()  # the bag started over
    places = driver.recogniser.map_report()["searchable_places"]
    driver.seconds = 0.0
    answers = driver.drive(world, 0, 20)
    assert driver.recogniser.map_report()["searchable_places"] == 20 > places
    assert statuses(answers)[Status.MATCHED] >= 14


def test_bad_images_change_nothing(robot, world) -> None:
    robot("mapping").drive(world, 0, 60)
    driver = robot("localisation")
    for bad in (
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    ):
        with refused("invalid_image"):
            driver.see(bad)
    control = driver.drive(world, 0, 10)
    assert [a.status for a in control[:4]] == [Status.WARMING_UP] * 4
    blank = driver.see(np.zeros((1, 1, 3), np.uint8))  # odd, but an image
    assert blank.status == Status.UNCONFIRMED  # the sequence fits, the image itself says nothing


def test_settings_change_while_running(robot, world) -> None:
    robot("mapping").drive(world, 0, 60)
    driver = robot("localisation")
    recogniser = driver.recogniser
    driver.drive(world, 0, 10)
    recogniser.configure(replace(driver.config, {"decision.threshold": 500.0}))
    answer = driver.drive(world, 10, 11)[0]
    assert (answer.status, answer.threshold) == (Status.BELOW_THRESHOLD, 500.0)
    recogniser.configure(replace(driver.config, {"sequence.length": 3}))
    assert statuses(driver.drive(world, 10, 20))[Status.WARMING_UP] == 2
    with refused("fixed_setting"):
        recogniser.configure(replace(driver.config, {"map.path": "elsewhere.db"}))
    with refused("map_read_only"):
        recogniser.configure(replace(driver.config, {"map.mode": "both"}))


def test_a_calibration_stored_in_the_map_is_used(robot, world) -> None:
    driver = robot("mapping")
    driver.drive(world, 0, 60)
    driver.map.set_calibration(
        {
            "threshold": 1.25,
            "margin": 0.5,
            "clear": 2.0,
            "length": 5,
            "source": "labels",
            "answers": 9,
            "places": 60,
        }
    )
    report = robot("localisation").recogniser.map_report()
    assert (report["threshold"], report["margin"]) == (1.25, 0.5)
    assert report["calibration_source"] == "labels"
    other = robot("localisation", **{"sequence.length": 3}).recogniser.map_report()
    assert other["calibration_source"] != "labels"


def test_questions_from_another_thread_while_driving(robot, world) -> None:
    driver = robot()
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                driver.recogniser.map_report()
                driver.map.remove([3])
                driver.map.thumbnail(1)
        except BaseException as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    driver.drive(world, 0, 60)
    done.set()
    asking.join()
    assert not failures
    assert driver.map.ids().tolist() == [1, 2, *range(4, 61)]
