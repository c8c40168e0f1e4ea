# SPDX-License-Identifier: Apache-2.0
"""Build description for ament_python (colcon) and pip alike."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "spike_perception"
SHARE = Path("share") / PACKAGE

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Low-power perception for ROS 2 with spiking networks",
    license="Apache-2.0",
    maintainer="spike_perception maintainers",
    maintainer_email="maintainers@spike-perception.org",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        "": ["py.typed", "templates/*", "worlds/*", "worlds/**/*", "presets/*", "words/*.txt"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (str(SHARE), ["package.xml"]),
        *(
            (str(SHARE / folder), sorted(str(p) for p in Path(folder).iterdir() if p.is_file()))
            for folder in ("launch", "config", "models", "models/vocabularies")
        ),
    ],
    # Dependencies are rosdep keys in package.xml and pinned wheels in requirements/: a console
    # script must start wherever either of the two installed them.
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    python_requires=">=3.10",
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "camera_classifier = spike_perception.nodes.camera_classifier:main",
            "dvs_classifier = spike_perception.nodes.dvs_classifier:main",
            "lidar_classifier = spike_perception.nodes.lidar_classifier:main",
            "place_recognizer = spike_perception.nodes.place_recognizer:main",
            "event_simulator = spike_perception.nodes.event_simulator:main",
            "perception = spike_perception.nodes.perception:main",
            "spike-perception = spike_perception.cli:main",
            "spike-train = spike_perception.training.cli:main",
        ],
    },
)
