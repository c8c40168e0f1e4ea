# SPDX-License-Identifier: Apache-2.0
"""The vocabulary pack: a folded vocabulary in one file, tied to one encoder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spike_perception.deploy import safe_file
from spike_perception.deploy.safe_file import DEFAULT_LIMITS, SHA256, TEACHER, TEXT, Format, Limits
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.zero_shot.folding import FoldedText, is_unit, unit
from spike_perception.zero_shot.hierarchy import Hierarchy
from spike_perception.zero_shot.names import MAX_NAMES, check_names
from spike_perception.zero_shot.quantisation import QuantisedRows, quantise
from spike_perception.zero_shot.rejection import METHODS, Rejection

Float32 = NDArray[np.float32]

# Cosine above which a class's own threshold lets everything pass.
NO_THRESHOLD = -1.0
PROBABILITY: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT: dict[str, Any] = {"type": "number", "minimum": 0}
_HASH: dict[str, Any] = {"anyOf": [SHA256, {"const": ""}]}
# Names are checked one by one by check_names, which also knows duplicates.
NAMES: dict[str, Any] = {"type": "array", "maxItems": MAX_NAMES}
PROVENANCE: dict[str, Any] = {
    "prompts": {"type": "array", "maxItems": 1024, "items": TEXT},
    "templates_sha256": SHA256,
    "encoder_id": SHA256,
    "teacher": TEACHER,
    "text_projection_sha256": _HASH,
    "scale": {"type": "number", "exclusiveMinimum": 0},
    "temperature": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
    "rejection": {
        "anyOf": [
            {"type": "null"},
            {
                "type": "object",
                "required": [each.name for each in dataclasses.fields(Rejection)],
                "properties": {
                    "method": {"enum": list(METHODS)},
                    "threshold": PROBABILITY,
                    "count_low": _COUNT,
                    "count_high": _COUNT,
                    "true_positive_rate": PROBABILITY,
                },
                "additionalProperties": False,
            },
        ]
    },
}
FORMAT = Format(
    "spike_perception.vocabulary",
    1,
    ("names", "negatives", *PROVENANCE),
    {"names": {**NAMES, "minItems": 1}, "negatives": NAMES, **PROVENANCE},
)


@dataclass(frozen=True)
class Teacher:
    """The vision-language model whose text tower made the embeddings."""

    name: str
    sha256: str = ""


NO_TEACHER = Teacher("")


@dataclass(frozen=True, eq=False)
class VocabularyPack:
    """A folded vocabulary.

    Rows of the K classes come first, then those of M negative labels, which serve rejection only.
    :meth:`build` and :meth:`of` fill in what is usually not given.

    Attributes:
        names: K class names.
        rows: W [K + M, C] float32, unit rows.
        quantised: int8 form of ``rows``.
        bias: b [K + M] float32.
        encoder_id: hash of the encoder whose features the rows are for.
        thresholds: least cosine of each class [K]; -1 lets everything pass.
        parents: index of each class's parent [K]; -1 at the top.
        negatives: M names of negative labels.
        feature_mean: mean spike counts [C] that scores are centred on, or None; ``bias`` is then
            ``-rows @ feature_mean``.
        prompts: templates of the ensemble, such as ``"a photo of a {name}"``.
        teacher: who made the text embeddings.
        text_projection_sha256: hash of the trained text projection, or "".
        temperature: divides cosines before a softmax; calibrated.
        rejection: the calibrated rule for "unknown", or None.
    """

    names: tuple[str, ...]
    rows: Float32
    quantised: QuantisedRows
    bias: Float32
    encoder_id: str
    thresholds: Float32
    parents: tuple[int, ...]
    negatives: tuple[str, ...] = ()
    feature_mean: Float32 | None = None
    prompts: tuple[str, ...] = ()
    teacher: Teacher = NO_TEACHER
    text_projection_sha256: str = ""
    temperature: float = 0.01
    rejection: Rejection | None = None

    def __post_init__(self) -> None:
        words = check_names([*self.names, *self.negatives], what="class name")
        count, total = len(self.names), len(words)
        if not count or len(self.parents) != count:
            raise InputError(
                "bad_pack",
                f"{count} class names and {len(self.parents)} parents are given; expected at least "
                "one class and a parent for each",
            )
        put = object.__setattr__  # the dataclass is frozen
        put(self, "rows", checked_rows(self.rows, total))
        width = self.rows.shape[1]
        if self.quantised.values.shape != (total, width):
            raise InputError(
                "bad_pack",
                f"int8 rows have shape {list(self.quantised.values.shape)}, float32 rows "
                f"{list(self.rows.shape)}",
            )
        # One step of the scale: half from the row, half from the common part.
        error = np.abs(self.quantised.rows() - self.rows).max()
        if not error <= 1.01 * self.quantised.scale:
            raise InputError("bad_pack", "the int8 rows are not those of the float32 rows")
        put(self, "bias", _array(self.bias, (total,), "bias"))
        put(self, "thresholds", _array(self.thresholds, (count,), "thresholds"))
        if self.feature_mean is not None:
            put(self, "feature_mean", _array(self.feature_mean, (width,), "feature_mean"))
        if not 0 < self.temperature <= 1000:
            raise InputError(
                "bad_pack", f"temperature is {self.temperature}, allowed is above 0 to 1000"
            )
        if self.rejection and self.rejection.method == "negative_labels" and not self.negatives:
            raise InputError("bad_pack", "rejection by negative_labels needs negative labels")
        _ = self.hierarchy  # refuses loops

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        rows: ArrayLike,
        encoder_id: str,
        *,
        negatives: Sequence[str] = (),
        bias: ArrayLike | None = None,
        feature_mean: Float32 | None = None,
        thresholds: ArrayLike | None = None,
        parents: Sequence[int] | None = None,
        quantised: QuantisedRows | None = None,
        **fields: Any,
    ) -> VocabularyPack:
        """A pack from its rows; what is None takes its neutral value.

        Args:
            names: K class names.
            rows: [K + M, C], unit rows.
            encoder_id: hash of the encoder.
            negatives: M names.
            bias: [K + M]; ``-rows @ feature_mean``, or zero without a mean.
            feature_mean: [C].
            thresholds: [K]; everything passes.
            parents: [K]; no hierarchy.
            quantised: made from ``rows``.
            fields: further attributes of the class.

        Raises:
            InputError: ``bad_pack``, ``bad_name``, ``duplicate_name``, ``bad_hierarchy``.
        """
        matrix = checked_rows(rows, len(names) + len(negatives))
        if bias is None:
            mean = np.zeros(matrix.shape[1]) if feature_mean is None else feature_mean
            bias = -matrix @ _array(mean, matrix.shape[1:], "feature_mean")
        return cls(
            names=tuple(names),
            rows=matrix,
            quantised=quantise(matrix) if quantised is None else quantised,
            bias=np.asarray(bias, np.float32),
            encoder_id=encoder_id,
            thresholds=np.asarray(
                np.full(len(names), NO_THRESHOLD) if thresholds is None else thresholds, np.float32
            ),
            parents=(-1,) * len(names) if parents is None else tuple(int(p) for p in parents),
            negatives=tuple(negatives),
            feature_mean=feature_mean,
            **fields,
        )

    @classmethod
    def of(
        cls, names: Sequence[str], folded: FoldedText, encoder_id: str, **fields: Any
    ) -> VocabularyPack:
        """A pack from folded text; ``fields`` as for :meth:`build`."""
        return cls.build(
            names,
            folded.rows,
            encoder_id,
            bias=folded.bias,
            feature_mean=folded.feature_mean,
            **fields,
        )

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The tree that ``parents`` make."""
        return Hierarchy.of(self.parents)

    @property
    def embedding_dim(self) -> int:
        """C, the length of a feature."""
        return int(self.rows.shape[1])

    @cached_property
    def vocabulary_id(self) -> str:
        """SHA-256 over everything in the pack: the ``sha256`` of its file."""
        document = {**self._document(), "format": FORMAT.name, "version": FORMAT.version}
        return safe_file.checksum(safe_file.plain("vocabulary", document), self._tensors())

    def replace(self, **fields: Any) -> VocabularyPack:
        """A copy with other attributes, checked like a new pack."""
        return dataclasses.replace(self, **fields)

    def with_class(
        self, name: str, row: ArrayLike, *, parent: int = -1, threshold: float = NO_THRESHOLD
    ) -> VocabularyPack:
        """A copy with one class more, or with another row for a class that is there.

        Args:
            name: the class; one of the names replaces that class's row and keeps the rest.
            row: its direction [C]; normalised here.
            parent: index of the parent of a new class, -1 for none.
            threshold: least cosine of a new class.
        """
        count = len(self.names)
        vector = unit(row).astype(np.float32)
        if vector.shape != (self.embedding_dim,):
            raise InputError(
                "bad_pack", f"the row has shape {list(vector.shape)}, expected {self.embedding_dim}"
            )
        bias = 0.0 if self.feature_mean is None else float(-vector @ self.feature_mean)
        if name in self.names:
            index = self.names.index(name)
            rows, biases = self.rows.copy(), self.bias.copy()
            rows[index], biases[index] = vector, bias
            return self.replace(rows=rows, bias=biases, quantised=quantise(rows))
        rows = np.insert(self.rows, count, vector, axis=0)
        return self.replace(
            names=(*self.names, name),
            rows=rows,
            quantised=quantise(rows),
            bias=np.insert(self.bias, count, bias),
            thresholds=np.append(self.thresholds, np.float32(threshold)),
            parents=(*self.parents, parent),
        )

    def save(self, path: Path) -> str:
        """Write the pack whole or not at all; returns its ``vocabulary_id``.

        Raises:
            InputError: ``bad_metadata`` or ``cannot_write``.
        """
        return safe_file.save(path, FORMAT, self._document(), self._tensors())

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        encoder_id: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> VocabularyPack:
        """Read and verify a pack.

        Args:
            path: the file.
            encoder_id: hash of the running encoder; None takes a pack for any (tools only).
            limits: sizes above which the file is refused unread.

        Raises:
            InputError: the reasons of :func:`safe_file.load`; ``wrong_encoder`` for a pack of
                another encoder; ``bad_pack``, ``bad_name``, ``duplicate_name``,
                ``bad_hierarchy`` or ``bad_rejection`` for contents that do not fit together.
        """
        header, tensors = safe_file.load(path, FORMAT, limits)
        document = header.document
        check_encoder(path, document["encoder_id"], encoder_id)
        with refusing(path):
            return cls.build(
                document["names"],
                _tensor(tensors, "rows", np.float32, 2),
                document["encoder_id"],
                negatives=document["negatives"],
                bias=_tensor(tensors, "bias", np.float32, 1),
                feature_mean=tensors.get("feature_mean"),
                thresholds=_tensor(tensors, "thresholds", np.float32, 1),
                parents=_tensor(tensors, "parents", np.int32, 1).tolist(),
                quantised=stored_rows(tensors, document["scale"]),
                prompts=tuple(document["prompts"]),
                **provenance_fields(document),
            )

    def _document(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "negatives": list(self.negatives),
            **provenance_document(self),
            "scale": self.quantised.scale,
        }

    def _tensors(self) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {
            "rows": self.rows,
            "rows_int8": self.quantised.values,
            "rows_common": self.quantised.common,
            "bias": self.bias,
            "thresholds": self.thresholds,
            "parents": np.array(self.parents, np.int32),
        }
        if self.feature_mean is not None:
            tensors["feature_mean"] = self.feature_mean
        return tensors


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Put the file's name before the message of an :class:`InputError` from within."""
    try:
        yield
    except InputError as error:
        raise InputError(error.reason, f"{path}: {error}") from error


def check_encoder(path: Path, found: str, expected: str | None) -> None:
    """Refuse a file whose rows belong to another encoder.

    Raises:
        InputError: ``wrong_encoder``, naming both.
    """
    if expected is not None and found != expected:
        raise InputError(
            "wrong_encoder",
            f"{path}: was folded for encoder {found}, the running encoder is {expected}; "
            "fold the vocabulary for this encoder, or load the model bundle it belongs to",
        )


def provenance_document(owner: Any) -> dict[str, Any]:
    """The JSON of what packs and word banks share, from their attributes of the same names."""
    return {
        "prompts": list(owner.prompts),
        "templates_sha256": sha256_json(list(owner.prompts)),
        "encoder_id": owner.encoder_id,
        "teacher": dataclasses.asdict(owner.teacher),
        "text_projection_sha256": owner.text_projection_sha256,
        "temperature": owner.temperature,
        "rejection": dataclasses.asdict(owner.rejection) if owner.rejection else None,
    }


def provenance_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments from :func:`provenance_document`.

    Raises:
        InputError: ``bad_pack`` if the hash of the templates is not that of the prompts.
    """
    expected = sha256_json(document["prompts"])
    if document["templates_sha256"] != expected:
        raise InputError(
            "bad_pack",
            f"its prompts hash to {expected}, the metadata says {document['templates_sha256']}",
        )
    rejection = document["rejection"]
    return {
        "teacher": Teacher(**document["teacher"]),
        "text_projection_sha256": document["text_projection_sha256"],
        "temperature": float(document["temperature"]),
        "rejection": Rejection(**rejection) if rejection else None,
    }


def stored_rows(tensors: Mapping[str, NDArray[Any]], scale: float) -> QuantisedRows:
    """The int8 rows of a file.

    Raises:
        InputError: ``bad_pack`` if they are missing or of another shape or type.
    """
    values = _tensor(tensors, "rows_int8", np.int8, 2)
    common = _tensor(tensors, "rows_common", np.int32, 1)
    if common.shape != values.shape[1:]:
        raise InputError(
            "bad_pack", f"rows_common has {len(common)} values, rows_int8 {values.shape[1]} columns"
        )
    return QuantisedRows(values, common, float(scale))


def checked_rows(rows: ArrayLike, count: int) -> Float32:
    """Rows as read-only float32 [count, C].

    Raises:
        InputError: ``bad_pack`` for another shape or rows that are not unit, as those of a
            classifier in open_clip's layout [C, K] are not.
    """
    array = np.array(rows, np.float32)
    if array.ndim != 2 or array.shape[0] != count or array.size == 0 or not is_unit(array):
        hint = ""
        if array.ndim == 2 and array.size and is_unit(array.T):
            hint = " (this looks like open_clip's layout [C, K]: use rows_from_classifier)"
        raise InputError(
            "bad_pack",
            f"rows have shape {list(array.shape)}, expected [{count}, C] of unit norm{hint}",
        )
    array.setflags(write=False)
    return array


def _tensor(tensors: Mapping[str, NDArray[Any]], name: str, dtype: type, ndim: int) -> NDArray[Any]:
    array = tensors.get(name)
    if array is None or array.dtype != dtype or array.ndim != ndim:
        found = "none" if array is None else f"{array.dtype} with {array.ndim} dimensions"
        raise InputError(
            "bad_pack",
            f"tensor {name} is {found}, expected {np.dtype(dtype)} with {ndim} dimensions",
        )
    return array


def _array(value: ArrayLike, shape: tuple[int, ...], name: str) -> Float32:
    array = np.array(value, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(
            "bad_pack",
            f"{name} has shape {list(array.shape)}, expected {list(shape)} finite numbers",
        )
    array.setflags(write=False)
    return array
