"""What may be chosen about a benchmark, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "bench"  # ignored by git: scenes, fields, random VGG weights
RESULTS = Path(__file__).parent / "results"  # ignored by git
# each with the options that make it; the last is the paper's network in even, occupied steps
FIELDS = {
    "voxels": ("--field", "voxels"),
    "nerf": ("--field", "nerf"),
    "nerf_occupancy": ("--field", "nerf", "--sampling", "occupancy"),
}
MODES = ("memory_saving", "patch", "small")
SIZES = (100, 200, 400, 800)


@dataclass(frozen=True)
class Settings:
    """Options of ``python -m benchmarks``.

    Attributes:
        device: "cpu" or "cuda".
        quick: smallest sizes, one round: shows that everything runs, measures nothing.
        full: every size for every mode and field, also where that takes long.
        fields, modes: which.
        sizes: pixels along a side; None for the case's own.
        rounds: timed turns of each side; two once ``budget`` seconds have passed.
        plain: whether the plain twin runs, too.
        plain_rays: rays of a view that the plain twin renders before its time is scaled; 0: by
            the device.
        lego: directory of the lego scene, or None.
        vgg_weights: file of VGG-19; None for random weights of its shape, which take as long.
    """

    device: str = "cpu"
    quick: bool = False
    full: bool = False
    fields: tuple[str, ...] = tuple(FIELDS)
    modes: tuple[str, ...] = MODES
    sizes: tuple[int, ...] | None = None
    rounds: int = 5
    budget: float = 10.0
    plain: bool = True
    plain_rays: int = 0
    lego: Path | None = None
    vgg_weights: Path | None = None

    @property
    def turns(self) -> int:
        """Timed rounds."""
        return 1 if self.quick else self.rounds

    @property
    def share(self) -> int:
        """Rays for the plain twin: on a CPU about a second's, on a GPU eight of its patches."""
        if self.quick:
            return 16
        return self.plain_rays or (512 if self.device == "cpu" else 20_000)

    @property
    def data(self) -> Path:
        """Where inputs are kept; quick ones apart."""
        return DATA / "quick" if self.quick else DATA
