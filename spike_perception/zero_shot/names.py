# SPDX-License-Identifier: Apache-2.0
"""Class names: text from outside that must stay text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from spike_perception.errors import InputError

MAX_NAME_LENGTH = 100
MAX_NAMES = 65_536

# Plurals that no ending tells.
_IRREGULAR = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "knives": "knife",
    "wives": "wife",
    "lives": "life",
    "leaves": "leaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "halves": "half",
    "loaves": "loaf",
    "scarves": "scarf",
    "calves": "calf",
    "oxen": "ox",
    "dice": "die",
}


def check_names(names: Iterable[object], *, what: str = "name") -> tuple[str, ...]:
    """Names as given, once all of them are usable.

    Args:
        names: the names; each stays the string it is ("1e5" is a word, not a number).
        what: what to call one of them in a message.

    Raises:
        InputError: ``bad_name`` for what is no string, is empty, has control characters or outer
            blanks, or is too long; ``duplicate_name`` for two that differ in case, width or blanks
            only; ``too_many_names``.
    """
    seen: dict[str, str] = {}
    for name in names:
        if len(seen) == MAX_NAMES:
            raise InputError("too_many_names", f"more than {MAX_NAMES} {what}s are given")
        checked = check_name(name, what=what)
        key = normalised(checked)
        if key in seen:
            raise InputError(
                "duplicate_name",
                f"{what}s {seen[key]!r} and {checked!r} are the same word; give it once",
            )
        seen[key] = checked
    return tuple(seen.values())


def check_name(name: object, *, what: str = "name") -> str:
    """One name; see :func:`check_names`."""
    if not isinstance(name, str):
        raise InputError("bad_name", f"{what} is {repr(name)[:80]}, expected a string")
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise InputError(
            "bad_name",
            f"{what} {name[:20]!r} has {len(name)} characters, allowed are 1 to {MAX_NAME_LENGTH}",
        )
    if name != name.strip() or any(unicodedata.category(each)[0] == "C" for each in name):
        raise InputError(
            "bad_name",
            f"{what} {name!r} has outer blanks or control characters; take them out",
        )
    if not normalised(name):
        raise InputError("bad_name", f"{what} {name!r} has no letter or digit")
    return name


def normalised(name: str) -> str:
    """The word without regard to case, width, underscores, hyphens and repeated blanks."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(re.split(r"[\s_\-]+", folded)).strip()


def unqualified(name: str) -> str:
    """The word without a remark in parentheses that tells it from others of its spelling.

    >>> unqualified("bat (animal)"), unqualified("bat")
    ('bat', 'bat')
    """
    return re.sub(r"[\s_]*\([^()]*\)$", "", name) or name


def singulars(name: str) -> tuple[str, ...]:
    """What a normalised word may be the plural of, by the rules of English; likeliest first.

    >>> singulars("Traffic_Lights"), singulars("boxes"), singulars("knives"), singulars("glass")
    (('traffic light',), ('boxe', 'box'), ('knife',), ())
    """
    head, blank, last = normalised(name).rpartition(" ")
    found: list[str] = []
    if last in _IRREGULAR:
        found = [_IRREGULAR[last]]
    elif len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        if last.endswith("ies"):
            found.append(f"{last[:-3]}y")
        found.append(last[:-1])
        if last.endswith("es"):
            found.append(last[:-2])
    return tuple(f"{head}{blank}{each}" for each in found)
