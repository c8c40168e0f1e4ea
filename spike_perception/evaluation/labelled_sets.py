# SPDX-License-Identifier: Apache-2.0
"""Settings that say which part of a labelled set of points or events is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from spike_perception.bags.folder_files import spread
from spike_perception.bags.labelled_events import EventSet
from spike_perception.bags.labelled_points import PointSet
from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.evaluation.naming_task import NamingConfig

SetT = TypeVar("SetT", PointSet, EventSet)


@dataclass(frozen=True)
class SetConfig(NamingConfig):
    """Settings that choose a part of the data, besides those of :class:`NamingConfig`."""

    split: str = setting(
        "", "split of the data: of an .npz file points_SPLIT, else a sub-folder; empty: the whole"
    )
    first: int = setting(
        0, "judge the first so many samples alone, in natural order of names; 0: all", minimum=0
    )
    last: int = setting(
        0, "judge the last so many samples alone, in natural order of names; 0: all", minimum=0
    )
    only: str = setting("", "judge samples of these classes alone, NAME,NAME,... as in the data")


def part(found: SetT, config: SetConfig) -> SetT:
    """The part of a set that the settings ask for, ``limit`` last.

    Raises:
        InputError: ``no_labels`` for a set without classes, ``invalid_option`` for settings that
            contradict one another or that leave nothing.
    """
    if not found.classes:
        raise InputError(
            "no_labels",
            f"{found.path} names no classes, so that nothing can be judged; expected is one "
            "sub-folder a class, or labels beside the data (see docs)",
        )
    if config.first and config.last:
        raise InputError("invalid_option", "--first and --last exclude each other")
    begin = max(0, len(found) - config.last) if config.last else 0
    rows = np.arange(begin, min(len(found), config.first or len(found)))
    if config.only:
        wanted = [each.strip() for each in config.only.split(",") if each.strip()]
        unknown = [each for each in wanted if each not in found.classes]
        if unknown or not wanted:
            raise InputError(
                "invalid_option",
                f"--only {config.only}: no class {', '.join(unknown)}; the data has "
                f"{', '.join(found.classes[:50])}",
            )
        kept = [k for k, name in enumerate(found.classes) if name in wanted]
        rows = rows[np.isin(found.labels[rows], kept)]
        names = tuple(found.classes[k] for k in kept)
        found = replace(found, classes=names, labels=np.searchsorted(kept, found.labels))
    if not len(rows):
        raise InputError("invalid_option", "the settings leave no sample to judge")
    return found.take(rows[spread(len(rows), config.limit or None)])
