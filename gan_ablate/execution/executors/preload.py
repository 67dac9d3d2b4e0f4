"""The imports of the process that workers are forked from: to import this module is all that it does."""

from __future__ import annotations

import atexit
import gc
from importlib import import_module

MODULES = (
    "torch._dynamo",  # PyTorch's optimisers import it when the first is made, which each worker would do for itself
    "gan_ablate.execution.run",
)

# Nothing that is imported becomes garbage, and to look for it takes a fifth of the time. Workers do not look at what
# is frozen, so its memory stays shared between them. At exit, Triton complains of what is not collected.
gc.disable()
for name in MODULES:
    import_module(name)
gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)
