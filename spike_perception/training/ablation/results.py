# SPDX-License-Identifier: Apache-2.0
"""``results.json``: one entry a finished run, in the order of the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.ablation.config import AblationConfig

FILE = "results.json"
MAX_BYTES = 64 << 20


class Results:
    """Finished runs of one configuration, on disk after each of them.

    Attributes:
        document: ``command``, ``teacher``, ``sets`` and ``runs``.
    """

    def __init__(self, out: Path, config: AblationConfig, origin: Mapping[str, Any]) -> None:
        """Take over what is there already of the same configuration and origin.

        Args:
            out: folder of the file.
            config: the configuration.
            origin: command and teacher.
        """
        self._file = out / FILE
        self._order = [run.key for run in config.runs()]
        described = config.document()
        described.pop("workers")
        configuration = sha256_json([described, origin["teacher"]])
        self.document: dict[str, Any] = {
            **origin, "configuration": configuration, "sets": {}, "runs": []
        }  # fmt: skip
        if self._file.is_file():
            before = read_results(out)
            if before.get("configuration") == configuration:
                self.document["sets"] = before["sets"]
                self.document["runs"] = before["runs"]

    def describe(self, name: str, described: Mapping[str, Any]) -> None:
        """Note what a set is."""
        self.document["sets"][name] = dict(described)

    def put(self, result: Mapping[str, Any]) -> None:
        """Add a run's result, or replace it, and write the file."""
        found = {each["key"]: each for each in self.document["runs"]}
        found[result["key"]] = dict(result)
        self.document["runs"] = [found[key] for key in self._order if key in found]
        partial = self._file.with_name(f".{FILE}")
        text = json.dumps(self.document, indent=2, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self._file)


def read_results(out: Path) -> dict[str, Any]:
    """The document in a folder of runs.

    Raises:
        InputError: ``run_unfinished`` or ``bad_metadata``.
    """
    file = out / FILE
    if not file.is_file():
        raise InputError("run_unfinished", f"there is no {file}; train first, without --tables")
    if file.stat().st_size > MAX_BYTES:
        raise InputError("bad_metadata", f"{file} is larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("bad_metadata", f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict) or not {"runs", "sets", "command"} <= set(found):
        raise InputError("bad_metadata", f"{file} holds no results of an ablation")
    return found
