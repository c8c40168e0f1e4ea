# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.zero_shot.names import check_names, normalised, singulars, unqualified


@pytest.mark.parametrize(
    "name", ["1e5", "no", "null", "NaN", "-1", "0x10", "Ölfass", "椅子", "a" * 100]
)
def test_words_that_look_like_something_else_stay_words(name):
    assert check_names([name]) == (name,)


REFUSED = [1e5, 7, None, True, b"car", ["car"], "", " ", " car", "car\n", "a\x00b", "a\x1b[2J"]
REFUSED += ["\u202e", "a" * 101, "\ud800", "___", "a\u200bb"]
SAME = [("car", "car"), ("Car", "cAR"), ("traffic_light", "traffic light"), ("x  y", "x-y")]
SAME += [("\uff43ar", "car"), ("Straße", "STRASSE")]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_are_refused(name):
    with pytest.raises(InputError) as caught:
        check_names([name])
    assert caught.value.reason == "bad_name"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("pair", SAME)
def test_duplicates_are_refused_whatever_their_spelling(pair):
    with pytest.raises(InputError) as caught:
        check_names(pair)
    assert caught.value.reason == "duplicate_name"
    assert all(repr(each) in str(caught.value) for each in pair)


def test_an_endless_list_is_cut_off():
    with pytest.raises(InputError, match="more than"):
        check_names(str(k) for k in iter(int, 1) for k in range(10**9))


@pytest.mark.parametrize(
    ("plural", "word"),
    [
        ("dogs", "dog"),
        ("boxes", "box"),
        ("buses", "bus"),
        ("glasses", "glass"),
        ("batteries", "battery"),
        ("ties", "tie"),
        ("churches", "church"),
        ("tomatoes", "tomato"),
        ("shoes", "shoe"),
        ("horses", "horse"),
        ("houses", "house"),
        ("wine_glasses", "wine glass"),
        ("People", "person"),
        ("KNIVES", "knife"),
        ("traffic-lights", "traffic light"),
        ("movies", "movie"),
        ("axes", "ax"),
    ],
)
def test_singular(plural, word):
    assert word in (plural, *singulars(plural))


@pytest.mark.parametrize("word", ["cape", "tube", "glass", "bus", "tennis", "gas", "car"])
def test_words_that_are_no_plural(word):
    assert singulars(word) == ()


def test_a_remark_in_parentheses_is_taken_off():
    assert unqualified("car_(automobile)") == "car"
    assert unqualified("(automobile)") == "(automobile)"


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)
