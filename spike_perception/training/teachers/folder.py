# SPDX-License-Identifier: Apache-2.0
"""A teacher as a folder that open_clip loads: configuration, weights, text tower, tokenizer.

``open_clip_config.json`` names the text tower by the path ``.``: the folder itself, which also
holds the tokenizer. open_clip takes that path from the working directory, so inside the folder
``open_clip.create_model_and_transforms("local-dir:.")`` loads it as it is, and
:func:`~spike_perception.training.teachers.teacher.load_teacher` from anywhere. ``NAME.json`` beside
it holds the folder's place for ``open_clip.add_model_config(folder)``; :func:`register` puts it
right after the folder was moved. open_clip knows no preprocessing of models loaded by name: give it
``image_mean`` and ``image_std`` from :func:`read_config`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spike_perception.errors import InputError
from spike_perception.identity import canonical_json, sha256_bytes, sha256_file, sha256_json
from spike_perception.training.teachers.operators import import_open_clip

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
#: Files of a Hugging Face text tower: its architecture and its tokenizer, not its weights.
TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
MAX_JSON_BYTES = 1 << 20
MAX_TEXT_BYTES = 64 << 20
_HERE = "."


def save(
    folder: Path,
    name: str,
    model_config: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    text_tower: Path,
    card: Mapping[str, Any],
) -> None:
    """Write a teacher; the configuration comes last, so a folder that has one is whole.

    Args:
        folder: made if it is missing; a teacher in it is replaced.
        name: open_clip's name for it.
        model_config: open_clip's ``embed_dim``, ``vision_cfg`` and ``text_cfg``.
        preprocessing: open_clip's ``preprocess_cfg``.
        weights: the model's state dict.
        text_tower: Hugging Face folder whose configuration and tokenizer are copied.
        card: what it was made from and what was measured, for ``teacher.json``.

    Raises:
        InputError: ``cannot_write``.
    """
    from safetensors.torch import save_file

    text = {
        **model_config["text_cfg"],
        "hf_model_name": _HERE,
        "hf_tokenizer_name": _HERE,
        "hf_model_pretrained": False,
    }
    document = {
        "model_cfg": {**model_config, "text_cfg": text},
        "preprocess_cfg": dict(preprocessing),
        "name": name,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        for each in TEXT_FILES:
            if (text_tower / each).is_file():
                shutil.copyfile(text_tower / each, folder / each)
        partial = folder / f".{WEIGHTS}.partial"
        save_file({key: value.contiguous() for key, value in weights.items()}, partial)
        partial.replace(folder / WEIGHTS)
        _write(folder / "teacher.json", dict(card))
        _write(folder / CONFIG, document)
        _write(folder / f"{name}.json", placed(folder, document))
    except OSError as error:
        raise InputError("cannot_write", f"{folder} cannot be written: {error}") from error


def register(folder: Path) -> tuple[str, Path]:
    """Make a teacher's folder known to open_clip, wherever it lies now.

    Afterwards ``open_clip.create_model_and_transforms(name, pretrained=str(weights))`` and
    ``open_clip.get_tokenizer(name)`` work.

    Returns:
        name and weights file.

    Raises:
        InputError: ``bad_teacher``.
    """
    document = read_config(folder)
    name = document["name"]
    here = placed(folder, document)
    open_clip = import_open_clip()
    # Its own temporary file: the teacher may lie where nothing can be written.
    with tempfile.TemporaryDirectory() as place:
        _write(Path(place) / f"{name}.json", here)
        open_clip.add_model_config(Path(place))
    with contextlib.suppress(OSError, ValueError):
        beside = folder / f"{name}.json"
        if not beside.is_file() or json.loads(beside.read_text()) != here:
            _write(beside, here)
    return name, folder / WEIGHTS


def read_config(folder: Path) -> dict[str, Any]:
    """The checked configuration of a teacher's folder: ``model_cfg``, ``preprocess_cfg``, ``name``.

    Raises:
        InputError: ``bad_teacher``.
    """
    found = _read(folder / CONFIG)
    model = found.get("model_cfg")
    name = found.get("name", folder.resolve().name)
    sections = ("vision_cfg", "text_cfg")
    if (
        not isinstance(model, dict)
        or not isinstance(model.get("embed_dim"), int)
        or not all(isinstance(model.get(each), dict) for each in sections)
        or not isinstance(found.get("preprocess_cfg", {}), dict)
        or ":" in str(model["vision_cfg"].get("timm_model_name", ""))  # would be fetched
        or not isinstance(name, str)
        or not name.replace("_", "").replace("-", "").replace(".", "").isalnum()
    ):
        raise InputError(
            "bad_teacher",
            f"{folder / CONFIG} lacks name, embed_dim, vision_cfg or text_cfg in its model_cfg; "
            "write the folder again with spike-train teacher",
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError("bad_teacher", f"{folder} holds no {WEIGHTS}")
    return {"model_cfg": model, "preprocess_cfg": found.get("preprocess_cfg", {}), "name": name}


def identity(folder: Path) -> str:
    """SHA-256 of all that decides what the teacher answers; the folder's place does not."""
    files = [each for each in TEXT_FILES if (folder / each).is_file()]
    for each in files:
        if (folder / each).stat().st_size > MAX_TEXT_BYTES:
            raise InputError("bad_teacher", f"{folder / each} exceeds {MAX_TEXT_BYTES} bytes")
    document = read_config(folder)
    return sha256_json(
        {
            "model": sha256_bytes(canonical_json(document["model_cfg"]).encode()),
            "preprocess": sha256_bytes(canonical_json(document["preprocess_cfg"]).encode()),
            "weights": sha256_file(folder / WEIGHTS),
            "text": {each: sha256_file(folder / each) for each in files},
        }
    )


def read_card(folder: Path) -> dict[str, Any]:
    """What the teacher was made from and what was measured; empty if it has no card."""
    return _read(folder / "teacher.json") if (folder / "teacher.json").is_file() else {}


def placed(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """``embed_dim``, ``vision_cfg`` and ``text_cfg`` with the text tower at the folder's place.

    A configuration from elsewhere never sends open_clip to the network or to another folder.
    """
    model = dict(document["model_cfg"])
    text = dict(model["text_cfg"])
    if "hf_model_name" in text:
        place = str(folder.resolve())
        text.update(hf_model_name=place, hf_tokenizer_name=place, hf_model_pretrained=False)
    model["text_cfg"] = text
    model["vision_cfg"] = {**model["vision_cfg"], "timm_model_pretrained": False}
    return model


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError("bad_teacher", f"{path} exceeds {MAX_JSON_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("bad_teacher", f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError("bad_teacher", f"{path} holds no JSON object")
    return found


def _write(path: Path, document: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
