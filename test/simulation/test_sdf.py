# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import pytest

from spike_perception.errors import InputError
from spike_perception.simulation.sdf import load_world, parse_world


def parse(body: str, folder: Path = Path("/nowhere"), version: str = "1.9"):
    text = f'<sdf version="{version}"><world name="w">{body}</world></sdf>'
    return parse_world(text.encode(), folder / "w.sdf")


def visual(geometry: str, more: str = "") -> str:
    return (
        '<model name="m"><link name="l"><visual name="v">'
        f"<geometry>{geometry}</geometry>{more}</visual></link></model>"
    )


def test_poses_sizes_and_nesting_are_read():
    world = parse(
        '<model name="traffic_cone_12"><static>true</static>'
        '<pose degrees="true">1 2 3 0 0 90</pose>'
        '<link name="l"><pose>0 0 1 0 0 0</pose><inertial/><collision name="c"/></link>'
        '<model name="inner"><pose>4 0 0 0 0 0</pose><link name="k"/></model></model>'
    )
    (model,) = world.models
    assert model.label == "traffic cone"
    assert model.static
    assert model.pose.translation == (1, 2, 3)
    assert model.pose.yaw == pytest.approx(math.pi / 2)
    assert model.links[0].pose.translation == (0, 0, 1)
    assert model.models[0].pose.translation == (4, 0, 0)
    assert not model.models[0].static


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        ("<box><size>1 2 3</size></box>", (1, 2, 3)),
        ("<cylinder><radius>1</radius><length>2</length></cylinder>", (1, 2)),
        ("<sphere><radius>4</radius></sphere>", (4,)),
        ("<plane><normal>0 0 1</normal><size>5 6</size></plane>", (5, 6)),
    ],
)
def test_shapes_keep_sdf_sizes(geometry, size):
    shape = parse(visual(geometry)).models[0].links[0].visuals[0].shape
    assert geometry.startswith(f"<{shape.kind}>")
    assert shape.size == size


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("<include><uri>model://x</uri></include>", "<include>"),
        (visual("<mesh><uri>a.obj</uri></mesh>"), "<mesh>"),
        (visual("<plane><normal>1 0 0</normal><size>1 1</size></plane>"), "normal"),
        ('<model name="m"><frame name="f"/></model>', "<frame>"),
        ('<model name="m"><pose relative_to="f">0 0 0 0 0 0</pose></model>', "relative_to"),
        ('<model name="m" placement_frame="f"/>', "placement_frame"),
        ('<model name="m"><link name="l"><sensor name="s" type="sonar"/></link></model>', "sonar"),
        ('<light name="l" type="laser"/>', "laser"),
        (visual("<sphere><radius>1</radius></sphere>", "<material><script/></material>"), "script"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(body, named):
    with pytest.raises(InputError, match=named) as error:
        parse(body)
    assert error.value.reason == "unsupported_sdf"
    assert "/nowhere/w.sdf: sdf > world 'w'" in str(error.value)


@pytest.mark.parametrize(
    "body",
    [
        visual("<sphere><radius>nan</radius></sphere>"),
        visual("<sphere><radius>-1</radius></sphere>"),
        visual("<box><size>1 2</size></box>"),
        visual("<box/>"),
        visual(""),
        visual(
            "<sphere><radius>1</radius></sphere></geometry></visual><visual name='v'><geometry>"
        ),
        "<model/>",
        '<model name="a::b"/>',
        '<model name="a"/><model name="a"/>',
        '<model name="a"><static>perhaps</static></model>',
        '<model name="a"><pose>1 2 3</pose></model>',
        '</world></sdf><sdf><world name="w">',
        '</world><world name="second">',
    ],
)
def test_invalid_sdf_is_refused(body):
    with pytest.raises(InputError) as error:
        parse(body)
    assert error.value.reason == "invalid_sdf"


def test_entities_are_never_expanded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    text = f'<!DOCTYPE sdf [<!ENTITY e SYSTEM "{secret}">]><sdf version="1.9">&e;</sdf>'
    with pytest.raises(InputError, match="document type"):
        parse_world(text.encode(), tmp_path / "w.sdf")


@pytest.mark.parametrize("texture", ["../outside.png", "/etc/passwd", "missing.png", "notes.txt"])
def test_textures_lie_below_the_world(tmp_path, texture):
    folder = tmp_path / "world"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    material = f"<material><pbr><metal><albedo_map>{texture}</albedo_map></metal></pbr></material>"
    with pytest.raises(InputError, match="texture"):
        parse(visual("<sphere><radius>1</radius></sphere>", material), folder)


def test_other_versions_and_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"1\.10"):
        parse("", version="1.4")
    with pytest.raises(InputError) as error:
        load_world(tmp_path / "none.sdf")
    assert error.value.reason == "world_missing"


def robot(sensor: str) -> str:
    return f'<model name="r"><link name="l">{sensor}</link></model>'


def lidar(fans: str, more: str = "") -> str:
    scan = f"<scan>{fans}</scan><range><min>0.5</min><max>20</max><resolution>0.01</resolution>"
    return robot(
        '<sensor name="s" type="gpu_lidar"><pose>0 0 1 0 0 0</pose><update_rate>10</update_rate>'
        f"<topic>/s</topic><lidar>{scan}</range>{more}</lidar></sensor>"
    )


def test_lidars_are_read():
    fans = (
        "<horizontal><samples>100</samples><resolution>1</resolution><min_angle>-1</min_angle>"
        "<max_angle>2</max_angle></horizontal><vertical><samples>4</samples>"
        "<min_angle>-0.1</min_angle><max_angle>0.2</max_angle></vertical>"
    )
    noise = "<noise><type>gaussian</type><mean>0</mean><stddev>0.03</stddev></noise>"
    (found,) = parse(lidar(fans, noise)).models[0].links[0].lidars
    assert (found.steps, found.azimuth, found.rings, found.elevation) == (
        100,
        (-1, 2),
        4,
        (-0.1, 0.2),
    )
    assert (found.near, found.far, found.noise, found.pose.translation[2]) == (0.5, 20, 0.03, 1)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (robot('<sensor name="s" type="imu"/>'), "'imu'"),
        (lidar("<horizontal><samples>0</samples></horizontal>"), "samples"),
        (lidar("<horizontal><samples>9000000</samples></horizontal>"), "9e"),
        (lidar("<horizontal><min_angle>1</min_angle></horizontal>"), "angles"),
        (lidar("<vertical><max_angle>4</max_angle></vertical>"), "angles"),
        (lidar("<diagonal/>"), "<diagonal>"),
        (lidar("", "<noise><type>custom</type></noise>"), "gaussian"),
        (lidar("", "<noise><stddev>-1</stddev></noise>"), "noise"),
    ],
)
def test_lidars_that_cannot_be_are_refused(body, named):
    with pytest.raises(InputError, match=named):
        parse(body)


MOTION = (
    '<model name="car_1">{}<pose>1 0 0 0 0 0</pose>'
    '<plugin name="other" filename="x"><initial_linear>9 9 9</initial_linear></plugin>'
    '<plugin name="gz::sim::systems::VelocityControl" filename="gz-sim-velocity-control-system">'
    "<initial_linear>{} 0 {}</initial_linear><initial_angular>0 0 0.5</initial_angular></plugin>"
    "</model>"
)


def test_a_model_moves_as_its_velocity_control_says():
    (car,) = parse(MOTION.format("", 1, 0)).models
    assert car.velocity == (1, 0, 0.5)
    # After half a turn it stands across a circle of 2 m radius, and faces back.
    half = car.pose_at(2 * math.pi)
    assert half.translation == pytest.approx((1, 4, 0))
    assert abs(half.yaw) == pytest.approx(math.pi)
    (still,) = parse(MOTION.format("<static>true</static>", 1, 0)).models
    assert still.pose_at(3.0) == still.pose
    with pytest.raises(InputError, match="on the ground"):
        parse(MOTION.format("", 1, 1))
