# SPDX-License-Identifier: Apache-2.0
"""The file under model bundles, vocabulary packs and word banks: safetensors and a JSON document.

A file is a safetensors file whose ``__metadata__`` has the single key ``spike_perception``: a JSON
document with ``format``, ``version``, ``sha256`` and whatever the format's schema asks for. The
file comes from outside, so its header is checked here (sizes, shapes, offsets, depth) before a
byte of tensor data is read; only then safetensors' own parser turns the bytes into arrays. Nothing
in the file is ever executed: there is no pickle on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.identity import canonical_json

Array = NDArray[Any]

METADATA_KEY = "spike_perception"
_ITEM_BYTES = {
    "BOOL": 1,
    "F16": 2,
    "F32": 4,
    "F64": 8,
    "I16": 2,
    "I32": 4,
    "I64": 8,
    "I8": 1,
    "U8": 1,
}
_STRUCTURE = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_CONTROL = "[\\x00-\\x1f\\x7f-\\x9f]"

# Parts of schemas that several formats share.
TEXT: dict[str, Any] = {"type": "string", "maxLength": 2000, "not": {"pattern": _CONTROL}}
SHA256: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64}
TEACHER: dict[str, Any] = {
    "type": "object",
    "required": ["name", "sha256"],
    "properties": {"name": TEXT, "sha256": {"anyOf": [SHA256, {"const": ""}]}},
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Limits:
    """What a file may take, checked before anything of that size is read or built."""

    file_bytes: int = 64 << 20
    header_bytes: int = 4 << 20
    tensors: int = 4096
    dimensions: int = 8
    depth: int = 16


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Format:
    """A kind of file: its name, the version this software writes and reads, its JSON schema."""

    name: str
    version: int
    required: tuple[str, ...]
    properties: Mapping[str, Any] = field(repr=False)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema (draft 7) of the whole document."""
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": f"{self.name} {self.version}",
            "type": "object",
            "required": ["format", "version", "sha256", *self.required],
            "properties": {
                "format": {"const": self.name},
                "version": {"const": self.version},
                "sha256": SHA256,
                **self.properties,
            },
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header declares it; ``begin`` and ``end`` are bytes within the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header: the document, the tensors it declares, and the size of the file."""

    document: dict[str, Any]
    tensors: dict[str, TensorInfo]
    file_bytes: int


def inspect(path: Path, form: Format, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read and check a file's header; tensor data is neither read nor verified.

    Raises:
        InputError: see :func:`load`; all but ``wrong_checksum``.
    """
    with _opened(path) as stream:
        return _header(path, stream, form, limits)[0]


def load(
    path: Path,
    form: Format,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Header, dict[str, Array]]:
    """Read, check and verify a whole file.

    Returns:
        The header and the tensors by name, read-only arrays.

    Raises:
        InputError: ``file_missing``, ``oversized_file``, ``truncated_file``, ``bad_header``,
            ``wrong_format``, ``unknown_version``, ``bad_metadata`` or ``wrong_checksum``. The
            message names what was found and what is expected.
    """
    with _opened(path) as stream:
        header, head_bytes = _header(path, stream, form, limits)
        data = stream.read(header.file_bytes - len(head_bytes))
    if len(head_bytes) + len(data) != header.file_bytes:
        raise InputError("truncated_file", f"{path}: the file shrank while it was read")
    try:
        tensors: dict[str, Array] = safetensors.numpy.load(head_bytes + data)
    # ValueError: an empty tensor with another dimension that no array can have.
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError("bad_header", f"{path}: safetensors refuses the file: {error}") from error
    found = checksum(header.document, tensors)
    if found != header.document["sha256"]:
        raise InputError(
            "wrong_checksum",
            f"{path}: the contents hash to {found}, the file says {header.document['sha256']}; "
            "the file is damaged or was changed: take a fresh copy",
        )
    for array in tensors.values():
        array.setflags(write=False)
    return header, tensors


def save(
    path: Path, form: Format, document: Mapping[str, Any], tensors: Mapping[str, Array]
) -> str:
    """Write a file whole or not at all, and return the ``sha256`` in it.

    The bytes are written beside ``path``, flushed to the disk and renamed over it, so a reader
    sees the old file or the new one, also after a power cut.

    Args:
        path: the file; its folder exists.
        form: the format; ``document`` must satisfy its schema.
        document: all metadata but ``format``, ``version`` and ``sha256``.
        tensors: arrays by name.

    Raises:
        InputError: ``bad_metadata``, or ``cannot_write`` if the disk is full or read-only.
    """
    whole = plain(str(path), {**document, "format": form.name, "version": form.version})
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    whole["sha256"] = checksum(whole, arrays)
    check_document(str(path), form, whole)
    data = safetensors.numpy.save(arrays, {METADATA_KEY: canonical_json(whole)})
    _write_atomically(path, data)
    return str(whole["sha256"])


def checksum(document: Mapping[str, Any], tensors: Mapping[str, Array]) -> str:
    """SHA-256 over the document (without ``sha256``) and every tensor."""
    content = {key: value for key, value in document.items() if key != "sha256"}
    return _digest(canonical_json([content, tensors_digest(tensors)]))


def tensors_digest(tensors: Mapping[str, Array]) -> str:
    """SHA-256 over tensors in canonical order: by name; name, dtype, shape, little-endian bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(canonical_json([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def plain(where: str, value: Any) -> Any:
    """``value`` as JSON gives it back: tuples become lists.

    Raises:
        InputError: ``bad_metadata`` if it holds NaN or what JSON does not know.
    """
    try:
        return json.loads(canonical_json(value))
    except (TypeError, ValueError) as error:
        raise InputError("bad_metadata", f"{where}: metadata is no JSON: {error}") from error


def check_document(where: str, form: Format, document: Any) -> None:
    """Check a document against its format.

    Args:
        where: the file's name, for messages.
        form: the format that is expected.
        document: parsed JSON.

    Raises:
        InputError: ``wrong_format``, ``unknown_version`` or ``bad_metadata``.
    """
    if not isinstance(document, dict) or document.get("format") != form.name:
        found = document.get("format") if isinstance(document, dict) else document
        raise InputError(
            "wrong_format", f"{where}: found format {_short(found)}, expected {form.name!r}"
        )
    if document.get("version") != form.version:
        raise InputError(
            "unknown_version",
            f"{where}: found {form.name} version {_short(document.get('version'))}, this software "
            f"reads version {form.version}; write the file again with this release",
        )
    check_schema(where, form.schema, document)


def check_schema(where: str, schema: Mapping[str, Any], value: Any, part: str = "") -> None:
    """Check JSON data against a JSON schema (draft 7).

    Args:
        where: the file's name, for messages.
        schema: the schema.
        value: parsed JSON.
        part: dotted path of ``value`` within its document, for messages.

    Raises:
        InputError: ``bad_metadata``.
    """
    # Imported here: only files need it. jsonschema is preferred to checks of our own because the
    # schema then is data that the documentation can show; draft 7 is what older releases know too.
    import jsonschema

    # The draft takes 32.0 for an integer; a size or an index must be one in Python too.
    kinds = jsonschema.Draft7Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, each: type(each) is int
    )
    strict = jsonschema.validators.extend(jsonschema.Draft7Validator, type_checker=kinds)
    error = next(iter(strict(schema).iter_errors(value)), None)
    if error is not None:
        place = ".".join([*filter(None, [part]), *map(str, error.absolute_path)])
        raise InputError(
            "bad_metadata",
            f"{where}: metadata at {place or 'the top'}: found {_short(error.instance)}, expected "
            f"{error.validator} {_short(error.validator_value)}",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; a pipe or device, which could block or never end, is refused."""
    try:
        if not path.is_file():
            found = "not a regular file" if path.exists() else "no such file"
            raise InputError("file_missing", f"{path}: {found}")
        with path.open("rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InputError("file_missing", f"{path}: not a regular file")
            yield stream
    except OSError as error:
        raise InputError("file_missing", f"{path}: cannot be read: {error.strerror}") from error


def _header(path: Path, stream: BinaryIO, form: Format, limits: Limits) -> tuple[Header, bytes]:
    """Read and check the header; returns it and the bytes read so far."""
    size = os.fstat(stream.fileno()).st_size
    if size > limits.file_bytes:
        raise InputError(
            "oversized_file", f"{path}: has {size} bytes, allowed are {limits.file_bytes}"
        )
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise InputError("truncated_file", f"{path}: has {size} bytes, too few for a header")
    length = int.from_bytes(prefix, "little")
    if length > limits.header_bytes:
        raise InputError(
            "bad_header",
            f"{path}: declares a header of {length} bytes, allowed are {limits.header_bytes}; "
            "this is no safetensors file of ours",
        )
    if 8 + length > size:
        raise InputError(
            "truncated_file", f"{path}: has {size} bytes, its header alone needs {8 + length}"
        )
    text = stream.read(length)
    entries = _parse(path, text, "header", limits)
    if not isinstance(entries, dict):
        raise InputError("bad_header", f"{path}: the header is no JSON object")
    metadata = entries.pop("__metadata__", {})
    tensors = _tensor_infos(path, entries, size - 8 - length, limits)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
        raise InputError(
            "wrong_format",
            f"{path}: has no metadata {METADATA_KEY!r}; expected a file of format {form.name}",
        )
    document = _parse(path, metadata[METADATA_KEY].encode(errors="replace"), "metadata", limits)
    check_document(str(path), form, document)
    return Header(document, tensors, size), prefix + text


def _parse(path: Path, text: bytes, part: str, limits: Limits) -> Any:
    """JSON of bounded depth, without repeated keys, NaN, infinities or lone surrogates."""
    depth = 0
    quoted = False
    for match in _STRUCTURE.finditer(text):
        token = match.group()
        if token == b'"':
            quoted = not quoted
        elif not quoted and token in (b"[", b"{"):
            depth += 1
            if depth > limits.depth:
                raise InputError(
                    "bad_header",
                    f"{path}: the {part} nests more than {limits.depth} levels deep",
                )
        elif not quoted and token in (b"]", b"}"):
            depth -= 1
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InputError("bad_header", f"{path}: the {part} is no valid JSON: {error}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 64:
        raise ValueError(f"{text[:40]} is too large")
    return value


def _tensor_infos(
    path: Path, entries: dict[str, Any], data_bytes: int, limits: Limits
) -> dict[str, TensorInfo]:
    """Check every tensor's declaration, and that together they fill the data without overlap."""
    if len(entries) > limits.tensors:
        raise InputError(
            "oversized_file",
            f"{path}: declares {len(entries)} tensors, allowed are {limits.tensors}",
        )
    tensors = {name: _tensor_info(path, name, entry, limits) for name, entry in entries.items()}
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            raise InputError(
                "bad_header",
                f"{path}: tensor {_short(name)} begins at byte {info.begin}, expected {position}: "
                "tensors overlap or leave a gap",
            )
        position = info.end
    if position > data_bytes:
        raise InputError(
            "truncated_file", f"{path}: holds {data_bytes} bytes of tensors, expected {position}"
        )
    if position < data_bytes:
        raise InputError(
            "bad_header", f"{path}: {data_bytes - position} bytes follow the last tensor"
        )
    return tensors


def _tensor_info(path: Path, name: str, entry: Any, limits: Limits) -> TensorInfo:
    wrong = InputError(
        "bad_header", f"{path}: tensor {_short(name)} is declared as {_short(entry)}"
    )
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise wrong
    if not _naturals(shape) or len(shape) > limits.dimensions:
        raise wrong
    if not _naturals(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] < 0:
        raise wrong
    # Python's integers do not overflow, so an absurd shape cannot wrap round to a small size.
    if math.prod(shape) * _ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
        raise wrong
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _write_atomically(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with beside.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError("cannot_write", f"{path}: cannot be written: {error.strerror}") from error
