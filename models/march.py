"""The parametrisation along rays, see `datasets.cameras.march`."""

from datasets.cameras.march import March
from datasets.cameras.rays import Rays

__all__ = ["March", "march"]


def march(rays: Rays) -> March:
    """How equal steps lead along the rays."""
    return rays.march()
