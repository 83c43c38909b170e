"""The consistency metric of Stylos' published script (dl3dv2tnt_eval.py), with its faults, so that
numbers like those in papers can be had; docs/measures.md says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from torch import Tensor

from measures.flow import Flow
from models.warp import Frame
from utils.images import pixel_centres, sample_bilinear
from utils.tables import markdown_table

GAPS = (1, 7)
ALPHA = 10.0  # of the splat's weights, which see colours from 0 to 255 and end at exp(-ALPHA)


def legacy_score(
    frames: Iterable[Frame], pairs: Mapping[int, list[tuple[int, int]]], flow: Flow
) -> dict[int, dict[str, float]]:
    """The mean `legacy_error` of all pictures of some frames.

    Args:
        frames: in order.
        pairs: (target, source) by gap.
        flow: estimator.

    Returns:
        By gap, by the pictures' name.
    """
    kept: dict[int, Frame] = {}
    errors: dict[int, dict[str, list[float]]] = {gap: {} for gap in pairs}
    for frame in frames:
        for gap, found in pairs.items():
            for source in (s for t, s in found if t == frame.view):
                for name, picture in frame.pictures.items():
                    error = legacy_error(kept[source].pictures[name], picture, flow)
                    errors[gap].setdefault(name, []).append(error)
        kept[frame.view] = frame
        kept.pop(frame.view - max(pairs) - 1, None)
    return {
        gap: {name: fmean(values) for name, values in found.items()}
        for gap, found in errors.items()
    }


def legacy_error(first: Tensor, second: Tensor, flow: Flow) -> float:
    """RMSE of the first picture, splatted along its flow to the second, against the second one; the
    flow is that of the stylised pictures themselves, and holes count as no error.

    Args:
        first, second: (H, W, 3) in [0, 1].
        flow: estimator.
    """
    there = flow(first, second)
    pixel = pixel_centres(*first.shape[:2], first.device) + there
    miss = 255 * (first - sample_bilinear(second, pixel)).abs().mean(-1)
    splatted, total = splat(first, pixel, (-ALPHA * miss).clamp(-ALPHA, ALPHA).exp())
    error = torch.where(total[..., None] > 0, splatted - second, 0)
    return float(error.double().square().mean().sqrt())


def splat(picture: Tensor, pixel: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax splatting (Niklaus & Liu 2020): every pixel is spread over the four around the place
    that it moves to, and what meets there is averaged by weight.

    Args:
        picture: (H, W, 3).
        pixel: (H, W, 2) column and row it moves to, pixel centres at halves.
        weight: (H, W), positive.

    Returns:
        (H, W, 3), 0 where nothing arrives; (H, W) the sum of the weights that arrive.
    """
    height, width, _ = picture.shape
    corner = (pixel - 0.5).floor()
    share = pixel - 0.5 - corner
    values = torch.cat([picture, torch.ones_like(picture[..., :1])], -1) * weight[..., None]
    sums = values.new_zeros(height * width, 4)
    for right in (0, 1):
        for down in (0, 1):
            x, y = (corner[..., 0] + right).long(), (corner[..., 1] + down).long()
            part = (share[..., 0] if right else 1 - share[..., 0]) * (
                share[..., 1] if down else 1 - share[..., 1]
            )
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (part > 0)
            sums.index_add_(0, (y * width + x)[inside], (values * part[..., None])[inside])
    colours, total = sums[:, :3], sums[:, 3:]
    average = torch.where(total > 0, colours / total.clamp(min=1e-30), 0)
    return average.view(height, width, 3), total.view(height, width)


def legacy_table(gaps: Mapping[int, Mapping[str, float]]) -> str:
    """What `legacy_score` says as a Markdown table."""
    rows = [[f"{gap}", name, error] for gap, found in gaps.items() for name, error in found.items()]
    return markdown_table(["gap", "pictures", "legacy rmse"], rows)
