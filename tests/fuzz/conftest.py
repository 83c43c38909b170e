"""How many inputs are tried: a few in the suite, always the same ones; `make fuzz` tries
``FUZZ=10000``, other ones each time, and keeps in .hypothesis what failed."""

import os

from hypothesis import HealthCheck, settings

SHARES = 30  # the fuzzed tests, of one parameter each, share the inputs
COUNT = int(os.environ.get("FUZZ", 0))
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("suite", max_examples=25, derandomize=True, database=None, **QUIET)
settings.register_profile("long", max_examples=max(1, COUNT // SHARES), print_blob=True, **QUIET)
settings.load_profile("long" if COUNT else "suite")
