# SPDX-License-Identifier: Apache-2.0
"""Show what a model bundle holds and verify it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spike_perception.cli import add_json, emit
from spike_perception.deploy.bundle import Bundle, BundleInfo


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, help="model bundle (.safetensors)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify the bundle's hashes and print its card."""
    path: Path = arguments.bundle
    Bundle.load(path)
    info = Bundle.inspect(path)
    result: dict[str, Any] = {
        "bundle": str(path),
        "file_bytes": info.file_bytes,
        "parameters": info.parameter_count,
        "tensors": len(info.tensors),
        **info.document,
    }
    emit(arguments, result, _card(path, info))
    return 0


def _card(path: Path, info: BundleInfo) -> str:
    found = info.document
    provenance = found["provenance"]
    teacher = provenance["teacher"]
    rows = [
        ("kind", found["kind"]),
        ("student", found["student"]["name"]),
        *((f"  {key}", _text(value)) for key, value in found["student"]["config"].items()),
        ("parameters", f"{info.parameter_count:,}"),
        ("file", f"{info.file_bytes / 1e6:.2f} MB, {len(info.tensors)} tensors, hashes verified"),
        ("T x D", f"{found['timesteps']} x {found['levels']}"),
        ("embedding", f"{found['embedding_dim']} dimensions"),
        ("preprocessing", ""),
        *((f"  {key}", _text(value)) for key, value in found["preprocessing"].items()),
        ("encoder id", found["encoder_id"]),
        ("provenance", ""),
        ("  teacher", f"{teacher['name']} ({teacher['sha256'][:12]})" if teacher else "none"),
        *((f"  {key}", _text(value)) for key, value in provenance.items() if key != "teacher"),
        ("metrics", "" if found["metrics"] else "none"),
        *(
            (f"  {each['name']}", f"{each['value']:g}  ({each['command']})")
            for each in found["metrics"]
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([str(path), *(f"{name:<{width}}  {value}".rstrip() for name, value in rows)])


def _text(value: Any) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else str(value)
