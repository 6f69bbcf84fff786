"""Features are stored in float16 and computed with in float32 and float64; torch widens them far faster than NumPy.

NumPy 2.4 converts float16 one value at a time: `python -m benchmarks.profiles` says how much longer that takes.
"""

from __future__ import annotations

import numpy as np

from pipeline_lib.when_needed import torch


def widened(values: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """`values` in `dtype`, float32 or float64; the same array where it has that type already."""
    if values.dtype == np.float16:
        values = torch.from_numpy(np.require(values, requirements=("C", "W"))).float().numpy()
    return values.astype(dtype, copy=False)
