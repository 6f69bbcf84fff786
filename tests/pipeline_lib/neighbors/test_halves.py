"""Widening gives what NumPy gives, for every value of float16 and any layout."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pipeline_lib.neighbors.halves import widened


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_half_becomes_itself(dtype: type) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    halves.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (halves, halves.T, halves[::3, 1:]):
            found = widened(values, dtype)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, values.astype(dtype))


def test_what_has_the_type_is_not_copied() -> None:
    values = np.ones((2, 3), np.float32)
    assert widened(values) is values
    np.testing.assert_array_equal(widened(values, np.float64), np.ones((2, 3)))
