"""``python -m datasets.embedded.write DIR``: the embedded scene and painting, no download."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets.embedded.painting import write_demo_painting
from datasets.embedded.scene import write_demo_scene
from utils.errors import exits_cleanly


def write_demo(directory: Path) -> tuple[Path, Path]:
    """Write the demo's inputs where they are not there already.

    Args:
        directory: where ``scene/`` (a Blender data set) and ``painting.png`` go.

    Returns:
        The paths of the two.

    Raises:
        UserError: the directory cannot be written, or its ``scene/`` is something else.
    """
    scene, painting = directory / "scene", directory / "painting.png"
    write_demo_scene(scene)
    if not painting.is_file():
        write_demo_painting(painting)
    return scene, painting


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.embedded.write",
        description="Write a small scene and a painting to try.",
    )
    parser.add_argument("directory", type=Path, help="where scene/ and painting.png go")
    for path in write_demo(parser.parse_args().directory):
        print(path)


if __name__ == "__main__":
    main()
