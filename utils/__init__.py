"""Small shared tools: errors, images, video, metrics, checkpoints.  Imports nothing above it.

The scripts import it before PyTorch, whose OpenMP library reads its settings once.
"""

import os

# How long an idle OpenMP thread spins before it sleeps: 0.4 ms instead of 4.5 ms.  Next to another
# busy program, which long spinning would slow down, training is more than twice as fast; alone it
# is up to 8 % slower.  At a third of this value a NeRF would be 20 % slower, since its threads
# would sleep between layers.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
