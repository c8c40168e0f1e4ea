# SPDX-License-Identifier: Apache-2.0
"""The place where the head in force lies; it is swapped between frames."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Head

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installed:
    """A head in force and how many were before it."""

    head: Head
    generation: int


class HeadSlot:
    """Holds one reference to an immutable :class:`Installed`.

    A frame reads :attr:`current` once and uses what it got to its end: a swap meanwhile changes
    nothing for it, and no frame can see parts of two vocabularies.
    """

    def __init__(self, head: Head) -> None:
        self._writing = threading.Lock()
        self._current = Installed(head, 0)

    @property
    def current(self) -> Installed:
        """The head in force; read it once per frame."""
        return self._current

    def swap(self, head: Head) -> Installed:
        """Put another head, built beforehand, in force for the frames that begin from now on.

        Returns:
            What was in force until now; pass its head to swap back.

        Raises:
            InputError: ``wrong_encoder`` for a vocabulary of another encoder.
        """
        with self._writing:
            before = self._current
            old, new = before.head.pack, head.pack
            if new.encoder_id != old.encoder_id:
                raise InputError(
                    "wrong_encoder",
                    f"the vocabulary was folded for encoder {new.encoder_id}, the running encoder "
                    f"is {old.encoder_id}; fold it for this encoder",
                )
            self._current = Installed(head, before.generation + 1)
        _log.info(
            "vocabulary %s (%d classes) replaces %s (%d classes), generation %d",
            new.vocabulary_id[:12],
            len(new.names),
            old.vocabulary_id[:12],
            len(old.names),
            before.generation + 1,
        )
        return before
