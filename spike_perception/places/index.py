# SPDX-License-Identifier: Apache-2.0
"""Search over the places in memory; rebuilt from the map at load, never stored.

Up to ``EXACT_BYTES`` of vectors all places are compared one by one. Beyond, the signs of the
centred vectors are scanned by Hamming distance and the best ``RERANK`` are compared exactly; bit
descriptors are scanned by Hamming distance alone, which is exact for them. The command
``spike-perception bench places`` measures both. An inverted file (IVF) is left out: at a million
places the scan of the bits costs a few milliseconds, and an inverted file would pay with training,
with recall and with removal.

Vectors lie in blocks of their own: growth allocates one more block and never copies what is there.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from spike_perception.places.descriptors import Kind

EXACT_BYTES = 32 << 20  # about 3 ms of memory traffic; 16,384 places of 512 floats
BIT_COST = 16  # counting bits in numpy costs so many times more a byte than multiplying floats
BLOCK_BYTES = 64 << 20  # reserved at once, filled and so really taken bit by bit
RERANK = 200
CENTRE_FROM = 20_000  # places whose mean centres the signs

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class PlaceIndex:
    """Vectors of the places by ascending id, and the nearest among them.

    Rows are positions in this order. Removing places closes the gap, so rows move and ids do not.

    Attributes:
        kind: ``"float"`` (similarity is the dot product) or ``"bits"`` (1 - 2 x share of bits that
            differ, which is the dot product of the signs divided by their number).
        dimension: floats or bits of a vector.
    """

    def __init__(self, kind: Kind, dimension: int, *, exact_bytes: int = EXACT_BYTES) -> None:
        """Start empty.

        Args:
            kind: as in the descriptor.
            dimension: as in the descriptor.
            exact_bytes: up to so many bytes of vectors all places are compared.
        """
        self.kind = kind
        self.dimension = dimension
        self._dtype = np.dtype(np.float32 if kind == "float" else np.uint8)
        self._width = dimension if kind == "float" else dimension // 8
        row_bytes = self._width * self._dtype.itemsize
        self._block_rows = max(1, BLOCK_BYTES // row_bytes)
        self._exact_places = exact_bytes // (row_bytes * (1 if kind == "float" else BIT_COST))
        self._blocks: list[NDArray[Any]] = []
        self._filled: list[int] = []
        self._ids = np.empty(1024, dtype=np.int64)
        self._count = 0
        self._codes: Any = None  # faiss.IndexBinaryFlat once the map is large
        self._centre: Floats | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Ints:
        """Ids by row, ascending, int64 [places]."""
        return self._ids[: self._count]

    @property
    def exact(self) -> bool:
        """Whether all places are compared exactly: :meth:`scores` is then cheap."""
        return self._count <= self._exact_places

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and codes held."""
        row_bytes = self._width * self._dtype.itemsize
        code_bytes = 0 if self._codes is None else int(self._codes.code_size)
        return self._count * (row_bytes + code_bytes + 8)

    def rows(self, ids: Ints) -> Ints:
        """Rows of those of ``ids`` that are there, in their order; the others are passed over."""
        rows = np.searchsorted(self.ids, ids)
        there = rows < self._count
        there[there] = self.ids[rows[there]] == ids[there]
        return np.asarray(rows[there], dtype=np.int64)

    def add(self, ids: Ints, vectors: NDArray[Any]) -> None:
        """Append places.

        Args:
            ids: int64 [n], ascending and greater than all before.
            vectors: float32 [n, dimension] or uint8 [n, dimension / 8].
        """
        ids = np.asarray(ids, dtype=np.int64)
        if vectors.dtype != self._dtype or vectors.shape != (ids.size, self._width):
            raise ValueError(f"vectors are {vectors.dtype} {vectors.shape}")
        previous = self._ids[self._count - 1] if self._count else 0
        if ids.size and (ids[0] <= previous or (np.diff(ids) <= 0).any()):
            raise ValueError("ids must ascend")
        self._append_ids(ids)
        done = 0
        while done < ids.size:
            if not self._blocks or self._filled[-1] == len(self._blocks[-1]):
                # Not zeroed: the system hands out the pages as they are first written.
                self._blocks.append(np.empty((self._block_rows, self._width), dtype=self._dtype))
                self._filled.append(0)
            start = self._filled[-1]
            part = vectors[done : done + self._block_rows - start]
            self._blocks[-1][start : start + len(part)] = part
            self._filled[-1] += len(part)
            done += len(part)
        self._count += ids.size
        if self._codes is not None:
            self._codes.add(self._encode(vectors))
        elif not self.exact:
            self._start_codes()

    def _append_ids(self, ids: Ints) -> None:
        needed = self._count + ids.size
        if needed > self._ids.size:
            grown = np.empty(max(needed, 2 * self._ids.size), dtype=np.int64)
            grown[: self._count] = self.ids
            self._ids = grown
        self._ids[self._count : needed] = ids

    def _start_codes(self) -> None:
        if self.kind == "float":
            sample = self.vectors(np.arange(min(self._count, CENTRE_FROM)))
            self._centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._codes = faiss.IndexBinaryFlat(8 * -(-self.dimension // 8))
        for block, filled in zip(self._blocks, self._filled, strict=True):
            for start in range(0, filled, 4096):
                self._codes.add(self._encode(block[start : min(start + 4096, filled)]))

    def _encode(self, vectors: NDArray[Any]) -> NDArray[np.uint8]:
        if self.kind == "bits":
            return np.ascontiguousarray(vectors)
        return np.packbits(vectors > self._centre, axis=1)

    def remove(self, ids: Ints) -> NDArray[np.bool_]:
        """Remove places; ids that are not there are passed over.

        Returns:
            bool [places before], True for the rows that stayed.
        """
        kept = ~np.isin(self.ids, ids)
        gone = np.flatnonzero(~kept)
        if gone.size == 0:
            return kept
        if self._codes is not None:
            self._codes.remove_ids(gone)  # keeps the order of the others
        start = 0
        for number, filled in enumerate(self._filled):
            part = kept[start : start + filled]
            start += filled
            if not part.all():
                block, staying = self._blocks[number], int(part.sum())
                block[:staying] = block[:filled][part]
                self._filled[number] = staying
        # Only the last block takes more, so a gap inside an earlier one would never be filled:
        # what is empty goes, what is thin stays until the next load.
        alive = [i for i, filled in enumerate(self._filled) if filled]
        self._blocks = [self._blocks[i] for i in alive]
        self._filled = [self._filled[i] for i in alive]
        remaining = self.ids[kept]
        self._ids[: remaining.size] = remaining
        self._count = int(remaining.size)
        return kept

    def vectors(self, rows: Ints) -> NDArray[Any]:
        """Copy of the vectors of some rows, [n, dimension] or [n, dimension / 8]."""
        starts = np.cumsum([0, *self._filled])
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], starts)
        found = np.empty((rows.size, self._width), dtype=self._dtype)
        for number, block in enumerate(self._blocks):
            chosen = order[cuts[number] : cuts[number + 1]]
            if chosen.size:
                found[chosen] = block[rows[chosen] - starts[number]]
        return found

    def similarity(self, queries: NDArray[Any], vectors: NDArray[Any]) -> Floats:
        """Exact similarities float32 [queries, vectors]."""
        if self.kind == "float":
            if len(queries) == 1:
                return _dot_products(queries[0], vectors)[None]
            return np.asarray(queries @ vectors.T, dtype=np.float32)
        different = np.stack([_differing_bits(query, vectors) for query in queries])
        return 1.0 - different.astype(np.float32) * np.float32(2.0 / self.dimension)

    def scores(self, queries: NDArray[Any], first_row: int = 0) -> Floats:
        """Exact similarities of queries [n, ...] to every place from ``first_row`` on."""
        parts, start = [np.empty((len(queries), 0), dtype=np.float32)], 0
        for block, filled in zip(self._blocks, self._filled, strict=True):
            begin = max(first_row - start, 0)
            if begin < filled:
                parts.append(self.similarity(queries, block[begin:filled]))
            start += filled
        return np.concatenate(parts, axis=1)

    def search(self, query: NDArray[Any], k: int) -> tuple[Ints, Floats]:
        """The places nearest to one query.

        Args:
            query: float32 [dimension] or uint8 [dimension / 8].
            k: places wanted.

        Returns:
            Rows int64 and similarities float32, best first, min(k, places) of each.
        """
        k = min(k, self._count)
        if k == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if self._codes is None:
            rows = np.arange(self._count)
            scores = self.scores(query[None])[0]
        else:
            wanted = k if self.kind == "bits" else max(k, min(RERANK, self._count))
            # On one core: with a busy neighbour the threads wait for one another (measured for a
            # million places: 144 ms instead of 3.5). OpenMP keeps this number for each thread of
            # the program, so it is set where the search is made.
            faiss.omp_set_num_threads(1)
            distances, found = self._codes.search(self._encode(query[None]), wanted)
            rows = found[0]
            if self.kind == "bits":
                scores = 1.0 - distances[0].astype(np.float32) * np.float32(2.0 / self.dimension)
            else:
                scores = self.similarity(query[None], self.vectors(rows))[0]
        best = np.argpartition(-scores, k - 1)[:k] if k < scores.size else np.arange(k)
        best = best[np.lexsort((rows[best], -scores[best]))]
        return rows[best], scores[best]


def _dot_products(query: Floats, vectors: Floats) -> Floats:
    """One query with many vectors, on one core.

    The product of numpy uses all cores for this; with a busy neighbour it then waits for the
    slowest of them (measured for 10,000 x 512: 8 ms instead of 0.6).
    """
    query, vectors = np.ascontiguousarray(query), np.ascontiguousarray(vectors)
    products = np.empty(len(vectors), dtype=np.float32)
    if products.size:
        pointers = [faiss.swig_ptr(array) for array in (products, query, vectors)]
        # Of FAISS's C++ interface, which its type hints leave out.
        faiss.fvec_inner_products_ny(*pointers, query.size, products.size)  # type: ignore[attr-defined]
    return products


def _differing_bits(query: NDArray[np.uint8], codes: NDArray[np.uint8]) -> Ints:
    difference = np.bitwise_xor(codes, query)
    if hasattr(np, "bitwise_count"):  # numpy 2
        if difference.shape[1] % 8 == 0:
            difference = difference.view(np.uint64)
        return np.asarray(np.bitwise_count(difference).sum(axis=1, dtype=np.int64))
    return np.asarray(_BITS[difference].sum(axis=1, dtype=np.int64))


_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
