import json
import math

import pytest
import torch

from assets.cameras import turned
from datasets.cameras.camera_path import cameras_along, read_camera_path
from datasets.cameras.rays import Cameras
from datasets.cameras.space import NDC
from datasets.formats.blender import load_blender as load
from datasets.load import LoadOptions
from opt import parse_eval
from utils.errors import UserError


def load_blender(root):
    """The scene with the default options."""
    return load(root, LoadOptions())


NO_TURN = torch.eye(3).numpy()


@pytest.fixture
def scene(tiny_scene_dir):
    return load_blender(tiny_scene_dir)


def content(views, **more):
    """What nerfstudio's viewer saves for a path through the views' cameras."""
    return {
        "default_fov": 50.0,
        "keyframes": [],
        "camera_type": "perspective",
        "render_height": float(views[0].height),
        "render_width": float(views[0].width),
        "fps": 24.0,
        "seconds": len(views) / 24,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "camera_path": [
            {
                "camera_to_world": turned(view.c2w, NO_TURN).flatten().tolist(),
                "fov": math.degrees(2 * math.atan(view.height / 2 / view.fy)),
                "aspect": view.width / view.height,
            }
            for view in views
        ],
        "crop": None,
        **more,
    }


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def every_ray(cameras):
    rays = [cameras.view_rays(i) for i in range(len(cameras))]
    return torch.cat([torch.cat([r.origins, r.directions, r.near[:, None]], 1) for r in rays])


@pytest.mark.parametrize("ndc", [False, True])
def test_known_cameras_give_the_same_rays(scene, tmp_path, ndc):
    if ndc:
        scene.space = NDC.of(scene.train[0])
    file = write(tmp_path / "path.json", content(scene.train))
    cameras, fps = read_camera_path(file, scene)
    assert fps == 24.0
    expected = Cameras.of(scene.train, scene.near, scene.far, scene.space)
    assert cameras.sizes.tolist() == expected.sizes.tolist()
    torch.testing.assert_close(every_ray(cameras), every_ray(expected), atol=1e-4, rtol=1e-4)


def test_warped_rays_stay_in_the_space_of_training_whatever_the_lens(scene, tmp_path):
    """The middle ray of a camera is the same through every lens."""
    scene.space = NDC.of(scene.train[0])
    data = content(scene.train[:1], render_height=60, render_width=90)
    wide = read_camera_path(write(tmp_path / "wide.json", data), scene)[0]
    data["camera_path"][0]["fov"] = 5.0
    narrow = read_camera_path(write(tmp_path / "narrow.json", data), scene)[0]
    middles = []
    for cameras in (wide, narrow):
        cameras.intrinsics[:, 2:] = torch.tensor([45.5, 30.5])
        zero = torch.zeros(1, dtype=torch.long)
        rays = cameras.rays(zero, zero + 30, zero + 45)
        middles.append(torch.cat([rays.origins, rays.directions], 1))
    torch.testing.assert_close(*middles)


def test_another_number_of_frames_goes_the_same_way(scene, tmp_path):
    file = write(tmp_path / "path.json", content(scene.train))
    cameras, fps = read_camera_path(file, scene, n_frames=15)
    assert fps == 24.0
    given = torch.stack([view.c2w for view in scene.train])
    torch.testing.assert_close(cameras.c2w[::2], given, atol=1e-5, rtol=0)
    cycle = write(tmp_path / "cycle.json", content(scene.train, is_cycle=True))
    cameras, _ = read_camera_path(cycle, scene, n_frames=16)
    torch.testing.assert_close(cameras.c2w[::2], given, atol=1e-5, rtol=0)
    one = write(tmp_path / "one.json", content(scene.train[:1]))
    assert len(read_camera_path(one, scene, n_frames=3)[0]) == 3


def test_another_size_keeps_the_field_of_view(scene, tmp_path):
    file = write(tmp_path / "path.json", content(scene.train))
    line = ["--ckpt_path", "x", "--path", str(file), "--img_wh", "30", "40"]
    cameras, _ = cameras_along(scene, parse_eval(line))
    assert cameras.sizes[0].tolist() == [40, 30]
    expected = [2 * scene.train[0].fy] * 2 + [15, 20]
    torch.testing.assert_close(cameras.intrinsics[0], torch.tensor(expected))


def test_a_crop_is_told_of(scene, tmp_path, caplog):
    file = write(tmp_path / "path.json", content(scene.train, crop={"crop_scale": [1, 1, 1]}))
    read_camera_path(file, scene)
    assert "crop is not applied" in caplog.text


def without(data, key):
    return {name: value for name, value in data.items() if name != key}


def first_camera(data, **changes):
    cameras = data["camera_path"]
    return {**data, "camera_path": [{**cameras[0], **changes}, *cameras[1:]]}


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda d: json.dumps(d)[:300], "not readable as JSON"),
        (lambda d: "[]", "is no camera path"),
        (lambda d: without(d, "camera_path"), "is no camera path"),
        (lambda d: {**d, "camera_path": []}, "no cameras in camera_path"),
        (lambda d: {**d, "camera_type": "equirectangular"}, "camera_type 'equirectangular'"),
        (lambda d: without(d, "render_width"), "render_width is None"),
        (lambda d: {**d, "render_height": 1e9}, "render_height is 1000000000.0"),
        (lambda d: {**d, "fps": "fast"}, "fps is 'fast'"),
        (lambda d: {**d, "camera_path": [3]}, "camera 0: has no camera_to_world"),
        (lambda d: first_camera(d, camera_to_world=[1.0] * 12), "camera 0: camera_to_world is"),
        (lambda d: first_camera(d, camera_to_world=[1.0] * 16), "is it transposed?"),
        (lambda d: first_camera(d, fov=180), "camera 0: fov is 180"),
    ],
)
def test_mistakes_have_one_line(scene, tmp_path, spoil, words):
    file = write(tmp_path / "path.json", spoil(content(scene.train)))
    with pytest.raises(UserError) as caught:
        read_camera_path(file, scene)
    assert "path.json" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
