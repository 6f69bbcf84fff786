"""Product quantization in principal axes: how axes are divided, what it loses, what is refused."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import UploadError
from pipeline_lib.upload.product_quantization import ARRAYS, axes_per_code, quantize_rows, restore_rows


def made_up_rows(n_rows: int = 2000, dim: int = 40, *, decay: float = 0.05, seed: int = 0) -> np.ndarray:
    """float32 (row, dim): correlated dimensions whose principal variances fall to `decay`, squared, of the first."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return (rng.normal(size=(n_rows, dim)) * np.geomspace(10, 10 * decay, dim) @ turn + 5).astype(np.float32)


def squared_error(rows: np.ndarray, restored: np.ndarray) -> float:
    return float(((restored.astype(np.float64) - rows) ** 2).sum(axis=1).mean())


def plain_product_quantization(rows: np.ndarray) -> np.ndarray:
    """The reference: as many codes of four dimensions each, in the features' own order (Jegou et al. 2011)."""
    quantizer = faiss.ProductQuantizer(rows.shape[1], rows.shape[1] // 4, 8)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(rows)
    restored: np.ndarray = quantizer.decode(quantizer.compute_codes(rows))
    return restored


def test_it_loses_less_than_plain_product_quantization_in_as_many_bytes() -> None:
    rows = made_up_rows()
    arrays = quantize_rows(rows)
    assert arrays is not None
    plain = plain_product_quantization(rows)
    assert arrays["codes"].shape == (2000, 10)
    assert sum(array.nbytes for array in arrays.values()) < 2000 * 10 + 256 * 40 * 2  # codes and float16 codebooks
    assert squared_error(rows, restore_rows(arrays)) < 0.6 * squared_error(rows, plain)


def test_it_stays_near_the_bound_of_rate_and_distortion() -> None:
    """No code of so many bits can do better on Gaussian rows; fixed codes of eight bits do not reach it."""
    rows = made_up_rows(20_000)
    arrays = quantize_rows(rows)
    assert arrays is not None
    centered = rows - rows.mean(axis=0, dtype=np.float64)
    variances = np.linalg.eigvalsh(centered.T @ centered / len(rows))
    low, high = 1e-9, float(variances.max())
    for _ in range(100):
        level = (low * high) ** 0.5
        bits = np.maximum(0, 0.5 * np.log2(variances / level)).sum()
        low, high = (level, high) if bits > 8 * arrays["codes"].shape[1] else (low, level)
    bound = np.minimum(variances, level).sum()
    assert bound < squared_error(rows, restore_rows(arrays)) < 2.5 * bound


def test_every_axis_is_worth_at_most_eight_bits_to_its_code_and_the_strongest_come_first() -> None:
    assert axes_per_code(np.array([1.0, 1.0, 1.0, 1.0]), 2) == [2, 2]
    assert axes_per_code(np.array([1.0, 1.0, 1.0, 1.0]), 4) == [1, 1, 1, 1]
    first, *others = axes_per_code(np.array([1e6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 3)
    assert first == 1
    assert sum(others) == 6
    assert axes_per_code(np.array([4.0, 0.0, 0.0]), 2) == [1]  # what does not vary needs no byte
    assert axes_per_code(np.zeros(5), 2) == [1]


@settings(max_examples=60)
@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_no_more_codes_and_axes_than_there_are(values: list[float], n_codes: int) -> None:
    variances = np.sort(np.array(values))[::-1]
    widths = axes_per_code(variances, n_codes)
    assert 1 <= len(widths) <= n_codes
    assert all(width >= 1 for width in widths)
    assert sum(widths) <= len(variances)


def test_rows_in_fewer_dimensions_than_they_have_come_back_nearly_whole() -> None:
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 64))).astype(np.float32)
    arrays = quantize_rows(rows)
    assert arrays is not None
    assert arrays["codes"].shape[1] <= 3
    spread = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert squared_error(rows, restore_rows(arrays)) < 0.001 * spread


def test_too_few_rows_are_left_to_another_codec() -> None:
    assert quantize_rows(made_up_rows(255)) is None
    assert quantize_rows(made_up_rows(256, 1)) is None  # codes and centroids take more than two bytes a row


GOOD: dict[str, np.ndarray] = {
    "codes": np.zeros((5, 2), dtype=np.uint8),
    "widths": np.array([1, 2], dtype=np.uint16),
    "centroids": np.ones((4, 3), dtype=np.int8),
    "centroid_scales": np.ones(3, dtype=np.float32),
    "axes": np.ones((3, 8), dtype=np.int8),
    "axis_scales": np.ones(3, dtype=np.float32),
    "mean": np.full(8, 7, dtype=np.float32),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codes", np.full((5, 2), 4, dtype=np.uint8)),  # a centroid that is not there
        ("codes", np.zeros((5, 3), dtype=np.uint8)),
        ("codes", np.zeros(5, dtype=np.uint8)),
        ("codes", np.zeros((5, 0), dtype=np.uint8)),
        ("codes", np.zeros((5, 2), dtype=np.int8) - 1),
        ("widths", np.array([1, 3], dtype=np.uint16)),
        ("widths", np.array([3], dtype=np.uint16)),
        ("widths", np.array([-1, 4], dtype=np.int64)),
        ("centroids", np.zeros((0, 3), dtype=np.int8)),
        ("centroids", np.zeros((4, 3), dtype=np.float32)),
        ("centroid_scales", np.ones(2, dtype=np.float32)),
        ("axes", np.ones((2, 8), dtype=np.int8)),
        ("axes", np.ones((3, 7), dtype=np.int8)),
        ("axis_scales", np.ones((), dtype=np.float32)),
        ("mean", np.zeros(0, dtype=np.float32)),
    ],
)
def test_what_it_does_not_write_is_refused(name: str, value: Any) -> None:
    assert GOOD.keys() == ARRAYS
    assert restore_rows(GOOD).tolist() == [[10.0] * 8] * 5
    with pytest.raises(UploadError, match="its array"):
        restore_rows({**GOOD, name: value})
