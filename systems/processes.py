"""Training over several processes, as Lightning starts them."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from systems.launch import world


class TeamStrategy(DDPStrategy):
    """Processes whose training steps add up their gradients themselves (`utils/team.py`).

    DistributedDataParallel would do it in hooks on each parameter; ours come and go as a field
    grows, are sums over a step's chunks, and have to be the same as one process's.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return model

    def _register_ddp_hooks(self) -> None:
        pass


def processes(num_gpus: int, num_nodes: int) -> dict[str, Any]:
    """Arguments of Lightning's trainer for the options --num_gpus and --num_nodes."""
    devices, nodes = world(num_gpus, num_nodes)
    strategy = TeamStrategy() if devices * nodes > 1 else "auto"
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}
