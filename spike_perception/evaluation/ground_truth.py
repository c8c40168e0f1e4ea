# SPDX-License-Identifier: Apache-2.0
"""Which reference places are true matches of which queries.

Every function returns bool ``[Q, P]``: one row a query, one column a place of the reference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from spike_perception.errors import InputError

Truth = npt.NDArray[np.bool_]

MAX_ELEMENTS = 1 << 31
"""Largest ground truth, in query-place pairs (a byte each)."""


def diagonal(queries: int, references: int, tolerance: int) -> Truth:
    """Query k matches reference places k - ``tolerance`` to k + ``tolerance``.

    Raises:
        InputError: ``count_mismatch`` if the two counts differ: the frames then do not
            correspond one to one.
    """
    if queries != references:
        raise InputError(
            "count_mismatch",
            f"there are {queries} query and {references} reference images; frame k can only be "
            "taken for frame k if the counts agree: give the correspondence as --ground-truth",
        )
    return from_indices(np.arange(queries), references, tolerance)


def from_indices(indices: npt.NDArray[np.int64], references: int, tolerance: int) -> Truth:
    """Query k matches the places within ``tolerance`` of place ``indices[k]``; -1 matches none.

    Raises:
        InputError: ``invalid_ground_truth`` if an index is out of range,
            ``ground_truth_too_large``, or ``invalid_tolerance``.
    """
    pairs = np.stack([np.arange(len(indices)), indices], axis=1)
    return _from_pairs(pairs[pairs[:, 1] != -1], len(indices), references, tolerance)


def from_poses(
    query_positions: npt.NDArray[np.float64],
    reference_positions: npt.NDArray[np.float64],
    distance_m: float,
    *,
    query_headings: npt.NDArray[np.float64] | None = None,
    reference_headings: npt.NDArray[np.float64] | None = None,
    heading_rad: float = np.pi,
) -> Truth:
    """A query matches the places within a distance and, if given, a difference of heading.

    Args:
        query_positions: float64 ``[Q, 2]`` or ``[Q, 3]`` (m).
        reference_positions: float64 ``[P, 2]`` or ``[P, 3]`` (m), in the same frame.
        distance_m: largest distance of a true match (m), inclusive.
        query_headings: float64 ``[Q]`` (rad); the heading counts if both are given.
        reference_headings: float64 ``[P]`` (rad).
        heading_rad: largest absolute difference of heading of a true match (rad), inclusive.

    Returns:
        bool ``[Q, P]``; a query without a finite pose matches none, a place without one is
        matched by none.
    """
    _check_size(len(query_positions), len(reference_positions))
    truth = np.empty((len(query_positions), len(reference_positions)), np.bool_)
    for k, position in enumerate(query_positions):  # row by row: no [Q, P, 3] in memory
        with np.errstate(invalid="ignore"):
            offset = np.linalg.norm(reference_positions - position, axis=1)
            truth[k] = offset <= distance_m
            if query_headings is not None and reference_headings is not None:
                turn = np.angle(np.exp(1j * (reference_headings - query_headings[k])))
                truth[k] &= np.abs(turn) <= heading_rad
    return truth


def load(path: str | Path, queries: int, references: int, tolerance: int) -> Truth:
    """Read a ground truth from a ``.npy`` file.

    Three forms are understood, told apart by shape:

    - ``[queries, references]``, bool or numbers 0 and 1: taken as it is, ``tolerance`` unused;
    - ``[queries]``, integers: the true place of every query, -1 for none, widened by
      ``tolerance`` places;
    - ``[N, 2]``, integers: pairs (query, place), widened by ``tolerance`` places.

    Raises:
        InputError: ``ground_truth_missing``, ``ground_truth_unreadable``,
            ``ground_truth_too_large`` or ``invalid_ground_truth``; a matrix of shape
            [references, queries] is refused as transposed, and files of Python objects are never
            unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("ground_truth_missing", f"there is no ground truth file {path}")
    try:
        # Mapped, not read: the header's claims are checked before anything is allocated.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(
            "ground_truth_unreadable",
            f"{path} is no .npy file of numbers ({error}); save a bool matrix "
            "[queries, references] or an integer list",
        ) from error
    if not isinstance(stored, np.ndarray):
        raise InputError("ground_truth_unreadable", f"{path} is an .npz archive; give a .npy file")
    _check_size(queries, references)
    shape, integers = stored.shape, stored.dtype.kind in "iu"
    if shape == (queries, references) and stored.dtype.kind in "biuf":
        if stored.dtype.kind != "b" and not np.isin(stored, (0, 1)).all():
            raise _invalid(path, "a matrix must hold only 0 and 1 (or false and true)")
        return np.asarray(stored, np.bool_)
    if shape == (queries,) and integers:
        return from_indices(np.asarray(stored, np.int64), references, tolerance)
    if len(shape) == 2 and shape[1] == 2 and integers and shape[0] <= MAX_ELEMENTS:
        return _from_pairs(np.asarray(stored, np.int64), queries, references, tolerance)
    hint = "; it looks transposed" if shape == (references, queries) else ""
    raise _invalid(
        path,
        f"it is {stored.dtype} {list(shape)}; allowed is a 0/1 matrix [{queries}, {references}] "
        f"(rows are queries), integers [{queries}] or pairs [N, 2]{hint}",
    )


def _from_pairs(
    pairs: npt.NDArray[np.int64], queries: int, references: int, tolerance: int
) -> Truth:
    if tolerance < 0:
        raise InputError("invalid_tolerance", f"tolerance is {tolerance} frames; at least 0")
    _check_size(queries, references)
    query, place = pairs[:, 0], pairs[:, 1]
    outside = (query < 0) | (query >= queries) | (place < 0) | (place >= references)
    if outside.any():
        first = pairs[outside][0].tolist()
        raise InputError(
            "invalid_ground_truth",
            f"ground truth names query {first[0]}, place {first[1]}, but there are {queries} "
            f"queries and {references} places, counted from 0",
        )
    truth = np.zeros((queries, references), np.bool_)
    for offset in range(-min(tolerance, references), min(tolerance, references) + 1):
        near = place + offset
        inside = (near >= 0) & (near < references)
        truth[query[inside], near[inside]] = True
    return truth


def _check_size(queries: int, references: int) -> None:
    if queries * references > MAX_ELEMENTS:
        raise InputError(
            "ground_truth_too_large",
            f"{queries} queries times {references} places are more than {MAX_ELEMENTS} pairs; "
            "evaluate a part of them",
        )


def _invalid(path: Path, why: str) -> InputError:
    return InputError("invalid_ground_truth", f"{path} cannot be used as ground truth: {why}")
