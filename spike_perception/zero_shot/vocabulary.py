# SPDX-License-Identifier: Apache-2.0
"""Where a robot's words come from: a vocabulary pack, or names found in the word bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spike_perception.config import setting
from spike_perception.deploy.shipped import MODELS, VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.pack import VocabularyPack

_SHOWN = 5


@dataclass(frozen=True)
class VocabularyConfig:
    """The words to begin with, and where others are found."""

    pack: str = setting(
        "coco",
        "vocabulary pack: a file, or the name of one in models/vocabularies",
        fixed=True,
    )
    names: str = setting(
        "",
        "words separated by commas, each in the word bank; empty: those of the pack",
        fixed=True,
    )
    bank: str = setting("word_bank", "word bank: a file, or the name of one in models", fixed=True)
    negatives: int = setting(
        0,
        "nouns of the word bank that serve as negative labels for words given by name (count)",
        minimum=0,
        maximum=10_000,
        fixed=True,
    )


@dataclass(frozen=True)
class Vocabulary:
    """A pack and the file that it, or its words, came from."""

    pack: VocabularyPack
    origin: str


class VocabularySource:
    """Makes vocabularies for one encoder. The word bank is read when names are first asked for."""

    def __init__(self, config: VocabularyConfig, encoder_id: str) -> None:
        self._config = config
        self._encoder_id = encoder_id
        self._bank: tuple[Path, WordBank] | None = None

    def initial(self) -> Vocabulary:
        """The vocabulary that the configuration asks for.

        Raises:
            InputError: as :meth:`from_names` and :meth:`from_pack`.
        """
        names = [each.strip() for each in self._config.names.split(",") if each.strip()]
        return self.from_names(names) if names else self.from_pack(self._config.pack)

    def from_pack(self, given: str) -> Vocabulary:
        """A pack by its file or shipped name.

        Raises:
            InputError: as :func:`shipped_file` and :meth:`VocabularyPack.load`.
        """
        path = shipped_file(given, VOCABULARIES)
        return Vocabulary(VocabularyPack.load(path, encoder_id=self._encoder_id), str(path))

    def from_names(self, names: Sequence[str]) -> Vocabulary:
        """A vocabulary of words of the bank.

        Raises:
            InputError: as :meth:`WordBank.vocabulary`; for words that are not there (or could
                mean several) the message names each with the nearest nouns. As
                :func:`shipped_file` and :meth:`WordBank.load` for the bank itself.
        """
        path, bank = self._word_bank()
        refused: list[InputError] = []
        for name in names:
            try:
                bank.find(name)
            except InputError as error:
                refused.append(error)
                if len(refused) > _SHOWN:  # each search for near nouns takes its time
                    break
        if refused:
            more = "; and more" if len(refused) > _SHOWN else ""
            raise InputError(refused[0].reason, "; ".join(map(str, refused[:_SHOWN])) + more)
        return Vocabulary(bank.vocabulary(names, negatives=self._config.negatives), str(path))

    def _word_bank(self) -> tuple[Path, WordBank]:
        if self._bank is None:
            path = shipped_file(self._config.bank, MODELS)
            self._bank = path, WordBank.load(path, encoder_id=self._encoder_id)
        return self._bank
