"""Optical flow between two pictures: which estimator is at hand, and what it finds of one frame in
another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.cameras.rays import Cameras
from models.warp import WHOLE, Frame, eroded
from utils.images import LUMA, pixel_centres, sample_bilinear, to_uint8

RETURN = 1.0  # pixels by which forward and backward flow together may miss the start
RAFT_UPDATES = 24
RAFT_SMALLEST = 128  # pixels a side; RAFT's pyramid needs them

# pictures (H, W, 3) in [0, 1] -> (H, W, 2): how far to go, columns and rows, from a pixel of the
# first to what it shows in the second
Flow = Callable[[Tensor, Tensor], Tensor]


def best_flow(device: torch.device) -> tuple[str, Flow]:
    """The best estimator at hand, by name: torchvision's RAFT (Teed & Deng 2020) where its weights
    are in the cache, else OpenCV's DIS (Kroeger et al. 2016) where OpenCV is installed, else
    scikit-image's TV-L1 (Zach et al. 2007).  Nothing is downloaded."""
    if (weights := raft_cache()).is_file():
        return "RAFT", raft(weights, device)
    try:
        import cv2
    except ImportError:
        return "TV-L1", tv_l1
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return "DIS", lambda a, b: torch.from_numpy(
        dis.calc(*(to_uint8(grey(x)).cpu().numpy() for x in (a, b)), None)
    ).to(a)


def raft_cache() -> Path:
    """Where torchvision keeps the weights of `raft_large`."""
    from torchvision.models.optical_flow import Raft_Large_Weights

    name = Path(Raft_Large_Weights.C_T_SKHT_V2.url).name
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def raft(weights: Path, device: torch.device) -> Flow:
    """RAFT with the weights of a file."""
    from torchvision.models.optical_flow import raft_large

    network = raft_large()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network = network.eval().to(device)

    @torch.no_grad()
    def flow(a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[:2]
        down, right = (
            max(n, RAFT_SMALLEST) + 7 - (max(n, RAFT_SMALLEST) + 7) % 8 - n for n in (height, width)
        )
        images = (2 * x.to(device).permute(2, 0, 1)[None] - 1 for x in (a, b))
        padded = (functional.pad(x, (0, right, 0, down), mode="replicate") for x in images)
        found = network(*padded, num_flow_updates=RAFT_UPDATES)[-1][0]
        return found[:, :height, :width].permute(1, 2, 0).to(a)

    return flow


def tv_l1(a: Tensor, b: Tensor) -> Tensor:
    """TV-L1 flow, which takes a second for 400 x 400 pixels."""
    from skimage.registration import optical_flow_tvl1

    rows, columns = optical_flow_tvl1(*(grey(x).cpu().numpy() for x in (a, b)))
    return torch.from_numpy(np.stack([columns, rows], -1)).to(a)


def grey(picture: Tensor) -> Tensor:
    """Luma (H, W) of a picture (H, W, 3)."""
    return picture @ picture.new_tensor(LUMA)


def flow_correspondence(flow: Flow, of: str) -> Callable[[Cameras, Frame, Frame], tuple]:
    """As `models.warp.correspondence`, by the flow between the pictures ``of`` two frames: a pixel
    counts where both frames are opaque, the flow ends within the image, and the flow back leads to
    where it started, to `RETURN`; and where this holds for the 3 x 3 pixels around it."""

    def find(cameras: Cameras, target: Frame, source: Frame) -> tuple[Tensor, Tensor]:
        height, width = target.surface.opaque.shape
        own, other = target.pictures[of], source.pictures[of]
        there = flow(own, other)
        pixel = pixel_centres(height, width, own.device) + there
        corner = pixel.new_tensor([other.shape[1] - 0.5, other.shape[0] - 0.5])
        inside = (pixel >= 0.5).all(-1) & (pixel <= corner).all(-1)
        back = sample_bilinear(flow(other, own), pixel)
        opaque = sample_bilinear(source.surface.opaque.to(own)[..., None], pixel)[..., 0]
        same = (there + back).norm(dim=-1) < RETURN
        return pixel, eroded(target.surface.opaque & inside & same & (opaque > WHOLE))

    return find
