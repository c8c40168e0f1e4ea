# SPDX-License-Identifier: Apache-2.0
"""Files that are installed beside the code: configurations, models, message definitions."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from spike_perception.errors import InputError


def share_folder(package: str = "spike_perception") -> Path:
    """Folder of a package's shared files.

    Looked for along AMENT_PREFIX_PATH, then up from the code: in a wheel's prefix, and in the
    source tree of an editable install.

    Raises:
        InputError: ``package_missing`` if the package is not installed.
    """
    prefixes = [Path(each) for each in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if each]
    spec = find_spec(package)
    code = Path(spec.origin).parent if spec and spec.origin else None
    if code is not None:
        prefixes += code.parents
    for prefix in prefixes:
        if (prefix / "share" / package / "package.xml").is_file():
            return prefix / "share" / package
    if code is not None and (code.parent / "package.xml").is_file():
        return code.parent
    raise InputError(
        "package_missing", f"{package} is not installed: run make install, or source its workspace"
    )


# Fast DDS 3, from ROS 2 Kilted on, warns of the old name; the releases before may know only that.
OLD_FAST_DDS = ("humble", "iron", "jazzy")


def fast_dds_environment() -> dict[str, str]:
    """Variables that make Fast DDS carry images (see ``config/fastdds.xml``).

    A profile that the user has set stays in force.
    """
    names = ["FASTDDS_DEFAULT_PROFILES_FILE"]
    if os.environ.get("ROS_DISTRO") in OLD_FAST_DDS:
        names.append("FASTRTPS_DEFAULT_PROFILES_FILE")
    profile = str(share_folder() / "config" / "fastdds.xml")
    return {name: os.environ.get(name, profile) for name in names}
