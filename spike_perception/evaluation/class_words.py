# SPDX-License-Identifier: Apache-2.0
"""Which words the classes of a data set are: folder names, labels, word bank and vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spike_perception.bags.images import ImageFiles
from spike_perception.errors import InputError
from spike_perception.zero_shot.bank import MAX_ALIASES, WordBank
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.quantisation import QuantisedRows

MAX_LABEL_BYTES = 16 << 20
_SHOWN = 5
_LABEL_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Labels:
    """What a user says the classes are.

    Attributes:
        words: the words to choose among; () for those of the folders.
        folders: words that a folder may mean, the first one that is known counts.
    """

    words: tuple[str, ...] = ()
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def parse_labels(given: str) -> Labels:
    """Labels from a command line.

    Args:
        given: ``NAME,NAME,...``, ``FOLDER=NAME,...``, or a file, which may lie in a zip file
            (``FILE.zip/classes.tsv``): one ``NAME`` a line, or ``FOLDER<tab>NAME, NAME, ...``.

    Raises:
        InputError: ``file_missing``; ``bad_labels`` for a file that is no text or is too large, or
            without a name; ``images_unreadable`` for a file that cannot be read.
    """
    path = Path(given)
    if not _is_file(path):
        if path.suffix in _LABEL_SUFFIXES and "," not in given:
            raise InputError("file_missing", f"there is no file of labels {given}")
        pairs = [entry.partition("=") for entry in given.split(",")]
    else:
        with ImageFiles(path.parent) as files:
            data = files.read(path.name)
        try:
            if len(data) > MAX_LABEL_BYTES:
                raise ValueError(f"{len(data)} bytes, more than {MAX_LABEL_BYTES}")
            lines = data.decode("utf-8-sig").splitlines()
        except ValueError as error:
            raise InputError(
                "bad_labels",
                f"{path}: {error}; a file of labels is UTF-8 text with one NAME, or "
                "FOLDER<tab>NAME, a line",
            ) from error
        pairs = [line.partition("\t") for line in lines]
    words: list[str] = []
    folders: dict[str, tuple[str, ...]] = {}
    for left, separator, right in pairs:
        if separator:
            names = tuple(each.strip() for each in right.split(",") if each.strip())
            if names:
                folders[left.strip()] = names
        elif left.strip():
            words.append(left.strip())
    if not words and not folders:
        raise InputError("bad_labels", f"{given!r} holds no label; give NAME,NAME,... or a file")
    return Labels(tuple(words), folders)


def bank_vocabulary(
    bank: WordBank, folders: Sequence[str], labels: Labels, negatives: int
) -> tuple[VocabularyPack, Labels]:
    """A vocabulary from a word bank, and what each folder is called in it.

    Raises:
        InputError: as :meth:`WordBank.vocabulary`; ``unknown_name`` lists every folder whose name
            is no word of the bank, with the nearest ones.
    """
    words = list(labels.words)
    taken = {bank.find(word): word for word in words}
    chosen: dict[str, tuple[str, ...]] = {}
    refused: list[str] = []
    for folder in folders:
        if labels.words and folder not in labels.folders:
            continue  # it has to be one of the given words
        try:
            word, noun = _first_known(bank, _candidates(folder, labels), set(taken))
        except InputError as error:
            refused.append(f"folder {folder!r}: {error}")
            continue
        if noun not in taken:
            taken[noun] = word
            words.append(word)
        chosen[folder] = (taken[noun],)
    _refuse(refused, "use --labels FOLDER=NAME,... or --labels FILE to say what they mean")
    return bank.vocabulary(words, negatives=negatives), Labels(labels.words, chosen)


def match_folders(
    pack: VocabularyPack, folders: Sequence[str], labels: Labels, bank: WordBank | None = None
) -> npt.NDArray[np.int64]:
    """Class of the vocabulary that each folder means, int64 ``[folders]``.

    A folder's name means a class as a word means a noun of a word bank (case, underscores,
    hyphens and plurals do not count); with a bank, its aliases are understood too.

    Raises:
        InputError: ``unknown_name`` for folders that are no class, ``duplicate_name`` for two
            folders of one class, ``bad_labels`` for a class that has classes below it.
    """
    lexicon = _lexicon(pack, bank)
    found: dict[int, str] = {}
    refused: list[str] = []
    for folder in folders:
        try:
            _, index = _first_known(lexicon, _candidates(folder, labels), set())
        except InputError as error:
            text = str(error).replace("nouns of the word bank", "names of the vocabulary")
            refused.append(f"folder {folder!r}: {text}")
            continue
        if index in found:
            raise InputError(
                "duplicate_name",
                f"folders {found[index]!r} and {folder!r} both mean {pack.names[index]!r}; put "
                "their images into one folder, or give them different words with --labels",
            )
        found[index] = folder
    _refuse(refused, "use --labels FOLDER=NAME,... to say what they mean, or another vocabulary")
    truth = np.array(list(found), np.int64)
    inner = np.setdiff1d(truth, pack.hierarchy.leaves)
    if len(inner):
        raise InputError(
            "bad_labels",
            f"folder {found[int(inner[0])]!r} means {pack.names[inner[0]]!r}, which has classes "
            "below it in this vocabulary; folders are the finest classes",
        )
    return truth


def find_classes(
    pack: VocabularyPack, words: Sequence[str], bank: WordBank | None = None
) -> list[int]:
    """Classes of the vocabulary that these words mean; refusals as :meth:`WordBank.find`."""
    lexicon = _lexicon(pack, bank)
    return [lexicon.find(word) for word in words]


def _candidates(folder: str, labels: Labels) -> tuple[str, ...]:
    return labels.folders.get(folder, (folder.replace("_", " ").strip(),))


def _first_known(bank: WordBank, words: Sequence[str], taken: set[int]) -> tuple[str, int]:
    """The first word that the bank knows, one that is not taken before one that is."""
    known: list[tuple[str, int]] = []
    refusal: InputError | None = None
    for word in words:
        try:
            known.append((word, bank.find(word)))
        except InputError as error:
            refusal = refusal or error
    if not known:
        raise refusal or InputError("bad_labels", "no word is given")
    return next((each for each in known if each[1] not in taken), known[0])


def _refuse(refused: Sequence[str], advice: str) -> None:
    if refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise InputError("unknown_name", f"{'; '.join(refused[:_SHOWN])}{more}. {advice}")


def _lexicon(pack: VocabularyPack, bank: WordBank | None) -> WordBank:
    """The vocabulary's names as a bank, for its way of finding words."""
    values = pack.quantised.values[: len(pack.names)]
    rows = QuantisedRows(values, pack.quantised.common, pack.quantised.scale)
    return WordBank(pack.names, rows, pack.encoder_id, dict(_aliases(pack, bank)))


def _aliases(pack: VocabularyPack, bank: WordBank | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in pack.names if bank else ():
        try:
            noun = bank.names[bank.find(name)] if bank else name
        except InputError:
            continue  # a class that the bank does not know has no aliases
        yield name, (noun, *(bank.aliases.get(noun, ()) if bank else ()))[:MAX_ALIASES]


def _is_file(path: Path) -> bool:
    """Whether a path is a file, or lies in one (a zip file)."""
    try:
        return any(each.is_file() for each in (path, *path.parents))
    except (OSError, ValueError):  # a list of names may be longer than a file's name can be
        return False
