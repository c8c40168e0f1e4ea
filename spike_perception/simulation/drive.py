# SPDX-License-Identifier: Apache-2.0
"""Drive a simulated robot along a route and write what it senses as a bag.

Topics: the sensors' own (camera: ``/camera/image_raw``, ``/camera/camera_info``; LiDAR:
``/lidar/points``; event camera: ``/event_camera/events``), ``/odom`` with drift, ``/tf`` (odom to
base_link, the same drifting pose), ``/tf_static`` (base_link to every sensor),
``/ground_truth/odom`` (frame ``map``), which the tf tree does not contain, and what the sensors
truly see: ``/ground_truth/objects`` (see ``sensors.ObjectTruth``) and
``/ground_truth/lidar_objects`` (see ``lidar.Lidar``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.message_writer import NANOSECONDS, MessageWriter
from spike_perception.bags.writer import BagWriter
from spike_perception.config import section, setting
from spike_perception.errors import InputError
from spike_perception.simulation.daylight import daylight
from spike_perception.simulation.event_sensor import EventSensor, EventSensorConfig
from spike_perception.simulation.lidar import Lidar, LidarConfig
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.route import Route
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import World
from spike_perception.simulation.sensors import Camera, ObjectTruth, Sensor

BLEND = 4.0  # distance over which a lap's lateral offset sets in (m)
SPEED_RIPPLE = 0.1  # relative change of speed along a lap
RIPPLES = 5  # of speed in a lap
SENSORS = ("camera", "lidar", "events")


@dataclass(frozen=True)
class CameraConfig:
    """The robot's camera."""

    name: str = setting("camera", "SDF name of the camera sensor on the robot")
    topic: str = setting("/camera/image_raw", "topic of the images")
    frame_id: str = setting("camera_optical_frame", "optical frame of the images")
    width: int = setting(320, "picture width (px)", minimum=16, maximum=4096)
    height: int = setting(240, "picture height (px)", minimum=16, maximum=4096)
    rate: float = setting(5.0, "pictures a second (Hz)", minimum=0.1, maximum=1000.0)


@dataclass(frozen=True)
class OdometryConfig:
    """Odometry by dead reckoning, with errors that grow with the distance driven."""

    rate: float = setting(20.0, "messages a second (Hz)", minimum=0.1, maximum=1000.0)
    scale_error: float = setting(
        0.002, "relative error of distance, constant in a drive", minimum=-0.5, maximum=0.5
    )
    heading_noise: float = setting(
        0.001, "random walk of the heading (rad per square root of m)", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class DriveConfig:
    """Everything about a drive but world and route."""

    seed: int = setting(0, "seed of all randomness", minimum=0, maximum=2**31 - 1)
    start_time: float = setting(1000.0, "stamp of the start (s)", minimum=1.0, maximum=2e9)
    storage: str = setting("mcap", "bag format", choices=("mcap", "sqlite3"))
    laps: int = setting(0, "drive only this many laps, 0 for all", minimum=0, maximum=100)
    maximum_seconds: float = setting(
        0.0, "end after this much simulated time (s), 0 for the whole route", minimum=0.0
    )
    sensors: str = setting(
        "camera", f"what the robot senses with: some of {', '.join(SENSORS)}, by commas"
    )
    camera: CameraConfig = section(CameraConfig)
    lidar: LidarConfig = section(LidarConfig)
    events: EventSensorConfig = section(EventSensorConfig)
    odometry: OdometryConfig = section(OdometryConfig)


@dataclass(frozen=True)
class Trajectory:
    """True motion of the base, sampled at even times.

    Attributes:
        seconds: ``[N]`` time since the start (s).
        position: ``[N, 2]`` x, y in the world (m).
        yaw: ``[N]`` heading, unwrapped (rad).
        lap: ``[N]`` index of the lap.
        distance: ``[N]`` distance along the centreline since the lap's start (m).
    """

    seconds: NDArray[np.float64]
    position: NDArray[np.float64]
    yaw: NDArray[np.float64]
    lap: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __getitem__(self, which: slice) -> Trajectory:
        return Trajectory(
            self.seconds[which],
            self.position[which],
            self.yaw[which],
            self.lap[which],
            self.distance[which],
        )

    def pose(self, index: int) -> Pose:
        """The pose at one sample."""
        x, y = self.position[index]
        return Pose.planar(float(x), float(y), float(self.yaw[index]))

    def twist(self) -> NDArray[np.float64]:
        """``[N, 3]``: velocity forward and leftward (m/s) and about z (rad/s), in the base."""
        velocity = np.gradient(self.position, self.seconds, axis=0)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.stack(
            [
                cos * velocity[:, 0] + sin * velocity[:, 1],
                cos * velocity[:, 1] - sin * velocity[:, 0],
                np.gradient(self.yaw, self.seconds),
            ],
            axis=1,
        )


@dataclass(frozen=True)
class LapSummary:
    """One lap as driven: stamps (ns) of its first and last sample, length of the loop (m)."""

    daylight: str
    start_ns: int
    end_ns: int
    length: float


@dataclass(frozen=True)
class Drive:
    """A finished drive: its laps, and the number of messages by topic."""

    laps: tuple[LapSummary, ...]
    messages: dict[str, int] = field(default_factory=dict)


def plan(route: Route, period: float, laps: int = 0) -> Trajectory:
    """Drive the route's laps, one after the other without a stop.

    Args:
        route: loop and laps.
        period: time between samples (s).
        laps: drive only this many; 0 for all.

    Returns:
        The true trajectory. Its speed ripples round each lap's mean; the lateral offset of a lap
        sets in over its first metres; the robot faces the way it moves.
    """
    line = route.centreline()
    length = float(line[-1, 0])
    turn = float(line[-1, 3] - line[0, 3])
    times, rows = [], []
    now, before, heading = 0.0, 0.0, 0.0
    count = 0
    for number, lap in enumerate(route.laps[: laps or None]):
        # Time at which each sample of the centreline is passed.
        speed = lap.speed * (1 + SPEED_RIPPLE * np.sin(RIPPLES * 2 * np.pi * line[:, 0] / length))
        passed = now + np.concatenate(
            [[0.0], np.cumsum(np.diff(line[:, 0]) * 2 / (speed[:-1] + speed[1:]))]
        )
        while count * period <= passed[-1]:
            at = count * period
            distance = float(np.interp(at, passed, line[:, 0]))
            x, y, along = (float(np.interp(at, passed, line[:, k])) for k in (1, 2, 3))
            share = min(distance / BLEND, 1.0)
            change = lap.lateral_offset - before
            offset = before + change * share * share * (3 - 2 * share)
            slope = change * 6 * share * (1 - share) / BLEND
            times.append(at)
            rows.append(
                (
                    x - offset * math.sin(along),
                    y + offset * math.cos(along),
                    heading + along + math.atan(slope),
                    number,
                    distance,
                )
            )
            count += 1
        now, before, heading = float(passed[-1]), lap.lateral_offset, heading + turn
    table = np.array(rows)
    return Trajectory(
        np.array(times), table[:, :2], table[:, 2], table[:, 3].astype(np.int64), table[:, 4]
    )


def dead_reckoning(
    truth: Trajectory, config: OdometryConfig, rng: np.random.Generator
) -> Trajectory:
    """What wheel odometry believes: starts at its own origin, errors grow with the distance."""
    steps = np.diff(truth.position, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    noise = rng.standard_normal(len(steps)) * config.heading_noise * np.sqrt(lengths)
    drift = np.concatenate([[0.0], np.cumsum(noise)]) - truth.yaw[0]
    cos, sin = np.cos(drift[:-1]), np.sin(drift[:-1])
    believed = (1 + config.scale_error) * np.stack(
        [cos * steps[:, 0] - sin * steps[:, 1], sin * steps[:, 0] + cos * steps[:, 1]], axis=1
    )
    position = np.concatenate([np.zeros((1, 2)), np.cumsum(believed, axis=0)])
    return Trajectory(truth.seconds, position, truth.yaw + drift, truth.lap, truth.distance)


def drive(
    world: World,
    route: Route,
    output: Path,
    config: DriveConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Drive:
    """Drive and write the bag ``output``; see :func:`drive_into`.

    Raises:
        InputError: as :func:`drive_into`; see also the module ``bags.writer``.
    """
    config = config or DriveConfig()
    with BagWriter(output, config.storage) as bag:
        return drive_into(bag, world, route, config, progress)


def drive_into(
    bag: MessageWriter,
    world: World,
    route: Route,
    config: DriveConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Drive:
    """Drive and write every message as it comes.

    Args:
        bag: where the messages go.
        world: parsed SDF with a robot model.
        route: loop and laps.
        config: everything else.
        progress: called with (samples done, samples in all).

    Returns:
        The drive; with the same arguments on the same machine every message is the same, and none
        depends on which other sensors there are.

    Raises:
        InputError: see the modules ``scene`` and ``route``; ``unknown_sensor``;
            ``invalid_setting`` if a rate does not divide the highest one, or if the drive is too
            short.
    """
    start = round(config.start_time * NANOSECONDS)
    with ExitStack() as stack:
        scene = _scene(world, route, 0, config)
        sensors = _sensors(scene, config)
        for fitted in sensors:
            stack.callback(fitted.sensor.close)
        rate = max(config.odometry.rate, *(each.sensor.rate for each in sensors))
        every = [_every(each.sensor.rate, rate) for each in sensors]
        odometry_every = _every(config.odometry.rate, rate)
        truth = plan(route, 1 / rate, config.laps)
        if config.maximum_seconds:
            truth = truth[: int(np.searchsorted(truth.seconds, config.maximum_seconds, "right"))]
        stamps = [start + round(t * NANOSECONDS) for t in truth.seconds.tolist()]
        if len(stamps) <= odometry_every:
            raise InputError(
                "invalid_setting",
                f"maximum_seconds is {config.maximum_seconds:g}; allowed is the time between two "
                f"messages of odometry, {1 / config.odometry.rate:g} s, or more",
            )
        motions = _Motions(truth[::odometry_every], config.odometry, _stream(config.seed, 0))
        mounts = {each.sensor.frame_id: each.sensor.mount for each in sensors}
        bag.static_transforms(
            start,
            "base_link",
            {frame_id: (each.translation, each.rotation) for frame_id, each in mounts.items()},
        )
        lap = 0
        for i, stamp in enumerate(stamps):
            if truth.lap[i] != lap:
                lap = int(truth.lap[i])
                scene = _scene(world, route, lap, config)
            if i % odometry_every == 0:
                motions.write(bag, stamp, i // odometry_every)
            due = [each for each, k in zip(sensors, every, strict=True) if i % k == 0]
            if due:
                scene.place_robot(truth.pose(i), float(truth.seconds[i]))
            for each in due:
                each.sensor.write(bag, stamp, each.sensor.observe(scene, each.rng))
            if progress:
                progress(i + 1, len(stamps))
    length = float(route.centreline()[-1, 0])
    laps = []
    for lap in range(int(truth.lap.max()) + 1):
        inside = np.flatnonzero(truth.lap == lap)
        laps.append(
            LapSummary(route.laps[lap].daylight, stamps[inside[0]], stamps[inside[-1]], length)
        )
    return Drive(tuple(laps), dict(bag.counts))


@dataclass(frozen=True)
class _Fitted:
    sensor: Sensor
    rng: np.random.Generator


def _sensors(scene: Scene, config: DriveConfig) -> list[_Fitted]:
    """The sensors asked for, each with a stream of randomness of its own."""
    names = [name.strip() for name in config.sensors.split(",")]
    if unknown := [name for name in names if name not in SENSORS]:
        raise InputError(
            "unknown_sensor",
            f"sensors are {config.sensors!r}; {unknown[0]!r} is none of {', '.join(SENSORS)}",
        )
    fitted = []
    if "camera" in names:
        camera = Camera(scene, **vars(config.camera))
        fitted.append(_Fitted(camera, _stream(config.seed, 1)))
        fitted.append(_Fitted(ObjectTruth(camera), _stream(config.seed, 2)))
    if "lidar" in names:
        fitted.append(_Fitted(Lidar(scene, config.lidar), _stream(config.seed, 3)))
    if "events" in names:
        rng = _stream(config.seed, 4)
        fitted.append(_Fitted(EventSensor(scene, config.events, rng), rng))
    return fitted


def _stream(seed: int, number: int) -> np.random.Generator:
    """One of the seed's independent streams of randomness."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


def _scene(world: World, route: Route, lap: int, config: DriveConfig) -> Scene:
    cameras = config.camera, config.events
    picture = max(each.width for each in cameras), max(each.height for each in cameras)
    return Scene(world, daylight(route.laps[lap].daylight), size=picture)


def _every(rate: float, base_rate: float) -> int:
    every = round(base_rate / rate)
    if every < 1 or not math.isclose(every * rate, base_rate, rel_tol=1e-9):
        raise InputError(
            "invalid_setting",
            f"a rate is {rate:g} Hz; allowed is the highest one of the sensors and the odometry "
            f"({base_rate:g} Hz) divided by a whole number",
        )
    return every


class _Motions:
    """Writes odometry, its transform and the ground truth of one moment after the other."""

    def __init__(self, truth: Trajectory, config: OdometryConfig, rng: np.random.Generator) -> None:
        odometry = dead_reckoning(truth, config, rng)
        self.truth, self.odometry = truth, odometry
        self.twists = truth.twist(), odometry.twist()
        steps = np.linalg.norm(np.diff(odometry.position, axis=0), axis=1)
        travelled = np.concatenate([[0.0], np.cumsum(steps)])
        self.heading_variance = config.heading_noise**2 * travelled
        # A random walk of the heading moves the end of the path by a third of its variance there.
        self.position_variance = (config.scale_error * travelled) ** 2 + (
            self.heading_variance * travelled**2 / 3
        )

    def write(self, bag: MessageWriter, stamp: int, index: int) -> None:
        believed = self.odometry.pose(index)
        bag.transform(stamp, "odom", "base_link", believed.translation, believed.rotation)
        at, about = float(self.position_variance[index]), float(self.heading_variance[index])
        for topic, frame, pose, twist, variance in (
            ("/odom", "odom", believed, self.twists[1], (at, at, 0.0, 0.0, 0.0, about)),
            ("/ground_truth/odom", "map", self.truth.pose(index), self.twists[0], (0.0,) * 6),
        ):
            forward, leftward, turning = (float(v) for v in twist[index])
            bag.odometry(
                topic,
                stamp,
                frame,
                "base_link",
                pose.translation,
                pose.rotation,
                (forward, leftward, 0.0),
                (0.0, 0.0, turning),
                variance,
            )
