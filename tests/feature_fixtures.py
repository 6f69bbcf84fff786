"""Made-up features for selections and searches."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def features(rows: int = 300, dim: int = 9, *, seed: int = 0) -> np.ndarray:
    """float32 (rows, dim) with duplicates and an offset."""
    values = np.random.default_rng(seed).standard_normal((rows, dim)) + 100
    values[: rows // 4] = values[rows // 4 : 2 * (rows // 4)]
    return values.astype(np.float32)


def any_rows(*, least: int = 1) -> st.SearchStrategy[np.ndarray]:
    """A few rows of any finite values whose squares float32 holds, ties among them: float32 (rows, dim)."""
    shape = st.tuples(st.integers(least, 25), st.integers(1, 4))
    return arrays(np.float32, shape, elements=st.one_of(st.integers(-3, 3), st.floats(-(2.0**100), 2.0**100, width=32)))
