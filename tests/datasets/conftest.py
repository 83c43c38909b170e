"""The cameras and images of a Blender data set, written in the other formats."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

TO_OPENCV = np.diag([1.0, -1.0, -1.0])


class Captures:
    """Writers that take the training views of a Blender data set with transforms of one fl_x."""

    @staticmethod
    def read(root):
        """fx, fy and for each training view its name, (3, 4) pose and RGB image over white."""
        data = json.loads((root / "transforms_train.json").read_text())
        views = []
        for frame in data["frames"]:
            path = root / f"{frame['file_path']}.png"
            image = Image.open(path).convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image).convert("RGB")
            views.append((path.stem, np.array(frame["transform_matrix"])[:3], image))
        return data["fl_x"], data.get("fl_y", data["fl_x"]), views

    @staticmethod
    def images(root, views, factors=(1,), extension=".png"):
        for factor in factors:
            folder = root / ("images" if factor == 1 else f"images_{factor}")
            folder.mkdir(parents=True)
            for name, _, image in views:
                size = (image.width // factor, image.height // factor)
                image.resize(size, Image.Resampling.BOX).save(folder / f"{name}{extension}")

    @classmethod
    def transforms(cls, source, root, per_frame=False, factors=(1,), **entries):
        fx, fy, views = cls.read(source)
        cls.images(root, views, factors)
        width, height = views[0][2].size
        lens = {"fl_x": fx, "fl_y": fy, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
        frames = [
            {
                "file_path": f"images/{name}.png",
                "transform_matrix": np.vstack([pose, [0, 0, 0, 1]]).tolist(),
                **(lens if per_frame else {}),
            }
            for name, pose, _ in views
        ]
        data = {**({} if per_frame else lens), **entries, "frames": frames}
        (root / "transforms.json").write_text(json.dumps(data))
        return root

    @classmethod
    def llff(cls, source, root, ranges=(2.0, 5.0), factors=(1,), extension=".png"):
        fx, _, views = cls.read(source)
        cls.images(root, views, factors, extension)
        width, height = views[0][2].size
        rows = []
        for _, pose, _ in views:
            right, up, back, eye = pose.T
            matrix = np.stack([-up, right, back, eye, [height, width, fx]], axis=1)
            rows.append(np.concatenate([matrix.ravel(), ranges]))
        np.save(root / "poses_bounds.npy", np.array(rows))
        return root

    @classmethod
    def colmap(
        cls,
        source,
        root,
        binary=True,
        model=("PINHOLE", ()),
        points=(),
        folder="sparse/0",
        count=None,
    ):
        fx, fy, views = cls.read(source)
        if not (root / "images").is_dir():
            cls.images(root, views)
        width, height = views[0][2].size
        name, further = model
        focals = [fx] if name.startswith(("SIMPLE", "RADIAL")) else [fx, fy]
        camera = (7, name, width, height, [*focals, width / 2, height / 2, *further])
        images = []
        for i, (stem, pose, _) in enumerate(views[:count]):
            turn = (pose[:, :3] @ TO_OPENCV).T
            x, y, z, w = Rotation.from_matrix(turn).as_quat()
            images.append((i + 3, (w, x, y, z), -turn @ pose[:, 3], f"{stem}.png"))
        folder = root / folder
        folder.mkdir(parents=True)
        (cls._binary if binary else cls._text)(folder, camera, images, points)
        return root

    @staticmethod
    def _binary(folder, camera, images, points):
        from datasets.formats.colmap_model import NAMES

        number, name, width, height, values = camera
        kind = NAMES.index(name)
        data = struct.pack("<QiiQQ", 1, number, kind, width, height)
        (folder / "cameras.bin").write_bytes(data + struct.pack(f"<{len(values)}d", *values))
        data = struct.pack("<Q", len(images))
        for index, turn, shift, name in images:
            data += struct.pack("<i7di", index, *turn, *shift, number) + name.encode() + b"\0"
            data += struct.pack("<Q2dq", 1, 1.5, 2.5, -1)
        (folder / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(points))
        for index, point in enumerate(points):
            data += struct.pack("<Q3d3BdQ", index, *point, 1, 2, 3, 0.5, 1) + struct.pack(
                "<ii", 3, 0
            )
        (folder / "points3D.bin").write_bytes(data)

    @staticmethod
    def _text(folder, camera, images, points):
        number, name, width, height, values = camera
        line = " ".join(map(str, (number, name, width, height, *values)))
        (folder / "cameras.txt").write_text(f"# Camera list\n{line}\n")
        lines = ["# Image list"]
        for index, turn, shift, name in images:
            lines += [" ".join(map(str, (index, *turn, *shift, number, name))), ""]
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
        lines = [" ".join(map(str, (i, *p, 1, 2, 3, 0.5, 3, 0))) for i, p in enumerate(points)]
        (folder / "points3D.txt").write_text("# 3D point list\n" + "\n".join(lines) + "\n")


@pytest.fixture
def captures():
    """Writers of the formats, see `Captures`."""
    return Captures


@pytest.fixture
def source(tmp_path, write_scene):
    """A Blender data set with 10 training views alone, 24 x 20 pixels, fl_x 26."""
    return write_scene(tmp_path / "source", counts={"train": 10}, lens={"fl_x": 26.0})
