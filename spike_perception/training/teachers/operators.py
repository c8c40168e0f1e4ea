# SPDX-License-Identifier: Apache-2.0
"""The one place that imports open_clip, which takes torchvision, which may miss its operators.

The wheels of torchvision are built against a CUDA torch. Beside a CPU torch their compiled library
does not load, and their Python part then fails as it registers shapes for operators that nobody
defined. open_clip and timm use none of these operators: defining their schemas is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from spike_perception.errors import InputError

if TYPE_CHECKING:
    import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# The definitions vanish with the Library object, so it lives as long as the module.
_libraries: list[torch.library.Library] = []


def define_torchvision_operators() -> tuple[str, ...]:
    """Define the operators that an installed torchvision lacks; returns their names.

    Does nothing where torchvision is absent or its own library loads. May be called any number of
    times, before the first import of torchvision, timm or open_clip.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()
    _load_own_library(Path(next(iter(spec.submodule_search_locations))))
    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(SCHEMAS[name])
        _libraries.append(library)
    return tuple(missing)


def import_open_clip() -> ModuleType:
    """The module ``open_clip``.

    Raises:
        InputError: ``package_missing``.
    """
    return _imported("open_clip")


def import_timm() -> ModuleType:
    """The module ``timm``.

    Raises:
        InputError: ``package_missing``.
    """
    return _imported("timm")


def _imported(name: str) -> ModuleType:
    if importlib.util.find_spec(name) is None:
        raise InputError(
            "package_missing",
            f"{name} is not installed; teachers need the packages of the training extra",
        )
    define_torchvision_operators()
    return importlib.import_module(name)


def _load_own_library(folder: Path) -> None:
    import torch

    for file in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd"), *folder.glob("_C*.dylib")):
        try:
            torch.ops.load_library(str(file))
        except OSError:
            continue  # built for another torch: torchvision passes over it in the same way
        return
