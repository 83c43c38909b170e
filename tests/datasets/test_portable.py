import torch

from datasets.cameras.rays import Cameras
from datasets.load import load_scene
from datasets.portable import scene_from, scene_state
from opt import parse_eval
from utils.checkpoint import load_checkpoint, save_checkpoint


def test_a_scene_without_its_photos(tiny_scene_dir, tmp_path):
    scene = load_scene(parse_eval(["--ckpt_path", "x", "--root_dir", str(tiny_scene_dir)]))
    assert scene_from({"name": "weights alone"}) is None
    save_checkpoint(tmp_path / "scene.ckpt", {"kind": "scene", "scene": scene_state(scene)})
    again = scene_from(load_checkpoint(tmp_path / "scene.ckpt")["scene"])
    for split in ("train", "val", "test"):
        views = [getattr(s, split) for s in (scene, again)]
        a, b = (Cameras.of(v, 1.0, 4.0) for v in views)
        assert torch.equal(a.c2w, b.c2w)
        assert torch.equal(a.intrinsics, b.intrinsics)
        assert torch.equal(a.sizes, b.sizes)
        assert [v.name for v in views[0]] == [v.name for v in views[1]]
    assert torch.equal(again.bounds, scene.bounds)
