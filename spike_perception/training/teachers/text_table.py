# SPDX-License-Identifier: Apache-2.0
"""The text space of a model of which no more is at hand than embeddings of some names.

Text towers of large vision-language models learnt from pictures how names of things relate; one
that learnt from text alone, as a small teacher's, did not. Where their weights cannot be had, a
table of their embeddings of a thousand names often can, and it carries much of that: names of the
table are read from it, all others through a regression from the small tower to the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.folder_files import open_zip
from spike_perception.bags.npz_array import read_npz_array
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.teachers import teacher as teachers
from spike_perception.training.teachers.encoder import Images
from spike_perception.training.teachers.teacher import ImageFeatures, Teacher
from spike_perception.training.text import TextTeacher, embed_words
from spike_perception.training.words import prompts
from spike_perception.zero_shot.names import normalised, unqualified

Float = NDArray[np.float32]

PROMPT = "a {name}"
"""The sentence of a table that does not say which one its names were put into."""
# Synonyms among them; the regression solves a system of as many unknowns (2 GB).
MAX_NAMES = 1 << 14
MAX_CHANNELS = 1 << 14
MAX_CHARACTERS = 1024
# Between 0.3 and 3 the direction of names left out (their deviation from the mean over CLIP's
# embeddings of the names of LVIS) is met equally well, with a cosine of 0.44.
RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class TextTable:
    """Names with their embeddings.

    Attributes:
        path: where it was read.
        prompt: sentence with ``{name}`` that the names were put into.
        names: one a row, in lower case, without the sense in parentheses; unique.
        features: unit rows, float32 [N, C].
        id: SHA-256 of all that.
    """

    path: Path
    prompt: str
    names: tuple[str, ...]
    features: Float
    id: str

    @classmethod
    def load(cls, path: Path) -> TextTable:
        """Read an ``.npz`` file.

        Its arrays: ``names`` [N], ``features`` [N, C] and, if there are, ``synonyms`` [N] (names
        with ``|`` between them that share the row) and ``prompt`` [] (else :data:`PROMPT`). Names
        may be written as in LVIS, ``monitor_(computer_equipment)``. A name of several rows gets
        their mean; what is a name of its own row is not taken as a synonym of another.

        Raises:
            InputError: ``bad_text_table``.
        """
        with open_zip(path, "text_table") as archive:
            try:
                keys = {each.removesuffix(".npy") for each in archive.namelist()}
                names = read_npz_array(archive, "names", "U", 1)
                features = read_npz_array(archive, "features", "f", 2)
                synonyms = (
                    read_npz_array(archive, "synonyms", "U", 1) if "synonyms" in keys else None
                )
                prompt = (
                    str(read_npz_array(archive, "prompt", "U", 0)) if "prompt" in keys else PROMPT
                )
                rows = [normalised(unqualified(str(each))) for each in names]
                others = [
                    [normalised(unqualified(part)) for part in str(each).split("|")]
                    for each in (() if synonyms is None else synonyms)
                ]
            except ValueError as error:
                raise _bad(path, str(error)) from error
        _check_count(path, len(rows))
        if max(len(each) for group in (rows, *others) for each in group) > MAX_CHARACTERS:
            raise _bad(path, f"a name of more than {MAX_CHARACTERS} characters")
        if len(features) != len(rows) or not 2 <= features.shape[1] <= MAX_CHANNELS:
            raise _bad(
                path,
                f"features {list(features.shape)} for {len(rows)} names; expected is one row each",
            )
        if others and len(others) != len(rows):
            raise _bad(path, f"{len(others)} synonyms for {len(rows)} names")
        braces = prompt.count("{"), prompt.count("}")
        if braces != (1, 1) or "{name}" not in prompt or len(prompt) > MAX_CHARACTERS:
            raise _bad(path, f"the prompt {prompt[:80]!r} has no place for a {{name}}")
        values = features.astype(np.float64)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 1e-12).all():
            raise _bad(path, "a row of features is zero or not finite")
        places: dict[str, list[int]] = {}
        for row, name in enumerate(rows):
            places.setdefault(name, []).append(row)
        own = set(places)
        for row, group in enumerate(others):
            for name in dict.fromkeys(group):
                if name not in own:
                    places.setdefault(name, []).append(row)
        places.pop("", None)
        kept = tuple(places)
        _check_count(path, len(kept))
        values /= lengths
        means = np.stack([values[found].mean(0) for found in places.values()])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        if not (lengths > 1e-6).all():
            raise _bad(path, f"the rows of {kept[int(lengths.argmin())]!r} cancel each other out")
        means /= lengths
        identity = sha256_json([prompt, kept, np.round(means, 6).tolist()])
        return cls(path, prompt, kept, means.astype(np.float32), identity)


class TabledTeacher:
    """A teacher that reads texts in the space of a table, and still looks at pictures in its own.

    Names of the table, in the table's sentence, get the table's embedding, without regard to case,
    hyphens and underscores ("a T-shirt" is its "t shirt"). For any other text the deviation from
    the table's mean is a kernel ridge regression on the teacher's own embeddings of the table's
    names (centred, cosine kernel).

    Attributes:
        name: for people.
        id: SHA-256 of all that decides its answers about texts.
        prompts: the one sentence to put names into.
        looking: the teacher that encodes pictures, in a space of its own.
    """

    def __init__(self, teacher: Teacher, table: TextTable, cache: Path | None = None) -> None:
        """Fit the regression.

        Args:
            teacher: reads and looks.
            table: known names.
            cache: folder for the teacher's embeddings of the table's names.
        """
        self.looking = teacher
        self.prompts: tuple[str, ...] = (table.prompt,)
        self.name = f"{teacher.name} with the texts of {table.path.stem}"
        self.id = sha256_json(["text table", 1, teacher.id, table.id, RIDGE])
        self._reader: TextTeacher = teacher
        known = prompts(table.names, self.prompts)
        self._known = {normalised(text): row for row, text in enumerate(known)}
        self._features = table.features
        texts = embed_words(teacher, table.names, self.prompts, cache)
        given = np.stack([each[0] for each in texts]).astype(np.float64)
        self._centre, self._mean = given.mean(0), table.features.mean(0, dtype=np.float64)
        self._given = self._directions(given)
        kernel = self._given @ self._given.T
        kernel[np.diag_indices_from(kernel)] += RIDGE
        self._weights = np.linalg.solve(kernel, table.features - self._mean)

    def encode_text(self, texts: Sequence[str]) -> Float:
        """Unit embeddings in the table's space, float32 [N, C].

        Raises:
            InputError: of the teacher.
        """
        rows = [self._known.get(normalised(each), -1) for each in texts]
        found = np.empty((len(texts), self._features.shape[1]), np.float32)
        missing = [index for index, row in enumerate(rows) if row < 0]
        if missing or not rows:
            read = self._reader.encode_text([texts[index] for index in missing])
            mapped = self._mean + self._directions(read) @ self._given.T @ self._weights
            found[missing] = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        for index, row in enumerate(rows):
            if row >= 0:
                found[index] = self._features[row]
        return found

    def encode_images(self, images: Images) -> ImageFeatures:
        """As the teacher does, in the teacher's own space."""
        return self.looking.encode_images(images)

    def _directions(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        centred = np.asarray(embeddings, np.float64) - self._centre
        return np.asarray(
            centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        )


def reading_teacher(
    name: str, checkpoint: Path | None, texts: str, cache: Path | None
) -> Teacher | TabledTeacher:
    """A teacher, with a table of texts if one is given.

    Args:
        name: as ``load_teacher`` takes it.
        checkpoint: likewise.
        texts: file of a :class:`TextTable`; empty for the teacher's own text tower.
        cache: folder for the teacher's embeddings of the table's names.

    Raises:
        InputError: those of :meth:`TextTable.load` and of ``load_teacher``.
    """
    table = TextTable.load(Path(texts)) if texts else None
    teacher = teachers.load_teacher(name, checkpoint)
    return teacher if table is None else TabledTeacher(teacher, table, cache)


def _check_count(path: Path, names: int) -> None:
    if not 2 <= names <= MAX_NAMES:
        raise _bad(path, f"{names} names; allowed are 2 to {MAX_NAMES}")


def _bad(path: Path, what: str) -> InputError:
    return InputError("bad_text_table", f"{path} is no table of names and embeddings: {what}")
