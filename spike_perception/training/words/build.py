# SPDX-License-Identifier: Apache-2.0
"""Build the word bank: python -m spike_perception.training.words.build --wordnet FOLDER.

Taken in this order, each word once: the lists beside this module (``coco``, ``indoor``,
``driving``, ``everyday``), the class names of ImageNet-1k that open_clip ships, and nouns of
WordNet 3.0 out of timm's list of ImageNet-12k, which are things that photographs show: animals,
plants, food, artefacts, places; no kinds of people, whose words in WordNet are often abuse. Those
come first that are common in WordNet's tagged texts or have nouns below them, then short ones.

An alias is taken from WordNet only where its usual (first) sense is meant, and never if it is
another noun of the bank: a word means one thing.

FOLDER is WordNet's database, such as /usr/share/wordnet of Debian's package wordnet-base.
"""

from __future__ import annotations

import argparse
import re
import runpy
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from spike_perception.errors import InputError
from spike_perception.training.words import FOLDER, Entry, read_words
from spike_perception.zero_shot.names import normalised, singulars

SIZE = 5000
LISTS = ("coco", "indoor", "driving", "everyday")
#: Lexicographer files of WordNet that hold what is taken: animal, artefact, body, food, object,
#: plant.
LEXICAL_FILES = frozenset({"05", "06", "08", "13", "17", "20"})
_UNKIND = re.compile(
    r"\b(boob|bitch|coolie|dago|hottentot|kaf+ir|negro|nigger|squaw)", re.IGNORECASE
)
_MAX_LENGTH = 30
_HEADER = """\
# The word bank, written by spike_perception.training.words.build.
# Words out of WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved; used under
# the WordNet licence. Names of ImageNet-1k classes as open_clip ships them.
"""


class Synset(NamedTuple):
    """A meaning in WordNet."""

    lexical_file: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


class WordNet:
    """The nouns of WordNet's database files.

    Args:
        folder: holds ``data.noun``, ``index.noun`` and ``cntlist.rev``.
    """

    def __init__(self, folder: Path) -> None:
        self.synsets: dict[str, Synset] = {}
        for line in _records(folder / "data.noun"):
            words = line.partition(" | ")[0].split()
            count = int(words[3], 16)
            pointers = words[4 + 2 * count + 1 :]
            self.synsets[words[0]] = Synset(
                words[1],
                tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2]),
                tuple(pointers[k + 1] for k in range(0, len(pointers), 4) if pointers[k] == "@"),
            )
        self._first: dict[str, str] = {}
        for line in _records(folder / "index.noun"):
            words = line.split()
            self._first[words[0].replace("_", " ")] = words[-int(words[2])]
        tagged: dict[str, int] = {}
        for line in _records(folder / "cntlist.rev"):
            key, rank, times = line.split()[:3]
            lemma, _, sense = key.partition("%")
            if sense.startswith("1:") and rank == "1":  # a noun, in its first sense
                tagged[lemma.replace("_", " ")] = int(times)
        self._tagged = tagged
        below: dict[str, set[str]] = {}
        for offset in self.synsets:
            for above in self._above(offset):
                below.setdefault(above, set()).add(offset)
        self.below = {offset: len(each) for offset, each in below.items()}

    def __contains__(self, lemma: str) -> bool:
        return lemma in self._first

    def usual(self, offset: str) -> tuple[str, ...]:
        """The lemmas that usually mean this synset."""
        return tuple(
            each for each in self.synsets[offset].lemmas if self._first.get(each.lower()) == offset
        )

    def common(self, lemma: str) -> int:
        """How often the first sense of a lemma occurs in the tagged texts."""
        return self._tagged.get(lemma.lower(), 0)

    def _above(self, offset: str) -> Iterator[str]:
        seen = {offset}
        waiting = [offset]
        for each in waiting:
            for above in self.synsets[each].hypernyms:
                if above not in seen:
                    seen.add(above)
                    waiting.append(above)
                    yield above


def build(wordnet: WordNet, size: int = SIZE) -> list[Entry]:
    """The entries of the bank, in the order of their sources.

    Args:
        wordnet: where synonyms and further nouns come from.
        size: so many entries, unless the sources above WordNet hold more.
    """
    names = runpy.run_path(str(_installed("open_clip") / "zero_shot_metadata.py"))
    info = _installed("timm") / "data" / "_info"
    synsets = (info / "imagenet_synsets.txt").read_text().split()
    bank = _Bank()
    for name in LISTS:
        words = read_words(FOLDER / f"{name}.txt")
        for entry in (*words.entries, *words.headings):
            bank.add(entry.name, entry.aliases, listed=True)
    for class_name, synset in zip(names["IMAGENET_CLASSNAMES"], synsets, strict=True):
        bank.add(class_name, _aliases(wordnet, synset[1:]))
    candidates = []
    for synset in (info / "imagenet12k_synsets.txt").read_text().split():
        offset = synset[1:]
        usual = wordnet.usual(offset)
        meaning = wordnet.synsets[offset]
        if not usual or meaning.lexical_file not in LEXICAL_FILES or not _plain(wordnet, usual[0]):
            continue
        lemma = usual[0]
        known = max(map(wordnet.common, usual)) + min(wordnet.below.get(offset, 0), 3)
        rank = (-known, not lemma.islower(), lemma.count(" "), len(lemma), lemma)
        candidates.append((rank, offset))
    for (*_, lemma), offset in sorted(candidates):
        if len(bank) >= size:
            break
        bank.add(lemma, _aliases(wordnet, offset))
    return bank.entries()


class _Bank:
    """Names first, then aliases that are no name and no other noun's alias."""

    def __init__(self) -> None:
        self._aliases: dict[str, list[str]] = {}
        self._key: dict[str, str] = {}  # every spelling in use: whose it is

    def __len__(self) -> int:
        return len(self._aliases)

    def add(self, name: str, aliases: Iterable[str], *, listed: bool = False) -> None:
        """Take a noun; one that is there gains the aliases. Listed nouns are taken as they are."""
        known = self._key.get(normalised(name))
        if known is None and not listed:
            # What is the plural of a noun, or its singular, is that noun.
            known = next((self._key[each] for each in singulars(name) if each in self._key), None)
            known = known or self._key.get(normalised(name) + "s")
        if known is not None and listed and normalised(known) != normalised(name):
            # A listed noun takes its word from the noun it was an alias of.
            kept = self._aliases[known]
            self._aliases[known] = [each for each in kept if normalised(each) != normalised(name)]
            known = None
        if known is None:
            known = name
            self._aliases[name] = []
            self._key[normalised(name)] = name
        for alias in aliases:
            key = normalised(alias)
            if key not in self._key and not any(each in self._key for each in singulars(alias)):
                self._key[key] = known
                self._aliases[known].append(alias)

    def entries(self) -> list[Entry]:
        return [Entry(name, tuple(aliases)) for name, aliases in self._aliases.items()]


def _aliases(wordnet: WordNet, offset: str) -> list[str]:
    return [each for each in wordnet.usual(offset) if _plain(wordnet, each)]


def _plain(wordnet: WordNet, lemma: str) -> bool:
    """No scientific name, no code, nothing unkind."""
    odd = len(lemma) > _MAX_LENGTH or "." in lemma or re.search(r"\d", lemma)
    scientific = f"genus {lemma.split()[0].lower()}" in wordnet and lemma[0].isupper()
    return not (odd or scientific or _UNKIND.search(lemma))


def _installed(package: str) -> Path:
    """Folder of a package, which is not imported: its tables are wanted, not its networks."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError("package_missing", f"{package} is not installed: pip install {package}")
    return Path(spec.origin).parent


def _records(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("  "):  # the licence
                yield line


def main() -> None:
    """Write ``bank.txt`` beside this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--out", type=Path, default=FOLDER / "bank.txt")
    arguments = parser.parse_args()
    entries = build(WordNet(arguments.wordnet), arguments.size)
    lines = [" | ".join(filter(None, (each.name, ", ".join(each.aliases)))) for each in entries]
    arguments.out.write_text(_HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(entries)} nouns, {sum(len(each.aliases) for each in entries)} aliases")


if __name__ == "__main__":
    main()
