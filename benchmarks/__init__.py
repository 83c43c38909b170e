"""Our hot paths against plain textbook implementations: `make bench`, `python -m benchmarks`."""
