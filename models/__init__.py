"""Scene-free mathematics: encodings, fields, styles, samplers, compositing.

The tables of what there is: a new field, style or sampler is a new file and a line here.  They name
classes instead of importing them, so that the options can list the choices without PyTorch.
"""

from __future__ import annotations

from utils.registry import Registry

FIELDS = Registry(
    "field",
    {
        "nerf": "models.nerf:NerfField",
        "voxels": "models.voxels:VoxelField",
    },
)
STYLES = Registry(
    "style",
    {
        "nerf": "models.nerf:NerfStyle",
        "voxels": "models.voxels:VoxelStyle",
        "encoded_nerf": "models.encoded:EncodedNerfStyle",
        "encoded_voxels": "models.encoded:EncodedVoxelStyle",
        "latent_nerf": "models.latent_nerf:LatentNerfStyle",
        "latent_voxels": "models.latent_voxels:LatentVoxelStyle",
    },
)
SAMPLERS = Registry(
    "sampler",
    {
        "hierarchical": "models.hierarchical:HierarchicalSampler",
        "occupancy": "models.occupancy:OccupancySampler",
    },
)
