"""`make demo-joint` on a smaller scale: without data, from nothing to the swap and its truth."""

from pathlib import Path

import yaml

import demo_joint
from datasets.embedded.garden import write_worlds
from utils.images import read_image

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo_joint.yaml"


def test_demo_runs_without_data_and_measures_the_swap(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load(CONFIG.read_text())
    recipe |= {"max_steps": 30, "batch_size": 256, "voxel_resolution": 24}
    Path("small.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(demo_joint, "CONFIG", "small.yaml")
    small = {"size": (24, 24), "n_train": 6, "n_val": 1, "n_test": 4}
    monkeypatch.setattr(demo_joint, "write_worlds", lambda folder: write_worlds(folder, **small))
    demo_joint.main()
    said = capsys.readouterr().out
    rows = dict(line.rsplit("  ", 1) for line in said.splitlines() if " dB" in line)
    numbers = {name.strip(): float(value.split()[0]) for name, value in rows.items()}
    assert numbers["PSNR of toys in plain"] > 14
    assert numbers["PSNR of garden in blue"] > 14
    assert numbers["PSNR of the swap, toys in blue"] > 12
    # of the photos as they are, their colours moved: no field is needed for it
    assert 15 < numbers["PSNR of a plain colour transfer"] < 30
    assert read_image(tmp_path / "results/demo_joint/sheet.png")[0].shape == (48, 240, 3)
    assert (tmp_path / "results/demo_joint/feature_map.png").is_file()
