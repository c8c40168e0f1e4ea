# SPDX-License-Identifier: Apache-2.0
"""Words that packs and the word bank are made of, and the sentences around them.

A list is a text file: a noun a line, ``name | alias, alias``; ``#`` begins a comment line. A line
``[heading]`` names the coarser noun above those that follow, which may be a noun of the list
itself; ``[]`` ends it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spike_perception.errors import InputError
from spike_perception.zero_shot.names import check_name, check_names, normalised
from spike_perception.zero_shot.pack import refusing

FOLDER = Path(__file__).parent
MAX_FILE_BYTES = 16 << 20
_VOWEL = re.compile(r"\b(a) (?=[aio]|e(?!u)|u(?!ni(?!n)|t[ei]|ri|k|s[be]))", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A noun: its name, other words for it, and the noun above it ("" for none)."""

    name: str
    aliases: tuple[str, ...] = ()
    parent: str = ""


@dataclass(frozen=True)
class Words:
    """A list of nouns.

    Attributes:
        entries: the nouns in the order of the file.
    """

    entries: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names alone, without headings that are no entry."""
        return tuple(each.name for each in self.entries)

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Aliases of the nouns that have some, as a word bank takes them."""
        return {each.name: each.aliases for each in self.entries if each.aliases}

    @property
    def headings(self) -> tuple[Entry, ...]:
        """Nouns above others that are no entry themselves; they are tops of the tree."""
        known = set(self.names)
        above = dict.fromkeys(each.parent for each in self.entries if each.parent)
        return tuple(Entry(name) for name in above if name not in known)

    def tree(self) -> tuple[tuple[Entry, ...], tuple[int, ...]]:
        """Entries followed by headings, and the index of each one's parent, -1 for none.

        These are the names and ``parents`` of a vocabulary pack with a hierarchy.
        """
        nodes = (*self.entries, *self.headings)
        index = {each.name: k for k, each in enumerate(nodes)}
        return nodes, tuple(index[each.parent] if each.parent else -1 for each in nodes)


def word_lists() -> tuple[str, ...]:
    """Names of the lists that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def load_words(name: str | Path) -> Words:
    """A list by its name, or from a file of one's own.

    Raises:
        InputError: ``unknown_words`` if there is neither, and the reasons of :func:`read_words`.
    """
    if str(name) in word_lists():
        return read_words(FOLDER / f"{name}.txt")
    if not Path(name).is_file():
        raise InputError(
            "unknown_words",
            f"{name} is neither a file nor one of the lists {', '.join(word_lists())}",
        )
    return read_words(Path(name))


def read_words(path: Path) -> Words:
    """Read a list; see the module.

    Raises:
        InputError: ``words_unreadable``, or ``bad_name`` or ``duplicate_name`` with the file and
            the line.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError("words_unreadable", f"{path} is no list of words: {error}") from error
    entries: list[Entry] = []
    parent = ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        with refusing(Path(f"{path}, line {number}")):
            if heading := re.fullmatch(r"\[(.*)\]", text):
                parent = heading[1].strip() and check_name(heading[1].strip())
            else:
                entries.append(_entry(text, parent))
    words = Words(tuple(entries))
    with refusing(path):
        check_names([each.name for each in (*entries, *words.headings)])
    return words


def _entry(text: str, parent: str) -> Entry:
    name, bar, rest = (part.strip() for part in text.partition("|"))
    aliases = tuple(check_name(each.strip(), what="alias") for each in rest.split(",") if bar)
    seen = {normalised(check_name(name))}
    for alias in aliases:
        if normalised(alias) in seen:
            raise InputError("duplicate_name", f"{name!r} has {alias!r} twice; give it once")
        seen.add(normalised(alias))
    return Entry(name, aliases, parent)


def prompts(words: str | Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template filled with every word, with the right indefinite article.

    Args:
        words: a name, or several.
        templates: sentences with ``{name}``.
    """
    given = [words] if isinstance(words, str) else words
    return [_article(each.format(name=word)) for each in templates for word in given]


def _article(sentence: str) -> str:
    """``a apple`` as ``an apple``; ``a unicycle`` and ``a European`` stay."""
    return re.sub(_VOWEL, r"\1n ", sentence)
