"""Tasks and the systems made of them: the only place that ties fields, losses and data sets.

The table of what ``pipeline.py --stage`` can train.  A stage is a function ``options -> systems to
be trained one after the other, each with its run``; a new one is a new file and a line here.
"""

from __future__ import annotations

from utils.registry import Registry

STAGES = Registry(
    "stage",
    {
        "geometry": "systems.geometry:geometry_stage",
        "style": "systems.style:style_stage",
        "joint": "systems.joint:joint_stage",
        "decoder": "systems.decoder_stage:decoder_stage",
        "mutual": "systems.mutual:mutual_stage",
    },
)
# the parts of the work that a stage is made of: it reads the options of these, see opt.py
PARTS = {
    "geometry": ("field", "photos"),
    "joint": ("field", "photos", "pairs"),
    "style": ("trained", "stylising", "painting"),
    "decoder": ("trained", "stylising", "decoding"),
    "mutual": ("trained", "stylising", "teaching"),
}
