"""Small shared tools: errors, images, video, metrics, checkpoints.  Imports nothing above it.

The scripts import it before PyTorch, whose OpenMP library reads its settings once.
"""

import os

# How long a thread spins for its next work before it sleeps: 0.4 ms in place of 4.5.  Beside
# another busy program, which the spinning keeps from computing what it is waiting for, training is
# more than 2 times quicker for it; alone it costs up to 8 %.  A third of that would cost 20 % for a
# NeRF, whose threads then sleep between its layers.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
