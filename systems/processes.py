"""Training and rendering over several processes: how many, and how Lightning starts them."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from utils.team import Team


class TeamStrategy(DDPStrategy):
    """Processes whose training steps add up their gradients themselves (`utils/team.py`).

    DistributedDataParallel would do it in hooks on each parameter; ours come and go as a field
    grows, are sums over a step's chunks, and have to be the same as one process's.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return model

    def _register_ddp_hooks(self) -> None:
        pass


def world(num_gpus: int, num_nodes: int) -> tuple[int, int]:
    """Processes on this machine, and machines: as `torchrun` has started them, else as asked."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    return num_gpus, num_nodes


def processes(num_gpus: int, num_nodes: int) -> dict[str, Any]:
    """Arguments of Lightning's trainer for the options --num_gpus and --num_nodes."""
    devices, nodes = world(num_gpus, num_nodes)
    strategy = TeamStrategy() if devices * nodes > 1 else "auto"
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}


def launch(device: str, num_gpus: int, num_nodes: int) -> tuple[Team, torch.device]:
    """Starts the processes that were asked for: each goes through the script from its beginning.

    Returns:
        The team, and this process's device.
    """
    devices, nodes = world(num_gpus, num_nodes)
    if devices * nodes == 1:
        return Team(), torch.device(device)
    fabric = Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return Team.current(), fabric.device
