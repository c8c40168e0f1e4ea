# SPDX-License-Identifier: Apache-2.0
"""A teacher's embeddings of words in prompts, computed once and kept on disk."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.words import prompts

Float = NDArray[np.float32]


class TextTeacher(Protocol):
    """What of a teacher the words need."""

    @property
    def id(self) -> str:
        """SHA-256 of all that decides its answers."""

    def encode_text(self, texts: Sequence[str]) -> Float:
        """Unit embeddings of texts [N, C]."""


def embed_words(
    teacher: TextTeacher,
    words: Sequence[str],
    templates: Sequence[str],
    cache: Path | None = None,
) -> list[Float]:
    """Embeddings of every word in every template.

    Args:
        teacher: whose text tower reads them.
        words: names.
        templates: sentences with ``{name}``.
        cache: folder to keep them in; None computes them each time.

    Returns:
        For each word float32 [prompts, C], unit rows, template by template.

    Raises:
        InputError: ``bad_cache``.
    """
    groups = [prompts(word, templates) for word in words]
    texts = [text for group in groups for text in group]
    matrix = _stored(teacher, texts, cache)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return list(np.split(matrix, ends))


def _stored(teacher: TextTeacher, texts: list[str], cache: Path | None) -> Float:
    if cache is None:
        return teacher.encode_text(texts)
    file = cache / f"texts-{sha256_json([teacher.id, texts])[:32]}.npy"
    if file.is_file():
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError("bad_cache", f"{file} cannot be read ({error}); delete it") from error
        if found.dtype != np.float32 or found.ndim != 2 or len(found) != len(texts):
            raise InputError("bad_cache", f"{file} does not hold {len(texts)} texts; delete it")
        return np.asarray(found, np.float32)
    matrix = teacher.encode_text(texts)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.npy")
    np.save(partial, matrix)
    partial.replace(file)
    return matrix
