"""Our hot paths against plain textbook implementations: `make bench`, `python -m benchmarks`."""

from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
