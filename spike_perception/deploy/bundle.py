# SPDX-License-Identifier: Apache-2.0
"""The model bundle: a trained student in one file, with all that is needed to run and judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from spike_perception.deploy import safe_file
from spike_perception.deploy.safe_file import (
    DEFAULT_LIMITS,
    SHA256,
    TEACHER,
    TEXT,
    Array,
    Format,
    Limits,
)
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json

_SCALAR: dict[str, Any] = {"anyOf": [{"type": ["number", "boolean", "null"]}, TEXT]}
_SCALARS: dict[str, Any] = {
    "anyOf": [*_SCALAR["anyOf"], {"type": "array", "maxItems": 256, "items": _SCALAR}]
}
_NUMBERS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 16,
    "items": {"type": "number"},
}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 1 << 20}

_SIDE: dict[str, Any] = {
    "type": "integer",
    "minimum": 3,
    "maximum": 1023,
    "not": {"multipleOf": 2},
}

# Images: input_size is [height, width]; mean and std apply to values scaled to 0..1, one a channel;
# resize is the rule for another aspect ratio; patch_norm normalises each pixel by its surroundings.
_IMAGE: dict[str, Any] = {
    "type": "object",
    "required": ["input_size", "channel_order", "mean", "std", "resize", "interpolation"],
    "properties": {
        "input_size": {"type": "array", "minItems": 2, "maxItems": 2, "items": _COUNT},
        "channel_order": {"enum": ["rgb", "bgr", "gray"]},
        "mean": _NUMBERS,
        "std": {**_NUMBERS, "items": {"type": "number", "exclusiveMinimum": 0}},
        "resize": {"enum": ["stretch", "shorter_side_crop", "letterbox"]},
        "interpolation": {"enum": ["nearest", "bilinear", "bicubic", "area"]},
        "patch_norm": {
            "anyOf": [_SIDE, {"type": "array", "minItems": 3, "maxItems": 3, "items": _SIDE}]
        },
        "patch_norm_floor": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    },
    "dependencies": {
        "patch_norm": ["patch_norm_floor"],
        "patch_norm_floor": ["patch_norm"],
    },
    "additionalProperties": _SCALARS,
}
_POINTS: dict[str, Any] = {
    "type": "object",
    "required": ["points", "channels", "normalise"],
    "properties": {
        "points": _COUNT,
        "channels": {"type": "array", "minItems": 1, "maxItems": 16, "items": TEXT},
        "normalise": {"enum": ["unit_sphere", "unit_cube", "none"]},
    },
    "additionalProperties": _SCALARS,
}
# What the encoder needs done to its input, by kind of bundle. Further flat values are allowed: all
# of it goes into the encoder's hash.
PREPROCESSING: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"image": _IMAGE, "place": _IMAGE, "points": _POINTS, "events": _POINTS}
)

FORMAT = Format(
    "spike_perception.bundle",
    1,
    (
        "kind",
        "student",
        "preprocessing",
        "timesteps",
        "levels",
        "embedding_dim",
        "encoder_id",
        "provenance",
        "metrics",
    ),
    {
        "kind": {"enum": list(PREPROCESSING)},
        "student": {
            "type": "object",
            "required": ["name", "config"],
            "properties": {
                "name": {**TEXT, "minLength": 1},
                "config": {
                    "type": "object",
                    "maxProperties": 256,
                    "additionalProperties": _SCALARS,
                },
            },
            "additionalProperties": False,
        },
        "preprocessing": {"type": "object", "maxProperties": 64},
        "timesteps": {"type": "integer", "minimum": 1, "maximum": 1024},
        "levels": {"type": "integer", "minimum": 1, "maximum": 255},
        "embedding_dim": {"type": "integer", "minimum": 1, "maximum": 65536},
        "encoder_id": SHA256,
        "provenance": {
            "type": "object",
            "required": ["command", "data", "seeds", "version", "teacher"],
            "properties": {
                "command": TEXT,
                "data": {"type": "array", "maxItems": 64, "items": TEXT},
                "seeds": {"type": "array", "maxItems": 64, "items": {"type": "integer"}},
                "version": TEXT,
                "teacher": {"anyOf": [TEACHER, {"type": "null"}]},
            },
            "additionalProperties": _SCALARS,
        },
        "metrics": {
            "type": "array",
            "maxItems": 256,
            "items": {
                "type": "object",
                "required": ["name", "value", "command"],
                "properties": {"name": TEXT, "value": {"type": "number"}, "command": TEXT},
                "additionalProperties": False,
            },
        },
    },
)

#: Tensors whose names begin so are not the student's own: they turn its counts into a descriptor of
#: a place (see ``places.descriptors.spiking``).
DESCRIPTOR = "descriptor."

# Tensors that torch's batch normalisation keeps beside its parameters.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle's header says; the tensors are neither read nor verified."""

    document: Mapping[str, Any]
    tensors: Mapping[str, safe_file.TensorInfo]
    file_bytes: int

    @property
    def encoder_id(self) -> str:
        """The encoder hash that the file claims."""
        return str(self.document["encoder_id"])

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors but the running statistics of batch normalisation."""
        return sum(
            info.elements
            for name, info in self.tensors.items()
            if name.rpartition(".")[2] not in _BUFFERS
        )


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained student with its preprocessing, provenance and metrics.

    Attributes:
        kind: ``"image"``, ``"points"``, ``"events"`` or ``"place"``.
        student: kind of student, as the registry's ``student_config_to_json`` names it.
        student_config: its settings: flat, values are JSON scalars or lists of them.
        preprocessing: see :data:`PREPROCESSING` for the keys of each kind.
        timesteps: T, time steps of one inference.
        levels: D, greatest spike count of a neuron in one step.
        embedding_dim: C, length of the encoder's output.
        tensors: weights by name, as the student's ``state_dict`` names them; in a ``place`` bundle
            also those of the descriptor, see :data:`DESCRIPTOR`.
        provenance: ``command``, ``data`` (list), ``seeds`` (list), ``version`` (of this software,
            with commit), ``teacher`` (``{"name", "sha256"}`` or None); further flat values allowed.
        metrics: ``{"name", "value", "command"}`` each, the command being what reproduces it.
    """

    kind: str
    student: str
    student_config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    timesteps: int
    levels: int
    embedding_dim: int
    tensors: Mapping[str, Array]
    provenance: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def encoder_id(self) -> str:
        """SHA-256 over architecture, preprocessing, T, D and all weights: who made a feature.

        Vocabulary packs and place maps name it, and are refused with any other encoder.
        """
        return sha256_json(
            {
                "architecture": {"name": self.student, "config": dict(self.student_config)},
                "embedding_dim": self.embedding_dim,
                "kind": self.kind,
                "levels": self.levels,
                "preprocessing": dict(self.preprocessing),
                "tensors": safe_file.tensors_digest(self.tensors),
                "timesteps": self.timesteps,
            }
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """``{"student", "config"}``, as the registry's ``student_from_json`` takes it."""
        return {"student": self.student, "config": dict(self.student_config)}

    @property
    def student_tensors(self) -> dict[str, Array]:
        """The tensors that the student's ``load_state_dict`` takes."""
        return {
            name: array
            for name, array in self.tensors.items()
            if self.kind != "place" or not name.startswith(DESCRIPTOR)
        }

    @property
    def weights_id(self) -> str:
        """The same as :attr:`encoder_id`, under the name that messages and maps use."""
        return self.encoder_id

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors but the running statistics of batch normalisation."""
        return sum(
            array.size
            for name, array in self.tensors.items()
            if name.rpartition(".")[2] not in _BUFFERS
        )

    def save(self, path: Path) -> None:
        """Write the bundle whole or not at all.

        Raises:
            InputError: ``bad_metadata`` if a field does not fit the schema, ``bad_weights`` for
                values that are not finite, ``cannot_write``.
        """
        _check_preprocessing(str(path), self.kind, self.preprocessing)
        _check_finite(str(path), self.tensors)
        safe_file.save(path, FORMAT, self._document(), self.tensors)

    @classmethod
    def load(cls, path: Path, limits: Limits = DEFAULT_LIMITS) -> Bundle:
        """Read a bundle and verify both of its hashes.

        Args:
            path: the file.
            limits: sizes above which the file is refused unread.

        Raises:
            InputError: the reasons of :func:`safe_file.load`, ``wrong_encoder_id`` if the weights
                are not those the metadata names, ``bad_weights`` for values that are not finite.
        """
        header, tensors = safe_file.load(path, FORMAT, limits)
        found = header.document
        _check_preprocessing(str(path), found["kind"], found["preprocessing"])
        bundle = cls(
            kind=found["kind"],
            student=found["student"]["name"],
            student_config=MappingProxyType(found["student"]["config"]),
            preprocessing=MappingProxyType(found["preprocessing"]),
            timesteps=found["timesteps"],
            levels=found["levels"],
            embedding_dim=found["embedding_dim"],
            tensors=MappingProxyType(tensors),
            provenance=MappingProxyType(found["provenance"]),
            metrics=tuple(found["metrics"]),
        )
        if bundle.encoder_id != found["encoder_id"]:
            raise InputError(
                "wrong_encoder_id",
                f"{path}: architecture and weights hash to {bundle.encoder_id}, the metadata says "
                f"{found['encoder_id']}; the bundle was put together wrongly: export it again",
            )
        _check_finite(str(path), tensors)
        return bundle

    @staticmethod
    def inspect(path: Path, limits: Limits = DEFAULT_LIMITS) -> BundleInfo:
        """Read the header only.

        Raises:
            InputError: the reasons of :func:`safe_file.inspect`.
        """
        header = safe_file.inspect(path, FORMAT, limits)
        _check_preprocessing(str(path), header.document["kind"], header.document["preprocessing"])
        return BundleInfo(header.document, header.tensors, header.file_bytes)

    def _document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "student": {"name": self.student, "config": dict(self.student_config)},
            "preprocessing": dict(self.preprocessing),
            "timesteps": self.timesteps,
            "levels": self.levels,
            "embedding_dim": self.embedding_dim,
            "encoder_id": self.encoder_id,
            "provenance": dict(self.provenance),
            "metrics": [dict(metric) for metric in self.metrics],
        }


def _check_preprocessing(where: str, kind: str, preprocessing: Mapping[str, Any]) -> None:
    if kind not in PREPROCESSING:
        raise InputError(
            "bad_metadata", f"{where}: kind is {kind!r}, expected one of {', '.join(PREPROCESSING)}"
        )
    found = safe_file.plain(where, dict(preprocessing))
    safe_file.check_schema(where, PREPROCESSING[kind], found, "preprocessing")


def _check_finite(where: str, tensors: Mapping[str, Array]) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                "bad_weights", f"{where}: tensor {name} has values that are not finite"
            )
