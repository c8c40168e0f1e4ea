# SPDX-License-Identifier: Apache-2.0
"""Place recognition for a stream of camera images: the pure core of the node.

One image in, one :class:`Recognition` out. What happens between: describe; compare with the map;
match the sequence of the last keyframes; decide; store a new place where the mode asks for it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.places import calibration as calibrating
from spike_perception.places.calibration import Calibration
from spike_perception.places.config import RecognitionConfig
from spike_perception.places.descriptors import Descriptor
from spike_perception.places.index import PlaceIndex
from spike_perception.places.map import Place, PlaceMap
from spike_perception.places.retrieval import Ranking, retrieve
from spike_perception.places.sequence import (
    SequenceMatcher,
    aggregate,
    centre_and_spread,
    session_bounds,
)
from spike_perception.places.table import PlaceTable
from spike_perception.places.thumbnail import encode_thumbnail
from spike_perception.places.types import Candidate, Query, Recognition, Status

# On maps too large to be compared as a whole with every image, trajectories are followed back from
# these ends alone: the places nearest to the newest image, and those nearest to the images before,
# moved on by the places travelled since.
ENDS_NOW = 50
ENDS_THEN = 5
BACKGROUND = 2048  # places sampled for level and spread on such maps
CALIBRATE_GROWTH = 1.5  # calibrate again each time the map has grown or shrunk so many times

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Seen:
    """A keyframe of the current sequence."""

    vector: NDArray[Any]
    centre: float
    spread: float
    nearest: Ints  # ids of the places nearest to it, on maps too large to be compared as a whole


@dataclass(frozen=True)
class _Search:
    """Sequence scores of some rows of the index."""

    scores: Floats  # [rows]
    rows: Ints
    invalid: NDArray[np.bool_] | None  # rows that were only on the way to an end
    seen: _Seen
    standardised: Floats  # the newest image alone, [rows]


def _share(done: float, whole: float) -> float:
    """``done / whole``, at most 1; everything is the whole of nothing."""
    return 1.0 if done >= whole else done / whole


class PlaceRecognizer:
    """Recognises places in a stream of images; see the module.

    Methods may be called from any thread; they wait for one another.

    Attributes:
        config: the settings in force; change them with :meth:`configure`.
    """

    def __init__(
        self, config: RecognitionConfig, place_map: PlaceMap, descriptor: Descriptor
    ) -> None:
        """Build the index from the map and calibrate.

        Args:
            config: all settings.
            place_map: open map; in the modes mapping and both open for writing.
            descriptor: the descriptor that made the map.

        Raises:
            InputError: ``map_read_only`` if the mode writes and the map cannot be written,
                ``map_other_descriptor`` or ``map_other_weights``, ``map_corrupt``.
        """
        place_map.require(descriptor)
        self.config = config
        self._map = place_map
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._index = PlaceIndex(place_map.descriptor.kind, place_map.descriptor.dimension)
        self._table = PlaceTable()
        # Places that the index does not hold yet, oldest first, each with the time from which it
        # may be found: what was stored a moment ago must not be recognised.
        self._pending: deque[tuple[Place, int]] = deque()
        self._followed = 0  # last id taken over from the map
        self._removals = place_map.removals
        self._background: NDArray[Any] | None = None
        self._background_of = 0
        self._counts: Counter[str] = Counter()
        self._calibration = calibrating.default_calibration(config.sequence.length)
        self._calibrating: Iterator[Calibration | None] | None = None
        self.set_mode(config.map.mode)
        self._limit_map()
        self._forget()
        self._follow_map(0)
        self._calibrate()

    # ---------------------------------------------------------------- control

    @property
    def mode(self) -> str:
        """``mapping``, ``localisation`` or ``both``."""
        return self.config.map.mode

    def set_mode(self, mode: str) -> None:
        """Change the mode.

        Raises:
            InputError: ``invalid_mode``, or ``map_read_only`` if the map cannot be written.
        """
        if mode not in ("mapping", "localisation", "both"):
            raise InputError(
                "invalid_mode", f"mode is {mode!r}; it is mapping, localisation or both"
            )
        if mode != "localisation" and self._map.read_only:
            raise InputError(
                "map_read_only",
                f"mode {mode} stores places, but the map {self._map.path} is open read only; stay "
                "in localisation, or open the map for writing",
            )
        with self._lock:
            self.config = replace(self.config, map=replace(self.config.map, mode=mode))
            self._broken = True

    def configure(self, config: RecognitionConfig) -> None:
        """Take changed settings; a changed sequence starts anew.

        Raises:
            InputError: ``fixed_setting`` if map.path or descriptor.name changes; ``map_read_only``.
        """
        with self._lock:
            old = self.config
            if config.map.path != old.map.path or config.descriptor != old.descriptor:
                raise InputError(
                    "fixed_setting",
                    "map.path and descriptor.name cannot change while the map is open; make a new "
                    "recogniser",
                )
            self.set_mode(config.map.mode)
            self.config = config
            self._limit_map()
            if config.sequence != old.sequence:
                self._forget()
            if config != old:
                self._calibrate()

    def reset(self) -> None:
        """Forget the sequence, the confirmations and the time: after a jump of the clock.

        The map stays, and what was stored so far may be matched from now on.
        """
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        length = self.config.sequence.length
        self._matcher = SequenceMatcher(self.config.sequence)
        self._seen: deque[_Seen] = deque(maxlen=length - 1)
        self._last_stamp: int | None = None
        self._keyframe: Query | None = None
        self._streak = 0
        self._streak_id = -1
        self._broken = True  # the next place stored is no neighbour of the last one
        self._pending = deque((place, 0) for place, _ in self._pending)

    def _limit_map(self) -> None:
        chosen = self.config.map
        self._map.set_limit(chosen.max_places, drop_oldest=chosen.when_full == "drop_oldest")

    def map_report(self) -> dict[str, Any]:
        """State of map, index and decision, as plain values, for diagnostics."""
        with self._lock:
            in_force = self._in_force()
            return {
                **self._map.info(),
                "mode": self.mode,
                "searchable_places": len(self._index),
                "index": "exact" if self._index.exact else "hamming_prefilter",
                "index_bytes": self._index.nbytes,
                "threshold": in_force.threshold,
                "margin": in_force.margin,
                "calibration_source": in_force.source,
                "counts": dict(self._counts),
            }

    # ---------------------------------------------------------------- one image

    def register(self, query: Query) -> Recognition:
        """Recognise one image, and store it where the mode asks for it.

        Args:
            query: image, stamp and pose.

        Returns:
            The answer. A place that was to be stored and could not be is reported in
            ``store_error``; the answer stands all the same.

        Raises:
            InputError: ``zero_stamp``, ``stamp_out_of_order``, ``invalid_image``; the recogniser
                is then as if the query had not come.
        """
        with self._lock:
            self._check_stamp(query.stamp_ns)
            vector = self._descriptor.describe(query.image)
            self._last_stamp = query.stamp_ns
            progress = self._progress(query)
            keyframe = progress >= 1.0
            if keyframe:
                self._keyframe = query
            if self.mode == "mapping":
                answer = Recognition(Status.NOT_SEARCHED)
            else:
                self._follow_map(query.stamp_ns)
                answer = self._search(vector, progress)
            if keyframe and self._stores(answer.status):
                answer = self._store(query, vector, answer)
            elif keyframe:
                self._broken = True
            self._counts[answer.status.name.lower()] += 1
            return answer

    def _check_stamp(self, stamp_ns: int) -> None:
        if stamp_ns <= 0:
            raise InputError(
                "zero_stamp",
                f"stamp is {stamp_ns} ns; images need the time of their exposure (set the header)",
            )
        if self._last_stamp is not None and stamp_ns < self._last_stamp:
            raise InputError(
                "stamp_out_of_order",
                f"stamp {stamp_ns} ns is before the last one, {self._last_stamp} ns; images must "
                "come in order of time (after a jump of the clock, reset first)",
            )

    def _progress(self, query: Query) -> float:
        """How far it is from the last keyframe, as a share of the way to the next; 1: keyframe."""
        last, limits = self._keyframe, self.config.keyframe
        if last is None:
            return 1.0
        if query.pose is not None and last.pose is not None:
            way = _share(query.pose.distance_to(last.pose), limits.distance_m)
            turn = _share(query.pose.angle_to(last.pose), limits.angle_rad)
            return max(way, turn)
        return _share(query.stamp_ns - last.stamp_ns, limits.interval_s * 1e9)

    def _stores(self, status: Status) -> bool:
        if self.mode == "mapping":
            return True
        # While a sequence fills up over a map that has places, nobody knows whether this is one of
        # them: better a few places fewer than places twice.
        return self.mode == "both" and status in (
            Status.NO_MAP,
            Status.BELOW_THRESHOLD,
            Status.AMBIGUOUS,
        )

    def _store(self, query: Query, vector: NDArray[Any], answer: Recognition) -> Recognition:
        width = self.config.map.thumbnail_width
        try:
            if self._broken:
                self._map.begin_session()
            picture = encode_thumbnail(query.image, width) if width else None
            place_id = self._map.add(vector, query.stamp_ns, query.frame_id, query.pose, picture)
        except InputError as error:
            self._counts[error.reason] += 1
            self._broken = True
            return replace(answer, store_error=error)
        self._broken = False
        if self._followed == self._map.last_place_id - 1:
            session = self._map.session
            place = Place(
                place_id, session, query.stamp_ns, query.frame_id, query.pose, vector.copy()
            )
            self._followed = place_id
            exclusion = int(self.config.decision.exclusion_s * 1e9)
            self._pending.append((place, query.stamp_ns + exclusion))
        return replace(answer, status=Status.NEW_PLACE, place_id=place_id, added_place_id=place_id)

    # ---------------------------------------------------------------- following the map

    def _follow_map(self, now_ns: int) -> None:
        """Bring the index up to date with the map, less what is within the exclusion time."""
        if self._map.removals != self._removals:
            self._removals = self._map.removals
            self._drop_removed(self._map.ids())
        before = len(self._index)
        self._release(now_ns)
        if self._followed < self._map.last_place_id:
            for batch in self._map.places(after=self._followed):
                self._followed = batch[-1].place_id
                self._pending.extend((place, 0) for place in batch)
                self._release(now_ns)
            self._followed = max(self._followed, self._map.last_place_id)
        places, calibrated = len(self._index), max(self._calibration.places, 1)
        self._extend_sequence(before)
        changed = places >= CALIBRATE_GROWTH * calibrated or places * CALIBRATE_GROWTH <= calibrated
        if self._calibrating is not None:
            self._go_on_calibrating()  # a step for every image: none has to wait for the whole
        elif changed:
            self._begin_calibration()

    def _release(self, now_ns: int) -> None:
        due: list[Place] = []
        # In order of their ids, whatever their times: the rows of the index ascend by id.
        while self._pending and self._pending[0][1] <= now_ns:
            due.append(self._pending.popleft()[0])
        if due:
            ids = np.array([place.place_id for place in due], dtype=np.int64)
            self._index.add(ids, np.stack([place.descriptor for place in due]))
            self._table.append(due)

    def _drop_removed(self, ids: Ints) -> None:
        alive = set(ids.tolist())
        self._pending = deque(item for item in self._pending if item[0].place_id in alive)
        kept = self._index.remove(np.setdiff1d(self._index.ids, ids))
        if not kept.all():
            self._table.keep(kept)
            self._background = None
            self._matcher.keep(kept)

    def _extend_sequence(self, before: int) -> None:
        """Give the images of the current sequence their scores on places that came since."""
        if not self._seen:
            return
        if not self._index.exact:
            self._matcher.reset()  # from now on scores are looked up where they are needed
            return
        # A map that has shrunk may be compared as a whole again: then all scores are missing.
        missing = len(self._matcher) != len(self._seen)
        if not missing and len(self._index) == before:
            return
        first = 0 if missing else before
        raw = self._index.scores(np.stack([seen.vector for seen in self._seen]), first)
        rows = self._standardised(list(self._seen), raw)
        if missing:
            self._matcher.reset()
            for row in rows[::-1]:
                self._matcher.push(row)
        else:
            self._matcher.extend(rows)

    @staticmethod
    def _standardised(seen: list[_Seen], raw: Floats) -> Floats:
        centre = np.array([[s.centre] for s in seen], dtype=np.float32)
        spread = np.array([[s.spread] for s in seen], dtype=np.float32)
        return (raw - centre) / spread

    # ---------------------------------------------------------------- search and decision

    def _calibrate(self) -> None:
        """Calibrate anew, or take what is stored in the map for this sequence length."""
        self._begin_calibration()
        while self._calibrating is not None:
            self._go_on_calibrating()

    def _begin_calibration(self) -> None:
        stored = self._map.calibration
        found = None if stored is None else Calibration.from_dict(stored)
        if found is not None and found.length == self.config.sequence.length:
            self._calibration = replace(found, places=len(self._index))
            self._calibrating = None
            return
        self._calibrating = calibrating.calibration_steps(
            self._index, self._table.layout(), self.config.sequence, self.config.decision
        )

    def _go_on_calibrating(self) -> None:
        if self._calibrating is not None:
            found = next(self._calibrating)
            if found is not None:
                self._calibration, self._calibrating = found, None

    def _in_force(self) -> Calibration:
        """The calibration, with what the settings say in its place."""
        chosen, found = self.config.decision, self._calibration
        if chosen.threshold:
            found = replace(found, threshold=chosen.threshold)
        if chosen.margin:
            found = replace(found, margin=chosen.margin, source="settings")
        return found

    def _search(self, vector: NDArray[Any], progress: float) -> Recognition:
        keyframe = progress >= 1.0
        warm = len(self._seen) == self.config.sequence.length - 1
        if len(self._index) == 0:
            if keyframe:
                # An infinite spread: on places that come later this image says nothing.
                empty = np.empty(0, dtype=np.float32)
                nothing = np.empty(0, dtype=np.int64)
                self._remember(_Seen(vector, 0.0, np.inf, nothing), empty)
            return Recognition(Status.NO_MAP)
        score = self._score_all if self._index.exact else self._score_ends
        search = score(vector, progress)
        decision = self.config.decision
        layout = self._table.layout(None if search.invalid is None else search.rows)
        ranking = retrieve(
            search.scores[None],
            None if search.invalid is None else search.invalid[None],
            decision.candidates,
            window=decision.neighbourhood,
            radius=decision.same_place_m,
            layout=layout,
        )
        answer = self._decide(ranking, search, warm, keyframe)
        if keyframe:
            self._remember(search.seen, search.standardised)
        return answer

    def _remember(self, seen: _Seen, standardised: Floats) -> None:
        self._seen.appendleft(seen)
        if self._index.exact:
            self._matcher.push(standardised)

    def _score_all(self, vector: NDArray[Any], progress: float) -> _Search:
        raw = self._index.scores(vector[None])[0]
        centre, spread = centre_and_spread(raw)
        row = (raw - np.float32(centre)) / np.float32(spread)
        scores = self._matcher.evaluate(row, session_bounds(self._table.session), progress)
        nearest = np.argpartition(-raw, min(ENDS_THEN, raw.size) - 1)[:ENDS_THEN]
        seen = _Seen(vector, centre, spread, self._index.ids[nearest])
        return _Search(scores, np.arange(raw.size), None, seen, row)

    def _score_ends(self, vector: NDArray[Any], progress: float) -> _Search:
        """As :meth:`_score_all`, but along the trajectories to the likeliest ends alone."""
        index, steps, places = self._index, self._matcher.steps_since(progress), len(self._index)
        centre, spread = centre_and_spread(
            index.similarity(vector[None], self._background_vectors())[0]
        )
        found, _ = index.search(vector, ENDS_NOW)
        ends = [found]
        for age, seen in enumerate(self._seen, start=1):
            then = index.rows(seen.nearest)  # less those removed since
            ends.append((then[:, None] + np.unique(steps[:, age])[None]).reshape(-1))
        end_rows = np.unique(np.concatenate(ends))
        end_rows = end_rows[(end_rows >= 0) & (end_rows < places)]
        reach = np.arange(-int(steps.max()), -int(steps.min()) + 1)
        rows = np.unique((end_rows[:, None] + reach[None]).reshape(-1))
        rows = rows[(rows >= 0) & (rows < places)]
        newest = _Seen(vector, centre, spread, index.ids[found[:ENDS_THEN]])
        images = [newest, *self._seen]
        raw = index.similarity(np.stack([seen.vector for seen in images]), index.vectors(rows))
        standardised = self._standardised(images, raw)
        bounds = session_bounds(self._table.session[rows], rows)
        scores = aggregate(list(standardised), steps, bounds, progress)
        return _Search(scores, rows, ~np.isin(rows, end_rows), newest, standardised[0])

    def _background_vectors(self) -> NDArray[Any]:
        """A sample of the map, drawn anew when the map has grown or shrunk by a quarter."""
        places = len(self._index)
        if self._background is None or not 0.8 < places / self._background_of < 1.25:
            rows = np.random.default_rng(0).choice(places, min(BACKGROUND, places), replace=False)
            self._background, self._background_of = self._index.vectors(np.sort(rows)), places
        return self._background

    def _decide(self, ranking: Ranking, search: _Search, warm: bool, keyframe: bool) -> Recognition:
        in_force = self._in_force()
        columns = ranking.columns[0]
        best = search.rows[columns[columns >= 0]].tolist()
        score, margin = float(ranking.scores[0, 0]), float(ranking.margin[0])
        candidates = tuple(
            Candidate(int(self._index.ids[row]), float(value), self._table.pose(row))
            for row, value in zip(best, ranking.scores[0], strict=False)
        )
        answer = Recognition(
            Status.WARMING_UP,
            score=score,
            margin=margin,
            threshold=in_force.threshold,
            candidates=candidates,
        )
        if not warm:
            return answer
        verdict = in_force.accepts(score, margin)
        # The place itself or a neighbour: sequences with a velocity tolerance may be one off.
        supported = (
            search.standardised[np.abs(search.rows - best[0]) <= 1].max()
            >= self.config.decision.support
        )
        streak = self._agreeing(best[0]) + 1 if verdict == "yes" and supported else 0
        if keyframe:
            self._streak, self._streak_id = streak, candidates[0].place_id
        if verdict == "low":
            return replace(answer, status=Status.BELOW_THRESHOLD)
        if verdict == "ambiguous":
            return replace(answer, status=Status.AMBIGUOUS)
        if not supported or streak < self.config.decision.confirmations:
            return replace(answer, status=Status.UNCONFIRMED)
        return replace(
            answer,
            status=Status.MATCHED,
            place_id=candidates[0].place_id,
            pose=candidates[0].pose,
        )

    def _agreeing(self, row: int) -> int:
        """Keyframes in a row before this one that were accepted at this place."""
        if self._streak == 0:
            return 0
        last = self._index.rows(np.array([self._streak_id]))
        if last.size == 0:  # removed in the meantime
            return 0
        chosen = self.config.decision
        agrees = self._table.same_place(
            row, int(last[0]), chosen.neighbourhood, chosen.same_place_m
        )
        return self._streak if agrees else 0
