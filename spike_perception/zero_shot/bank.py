# SPDX-License-Identifier: Apache-2.0
"""The word bank: rows of thousands of nouns, so that a robot takes a class by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy import safe_file
from spike_perception.deploy.safe_file import DEFAULT_LIMITS, Format, Limits
from spike_perception.errors import InputError
from spike_perception.zero_shot.folding import FoldedText, unit
from spike_perception.zero_shot.names import (
    check_name,
    check_names,
    normalised,
    singulars,
    unqualified,
)
from spike_perception.zero_shot.pack import (
    NAMES,
    NO_TEACHER,
    PROVENANCE,
    Teacher,
    VocabularyPack,
    check_encoder,
    provenance_document,
    provenance_fields,
    refusing,
    stored_rows,
)
from spike_perception.zero_shot.quantisation import QuantisedRows, quantise
from spike_perception.zero_shot.rejection import Rejection

MAX_ALIASES = 64
_SUGGESTIONS = 3

FORMAT = Format(
    "spike_perception.word_bank",
    1,
    ("names", "aliases", *PROVENANCE),
    {
        "names": {**NAMES, "minItems": 1},
        "aliases": {"type": "object", "additionalProperties": {"type": "array"}},
        **PROVENANCE,
    },
)


@dataclass(frozen=True, eq=False)
class WordBank:
    """Nouns with their folded rows, int8 only: 20,000 of 512 dimensions take 10 MB.

    Attributes:
        names: the nouns.
        quantised: their rows [N, C].
        encoder_id: hash of the encoder the rows are for.
        aliases: further words of a noun; a word may be an alias of several nouns.
        feature_mean: as in :class:`VocabularyPack`.
        prompts, teacher, text_projection_sha256, temperature, rejection: as in
            :class:`VocabularyPack`, handed on to the vocabularies made from the bank.
    """

    names: tuple[str, ...]
    quantised: QuantisedRows
    encoder_id: str
    aliases: Mapping[str, tuple[str, ...]]
    feature_mean: NDArray[np.float32] | None = None
    prompts: tuple[str, ...] = ()
    teacher: Teacher = NO_TEACHER
    text_projection_sha256: str = ""
    temperature: float = 0.01
    rejection: Rejection | None = None

    def __post_init__(self) -> None:
        names = check_names(self.names, what="noun")
        values, mean = self.quantised.values, self.feature_mean
        if values.ndim != 2 or len(values) != len(names) or values.shape[1] == 0:
            raise InputError(
                "bad_pack", f"rows have shape {list(values.shape)}, expected [{len(names)}, C]"
            )
        if mean is not None and (mean.shape != values.shape[1:] or not np.isfinite(mean).all()):
            raise InputError(
                "bad_pack", f"feature_mean has shape {list(mean.shape)}, expected one row's"
            )
        known = set(names)
        for name, others in self.aliases.items():
            if name not in known or len(others) > MAX_ALIASES:
                raise InputError(
                    "bad_pack",
                    f"{len(others)} aliases of {name[:100]!r}; allowed are {MAX_ALIASES}, of a "
                    "noun that the bank has",
                )
            for other in others:
                check_name(other, what="alias")

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        folded: FoldedText,
        encoder_id: str,
        aliases: Mapping[str, Sequence[str]] | None = None,
        **fields: Any,
    ) -> WordBank:
        """A bank from folded text; ``fields`` are further attributes of the class."""
        return cls(
            tuple(names),
            quantise(folded.rows),
            encoder_id,
            {name: tuple(others) for name, others in (aliases or {}).items()},
            feature_mean=folded.feature_mean,
            **fields,
        )

    def find(self, word: str) -> int:
        """Index of the noun that ``word`` means.

        Tried in turn: the noun itself, an alias (or the noun without its remark in parentheses),
        both for what the word is the plural of, and nouns that are the plural of the word; always
        without regard to case, blanks, hyphens and underscores.

        Raises:
            InputError: ``bad_name``; ``unknown_name`` with the nearest nouns;
                ``ambiguous_name`` with the nouns it could be.
        """
        names, aliases, plurals = self._tables
        plain = normalised(check_name(word))
        tried = [(table, key) for key in (plain, *singulars(word)) for table in (names, aliases)]
        for table, key in [*tried, (plurals, plain)]:
            found = table.get(key, ())
            if len(found) == 1:
                return found[0]
            if found:
                nouns = ", ".join(repr(self.names[index]) for index in found)
                raise InputError(
                    "ambiguous_name", f"{word!r} could mean {nouns}; name one of these"
                )
        near = ", ".join(repr(each) for each in self.suggest(word))
        raise InputError(
            "unknown_name",
            f"{word!r} is not among the {len(self.names)} nouns of the word bank; "
            + (f"near are {near}" if near else "no noun is near"),
        )

    def suggest(self, word: str) -> list[str]:
        """Nouns of the bank that are spelt like ``word``, nearest first."""
        spellings = {**self._tables[1], **self._tables[0]}
        near = difflib.get_close_matches(normalised(word), spellings, n=8)
        nouns = [self.names[index] for key in near for index in spellings[key]]
        return list(dict.fromkeys(nouns))[:_SUGGESTIONS]

    def row(self, word: str) -> NDArray[np.float32]:
        """The unit row [C] of a noun.

        Raises:
            InputError: as :meth:`find`.
        """
        found: NDArray[np.float32] = self._rows([self.find(word)])[0]
        return found

    def vocabulary(self, words: Sequence[str], *, negatives: int = 0) -> VocabularyPack:
        """A vocabulary of these words, named as they are given.

        Args:
            words: the class names, in the order of the classes.
            negatives: M nouns of the bank to serve rejection as negative labels: those whose
                nearest class is farthest.

        Raises:
            InputError: as :meth:`find`; ``duplicate_name`` for two words of one noun.
        """
        given = check_names(words, what="class name")
        if not given:
            raise InputError("bad_pack", "no word is given; a vocabulary has at least one")
        indices = [self.find(word) for word in given]
        if len(set(indices)) != len(indices):
            double = next(k for k, index in enumerate(indices) if index in indices[:k])
            first = given[indices.index(indices[double])]
            raise InputError(
                "duplicate_name",
                f"{first!r} and {given[double]!r} both mean {self.names[indices[double]]!r}; "
                "give one of them",
            )
        rows = self._rows(indices)
        far = self._farthest(rows, indices, given, negatives)
        return VocabularyPack.build(
            given,
            np.concatenate([rows, self._rows(far)]),
            self.encoder_id,
            feature_mean=self.feature_mean,
            negatives=tuple(self.names[index] for index in far),
            prompts=self.prompts,
            teacher=self.teacher,
            text_projection_sha256=self.text_projection_sha256,
            temperature=self.temperature,
            rejection=self.rejection,
        )

    def save(self, path: Path) -> str:
        """Write the bank whole or not at all; returns the file's ``sha256``.

        Raises:
            InputError: ``bad_metadata`` or ``cannot_write``.
        """
        tensors: dict[str, NDArray[Any]] = {
            "rows_int8": self.quantised.values,
            "rows_common": self.quantised.common,
        }
        if self.feature_mean is not None:
            tensors["feature_mean"] = self.feature_mean
        document = {
            "names": list(self.names),
            "aliases": {name: list(others) for name, others in self.aliases.items()},
            **provenance_document(self),
            "scale": self.quantised.scale,
        }
        return safe_file.save(path, FORMAT, document, tensors)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        encoder_id: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> WordBank:
        """Read and verify a bank; arguments and refusals as :meth:`VocabularyPack.load`."""
        header, tensors = safe_file.load(path, FORMAT, limits)
        document = header.document
        check_encoder(path, document["encoder_id"], encoder_id)
        with refusing(path):
            return cls(
                names=tuple(document["names"]),
                quantised=stored_rows(tensors, document["scale"]),
                encoder_id=document["encoder_id"],
                aliases={name: tuple(each) for name, each in document["aliases"].items()},
                feature_mean=tensors.get("feature_mean"),
                prompts=tuple(document["prompts"]),
                **provenance_fields(document),
            )

    @cached_property
    def _tables(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """Keys to indices of nouns: by name, by alias, and by what a name is the plural of."""
        names = list(enumerate(self.names))
        position = {name: index for index, name in names}
        aliases = [(position[n], word) for n, others in self.aliases.items() for word in others]
        aliases += [(index, unqualified(name)) for index, name in names]
        return (
            _table((normalised(name), index) for index, name in names),
            _table((normalised(word), index) for index, word in aliases),
            _table((word, index) for index, name in names for word in singulars(name)),
        )

    def _rows(self, indices: Sequence[int]) -> NDArray[np.float32]:
        chosen = QuantisedRows(
            self.quantised.values[list(indices)], self.quantised.common, self.quantised.scale
        )
        return unit(chosen.rows()).astype(np.float32)

    def _farthest(
        self,
        rows: NDArray[np.float32],
        indices: Sequence[int],
        given: Sequence[str],
        count: int,
    ) -> list[int]:
        if count == 0:
            return []
        nearest = (self._rows(range(len(self.names))) @ rows.T).max(axis=1)
        nearest[list(indices)] = np.inf
        taken = {normalised(word) for word in given}
        order = [
            int(index)
            for index in np.argsort(nearest, kind="stable")
            if np.isfinite(nearest[index]) and normalised(self.names[index]) not in taken
        ]
        if count > len(order):
            raise InputError(
                "bad_pack", f"{count} negative labels are asked for, the bank has {len(order)}"
            )
        return order[:count]


def _table(pairs: Iterable[tuple[str, int]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for key, index in pairs:
        if index not in found.get(key, ()):
            found[key] = (*found.get(key, ()), index)
    return found
