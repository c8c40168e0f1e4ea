# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves behind: a folder that ``fold`` and ``export`` take up."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy import safe_file
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.safe_file import SHA256, TEACHER, Format
from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes

BUNDLE = "bundle.safetensors"
PROJECTION = "projection.safetensors"
CONFIG = "config.yaml"
METRICS = "metrics.json"
CARD = "card.md"

FORMAT = Format(
    "spike_perception.projection",
    1,
    ("encoder_id", "teacher", "logit_scale"),
    {
        "encoder_id": SHA256,
        "teacher": TEACHER,
        "logit_scale": {"type": "number", "exclusiveMinimum": 0},
    },
)


@dataclass(frozen=True, eq=False)
class Projection:
    """What joins a student's spike counts to its teacher's texts.

    Attributes:
        matrix: P [C_T, C] float32: ``P F`` lies in the space of the text embeddings.
        feature_mean: mean spike counts over training images [C] float32.
        text_mean: taken from every text embedding [C_T] float32; zero if texts are not centred.
        encoder_id: the student's, as in its bundle.
        teacher: name and hash of the teacher.
        logit_scale: the teacher's.
    """

    matrix: NDArray[np.float32]
    feature_mean: NDArray[np.float32]
    text_mean: NDArray[np.float32]
    encoder_id: str
    teacher: Mapping[str, str]
    logit_scale: float

    @property
    def sha256(self) -> str:
        """Hash of the matrix, which vocabularies name as that of their text projection."""
        return sha256_bytes(np.ascontiguousarray(self.matrix, "<f4").tobytes())

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        document = {
            "encoder_id": self.encoder_id,
            "teacher": dict(self.teacher),
            "logit_scale": self.logit_scale,
        }
        safe_file.save(path, FORMAT, document, self._tensors())

    def _tensors(self) -> dict[str, NDArray[np.float32]]:
        return {
            "matrix": self.matrix,
            "feature_mean": self.feature_mean,
            "text_mean": self.text_mean,
        }

    @classmethod
    def load(cls, path: Path) -> Projection:
        """Read and check it.

        Raises:
            InputError: the reasons of :func:`safe_file.load`, ``bad_projection``.
        """
        header, tensors = safe_file.load(path, FORMAT)
        document = header.document
        try:
            found = cls(
                **{name: tensors[name] for name in ("matrix", "feature_mean", "text_mean")},
                encoder_id=document["encoder_id"],
                teacher=document["teacher"],
                logit_scale=float(document["logit_scale"]),
            )
        except KeyError as error:
            raise InputError("bad_projection", f"{path} lacks the tensor {error}") from error
        rows, columns = found.matrix.shape if found.matrix.ndim == 2 else (0, 0)
        shapes = found.feature_mean.shape == (columns,) and found.text_mean.shape == (rows,)
        if not shapes or any(
            each.dtype != np.float32 or not np.isfinite(each).all()
            for each in found._tensors().values()
        ):
            raise InputError(
                "bad_projection",
                f"{path}: matrix {list(found.matrix.shape)}, feature_mean "
                f"{list(found.feature_mean.shape)} and text_mean {list(found.text_mean.shape)} do "
                "not fit together as finite float32",
            )
        return found


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: ``cannot_write``.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError("cannot_write", f"{path}: cannot be written: {error.strerror}") from error


@dataclass(frozen=True)
class RunFolder:
    """The folder of a finished run."""

    path: Path

    def bundle(self) -> Bundle:
        """The trained student.

        Raises:
            InputError: ``run_unfinished``, and the reasons of :meth:`Bundle.load`.
        """
        return Bundle.load(self._file(BUNDLE))

    def projection(self) -> Projection:
        """What joins it to the teacher's texts; it must belong to the bundle.

        Raises:
            InputError: ``run_unfinished``, ``wrong_encoder``, the reasons of
                :meth:`Projection.load`.
        """
        found = Projection.load(self._file(PROJECTION))
        if found.encoder_id != Bundle.inspect(self._file(BUNDLE)).encoder_id:
            raise InputError(
                "wrong_encoder",
                f"{self.path}: {PROJECTION} belongs to another encoder than {BUNDLE}; train anew",
            )
        return found

    def metrics(self) -> dict[str, Any]:
        """The metrics document.

        Raises:
            InputError: ``run_unfinished``, ``bad_metadata``.
        """
        file = self._file(METRICS)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError("bad_metadata", f"{file} cannot be read: {error}") from error
        return dict(found)

    def card(self) -> str:
        """The draft of the model card.

        Raises:
            InputError: ``run_unfinished``.
        """
        return self._file(CARD).read_text(encoding="utf-8")

    def _file(self, name: str) -> Path:
        file = self.path / name
        if not file.is_file():
            raise InputError(
                "run_unfinished",
                f"{self.path} holds no {name}: it is no folder of a finished run; train first",
            )
        return file
