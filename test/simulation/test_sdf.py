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
