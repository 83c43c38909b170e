"""Our hot paths against plain textbook implementations: `make bench`, `python -m benchmarks`."""

import utils  # noqa: F401 - before PyTorch
