"""Random numbers: one generator a use, derived from the seed and the use's name. Nothing is seeded globally."""

from __future__ import annotations

import hashlib

import numpy as np


def stage_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A generator for one use, such as `stage_rng(config.seed, "coreset", client_id, category)`.

    The same seed and names give the same numbers, whatever else was drawn before and in which order.
    """
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])
