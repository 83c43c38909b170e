"""Renderers of either field, for tests."""

import torch

from models.renderer import Renderer

WHITE = torch.ones(3)


def voxel_renderer(bounds, occupied, active=None, background=WHITE, n_features=12):
    spec = {
        "field": {"kind": "voxels"},
        "style": {"kind": "voxels", "n_features": n_features},
        "sampler": {"kind": "occupancy", "n_steps": 0},
    }
    return Renderer.build(spec, bounds, background, occupied, active)


def nerf_renderer(bounds, occupied, n_coarse=64, n_fine=64, sampling="hierarchical"):
    style = {"kind": "nerf", "n_frequencies": 4}
    samplers = {
        "hierarchical": {"n_coarse": n_coarse, "n_fine": n_fine, "style": style},
        "occupancy": {"n_steps": n_coarse + n_fine},
    }
    spec = {
        "field": {"kind": "nerf", "n_frequencies": 10},
        "style": style,
        "sampler": {"kind": sampling, **samplers[sampling]},
    }
    return Renderer.build(spec, bounds, WHITE, occupied)
