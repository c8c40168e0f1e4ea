# SPDX-License-Identifier: Apache-2.0
"""The tree builds in a ROS 2 workspace, and what it installs runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# One worker builds once for all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("colcon")]
PREFIX = Path(sys.prefix)


def run(command: list[str], folder: Path, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("_ROS_WHEELS")}
    environment |= {"PATH": f"{PREFIX / 'bin'}:{environment['PATH']}", **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def workspace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the tracked and new files, built with colcon from its root."""
    tree = tmp_path_factory.mktemp("workspace") / "spike_perception"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=repository, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        if (source := repository / name).is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    prefix = str(PREFIX)
    run(
        ["colcon", "build", "--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}", "-Wno-dev"],
        tree,
        AMENT_PREFIX_PATH=prefix,
        CMAKE_PREFIX_PATH=prefix,
    )
    return tree


def test_colcon_finds_and_installs_both_packages(workspace):
    assert set(run(["colcon", "list", "--names-only"], workspace).split()) == {
        "spike_perception",
        "spike_perception_msgs",
    }
    share = workspace / "install" / "spike_perception" / "share"
    assert (share / "ament_index/resource_index/packages/spike_perception").is_file()
    for name in ("package.xml", "launch/vpr.launch.py", "config/vpr.yaml", "config/fastdds.xml"):
        assert (share / "spike_perception" / name).is_file(), name
    code = next((workspace / "install" / "spike_perception").glob("**/*-packages/spike_perception"))
    for name in (
        "py.typed",
        "evaluation/templates/report.html.j2",
        "simulation/worlds/loop.sdf",
        "simulation/worlds/routes/two_laps.json",
    ):
        assert (code / name).is_file(), name
    messages = workspace / "install" / "spike_perception_msgs" / "share" / "spike_perception_msgs"
    assert (messages / "msg" / "PlaceMatch.msg").is_file()


def test_the_installed_node_and_command_start_from_the_workspace(workspace):
    executables = workspace / "install" / "spike_perception" / "lib" / "spike_perception"
    assert os.access(executables / "place_recognizer", os.X_OK)
    script = (
        f"source {workspace}/install/local_setup.bash && "
        "python -c 'import spike_perception, spike_perception_msgs as m; "
        "print(spike_perception.__file__, m.__file__)' && "
        f"{executables}/spike-perception --version"
    )
    output = run(["bash", "-c", script], Path("/"))
    assert output.count(str(workspace / "install")) == 2, output
    assert "spike-perception 0.1.0" in output
