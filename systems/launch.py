"""How many processes there are, and how rendering starts them."""

from __future__ import annotations

import os

import torch

from utils.team import Team


def world(num_gpus: int, num_nodes: int) -> tuple[int, int]:
    """Processes on this machine, and machines: as `torchrun` has started them, else as asked."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    return num_gpus, num_nodes


def launch(device: str, num_gpus: int, num_nodes: int) -> tuple[Team, torch.device]:
    """Starts the processes that were asked for: each goes through the script from its beginning.

    Returns:
        The team, and this process's device.
    """
    devices, nodes = world(num_gpus, num_nodes)
    if devices * nodes == 1:
        return Team(), torch.device(device)
    from lightning_fabric import Fabric  # takes longer to import than a frame to render

    fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return Team.current(), fabric.device
