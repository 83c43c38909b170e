"""Small shared tools: errors, images, video, metrics, checkpoints.  Imports nothing above it.

The scripts import it before PyTorch, whose OpenMP library reads its settings once.
"""

import os

# How long a thread spins for its next work before it sleeps: half a millisecond in place of 15.
# Alone that costs up to 4 %; beside another busy program, which the spinning keeps from computing
# what it is waiting for, training is 2 times quicker and rendering 8 times.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
