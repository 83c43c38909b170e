"""Image metrics: PSNR, SSIM, and LPIPS if its network is available."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import kornia.metrics
import torch
from torch import Tensor

SSIM_WINDOW = 11
ALEXNET_SMALLEST = 31  # pixels; smaller images vanish in AlexNet's second pooling
FETCH = "python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\""


def psnr(a: Tensor, b: Tensor, valid: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio, -10 log10(mean squared error), in dB.

    Args:
        a, b: (H, W, 3) images in [0, 1].
        valid: (H, W) bool, pixels to compare; None: all.

    Returns:
        dB; infinite for equal images.

    >>> round(psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.1)), 4)
    20.0
    """
    _require_alike(a, b)
    if valid is not None:
        a, b = a[valid], b[valid]
    error = (a.double() - b.double()).square().mean().item()
    return -10 * math.log10(error) if error != 0 else math.inf


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over the channels and over the pixels whose
    whole Gaussian window (11 x 11, sigma 1.5) lies inside the image.

    Args:
        a, b: (H, W, 3) images in [0, 1]; for one smaller than the window, the largest odd window
            that fits is used.

    Returns:
        At most 1; 1 for equal images.
    """
    _require_alike(a, b)
    return ssim_map(a, b).mean().item()


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (h, w, C) of images (H, W, C) around each pixel whose whole window lies
    inside the image, see `ssim`."""
    shorter = min(a.shape[:2])
    window = min(SSIM_WINDOW, shorter - (shorter + 1) % 2)
    # float64: the variances are differences of nearly equal numbers
    a, b = (image.permute(2, 0, 1)[None].to(torch.float64) for image in (a, b))
    return kornia.metrics.ssim(a, b, window, eps=0.0, padding="valid")[0].permute(1, 2, 0)


def means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each entry of the first of ``values``, which all of them have."""
    return {name: fmean(value[name] for value in values) for name in values[0]}


class ImageMetrics:
    """Compares renders with photos: PSNR, SSIM, and LPIPS if its network is available.

    Args:
        device: device on which LPIPS is computed.
        smallest: shortest side of all images, pixels.

    Attributes:
        measures: metric -> function of two (H, W, 3) images in [0, 1].
        left_out: unavailable metric -> the reason, and how to make it available.
    """

    def __init__(self, device: torch.device | str, smallest: int) -> None:
        self.measures: dict[str, Callable[[Tensor, Tensor], float]] = {"psnr": psnr, "ssim": ssim}
        self.left_out: dict[str, str] = {}
        try:
            self.measures["lpips"] = Lpips(device, smallest)
        except MissingLpips as missing:
            self.left_out["lpips"] = str(missing)

    def __call__(
        self, picture: Tensor, photo: Tensor, valid: Tensor | None = None
    ) -> dict[str, float]:
        """All available metrics of two images.

        Args:
            picture, photo: (H, W, 3) in [0, 1].
            valid: (H, W) bool, pixels whose photo is known; None: all.  PSNR ignores the others;
                the other metrics, which compare neighbourhoods, see the picture itself there.

        Returns:
            metric -> value.
        """
        if valid is None:
            return {name: measure(picture, photo) for name, measure in self.measures.items()}
        filled = torch.where(valid[..., None], photo, picture)
        found = {name: measure(picture, filled) for name, measure in self.measures.items()}
        return {**found, "psnr": psnr(picture, photo, valid)}


class Lpips:
    """Distance of two images in AlexNet's features (LPIPS, Zhang et al. 2018), computed by
    torchmetrics with the weights in torchvision's cache.

    Args:
        device: device on which it is computed.
        smallest: shortest side of all images, pixels.

    Raises:
        MissingLpips: the weights are not in the cache (they are never downloaded here), or the
            images are too small.
    """

    def __init__(self, device: torch.device | str, smallest: int) -> None:
        weights = alexnet_cache()
        if not weights.is_file():
            raise MissingLpips(f"{weights} is missing; fetch it once with: {FETCH}")
        if smallest < ALEXNET_SMALLEST:
            raise MissingLpips(f"its network needs images of {ALEXNET_SMALLEST} pixels a side")
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError):
            raise MissingLpips(
                f"{weights} is damaged; delete it and fetch it again with: {FETCH}"
            ) from None
        self.device, self.metric = device, metric.to(device)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> float:
        """Distance of two (H, W, 3) images in [0, 1]; 0 for equal ones."""
        _require_alike(a, b)
        images = [image.to(self.device).float().permute(2, 0, 1)[None] for image in (a, b)]
        distance = self.metric(*images).item()
        self.metric.reset()  # it would keep every distance
        return distance


class MissingLpips(Exception):
    """LPIPS is unavailable; the message says why, and how to make it available."""


def alexnet_cache() -> Path:
    """Where torchvision keeps the weights of AlexNet.

    Raises:
        MissingLpips: torchvision is not installed or broken.
    """
    try:
        from torchvision.models import AlexNet_Weights
    except (ImportError, RuntimeError, OSError) as error:  # the last two: built for another PyTorch
        raise MissingLpips(
            f"torchvision cannot be imported ({error}); pip install torchvision, then once: {FETCH}"
        ) from None
    name = Path(AlexNet_Weights.DEFAULT.url).name
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _require_alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise ValueError(f"expected two (H, W, 3) images, got {tuple(a.shape)}, {tuple(b.shape)}")
