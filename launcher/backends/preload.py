"""What the fork server loads once, so that no worker has to."""

from __future__ import annotations

import gc
import warnings

import btard.node.worker  # noqa: F401
from btard.node import kernels

# Loaded once, not by each worker. Whether there are none has been said by the launcher, when it tried the rule.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    kernels.library()

# Some 300,000 objects that live as long as the worker: a full collection that visits them takes 0.2 s.
gc.collect()
gc.freeze()
