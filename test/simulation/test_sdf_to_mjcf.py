# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.simulation.daylight import DAYLIGHTS, daylight
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import parse_world
from spike_perception.simulation.sdf_to_mjcf import sdf_to_mjcf
from spike_perception.simulation.sensors import Camera
from spike_perception.simulation.textures import palette_png

WORLD = """<sdf version="1.9"><world name="w">
<light name="lamp" type="point"><pose>0 0 3 0 0 0</pose></light>
<light name="old_sun" type="directional"><direction>0 0 -1</direction></light>
<model name="tower_3"><static>true</static><pose>1 2 0 0 0 1.5707963267948966</pose>
  <link name="l"><pose>1 0 0 0 0 0</pose>
    <visual name="v"><pose>0 1 5 0 0 0</pose><geometry><box><size>2 4 6</size></box></geometry>
    <material><diffuse>1 0 0 1</diffuse></material></visual></link>
  <model name="flag"><pose>0 0 7 0 0 0</pose><link name="k">
    <visual name="c"><geometry>
      <cylinder><radius>0.5</radius><length>3</length></cylinder></geometry>
    </visual></link></model></model>
<model name="robot"><link name="base_link">
  <sensor name="camera" type="camera"><pose>0.2 0 0.5 0 0 0</pose>
    <camera><horizontal_fov>1.2</horizontal_fov></camera></sensor></link></model>
<model name="board_1"><static>true</static><pose>4 0 0.5 0 0 0</pose><link name="l">
  <visual name="v"><geometry><box><size>0.1 4 4</size></box></geometry>
  <material><diffuse>1 1 1 1</diffuse><emissive>1 1 1 1</emissive>
  <pbr><metal><albedo_map>board.png</albedo_map></metal></pbr></material></visual></link></model>
</world></sdf>"""


@pytest.fixture
def world(tmp_path):
    board = np.zeros((8, 8, 3), np.uint8)
    board[:4, :4] = 255, 0, 0  # upper left
    board[:4, 4:] = 0, 255, 0  # upper right
    board[4:, :4] = 0, 0, 255  # lower left
    (tmp_path / "board.png").write_bytes(palette_png(board))
    return parse_world(WORLD.encode(), tmp_path / "w.sdf")


def test_geoms_stand_where_sdf_puts_them(world):
    scene = Scene(world)
    v = scene.model.geom("tower_3::l::v")
    assert tuple(v.size) == (1, 2, 3)  # half edges
    # The link is 1 m along the model's x, the visual 1 m along its y; the model faces +y.
    assert scene.data.geom("tower_3::l::v").xpos == pytest.approx([1 - 1, 2 + 1, 5])
    c = scene.model.geom("tower_3::flag::k::c")
    assert tuple(c.size[:2]) == (0.5, 1.5)
    assert scene.data.geom("tower_3::flag::k::c").xpos == pytest.approx([1, 2, 7])
    assert scene.labels == {"tower_3": "tower", "robot": "robot", "board_1": "board"}


def test_a_textured_box_shows_its_image_upright(world):
    scene = Scene(world)
    camera = Camera(scene, width=64, height=64)
    picture = camera.observe(scene, np.random.default_rng(0)).astype(int)
    camera.close()
    assert picture[16, 16].argmax() == 0
    assert picture[16, 48].argmax() == 1
    assert picture[48, 16].argmax() == 2
    assert picture[48, 48].max() < 40


def test_daylight_takes_the_place_of_the_suns(world):
    own = Scene(world)
    assert [own.model.light(k).name for k in range(own.model.nlight)] == ["lamp", "old_sun"]
    noon = daylight("noon")
    lit = Scene(world, noon)
    assert [lit.model.light(k).name for k in range(lit.model.nlight)] == ["sun", "lamp"]
    assert lit.model.light("sun").dir == pytest.approx(noon.direction)
    assert lit.model.vis.headlight.ambient == pytest.approx(noon.ambient, abs=1e-6)


@pytest.mark.parametrize("name", DAYLIGHTS)
def test_the_sun_shines_downwards(name):
    direction = np.array(daylight(name).direction)
    assert direction[2] < 0
    assert np.linalg.norm(direction) == pytest.approx(1)


def test_the_field_of_view_is_horizontal(world):
    scene = Scene(world)
    camera = Camera(scene, width=200, height=50)
    assert camera.focal_px == pytest.approx(100 / math.tan(0.6))
    assert camera.fovy == pytest.approx(math.degrees(2 * math.atan(25 / camera.focal_px)))


def test_only_models_that_are_not_static_move(world):
    xml = sdf_to_mjcf(world).xml
    assert xml.count('mocap="true"') == 1
    assert xml.index('name="robot"') < xml.index('mocap="true"') < xml.index('name="board_1"')


def test_a_texture_that_is_no_picture_is_refused(world):
    (world.source.parent / "board.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="MuJoCo cannot build"):
        Scene(world)


def test_the_robot_must_move(world):
    with pytest.raises(InputError, match="static"):
        Scene(world, robot="tower_3")
    with pytest.raises(InputError, match="no model 'dog'"):
        Scene(world, robot="dog")
