"""Codecs of uploads: what comes back, how many bytes, and what the server refuses to decode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_contracts.errors import UploadError
from pipeline_lib.upload.codec import add_noise, clip_rows, decode_rows, encode_rows, encoded_rows

CODECS = ("float32", "float16", "pca_float16", "pq")


def size_bytes(arrays: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """float32 (3000, 64) with a decaying spectrum, far from the origin."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(3000, 12)) * np.geomspace(8, 0.5, 12)
    noise = 0.05 * rng.normal(size=(3000, 64))
    return (factors @ np.linalg.qr(rng.normal(size=(64, 12)))[0].T + noise + 3).astype(np.float32)


def test_float32_comes_back_bit_for_bit(rows: np.ndarray) -> None:
    assert np.array_equal(decode_rows(encode_rows(rows, "float32")), rows)


def test_float16_is_off_by_half_a_unit_in_the_last_place(rows: np.ndarray) -> None:
    decoded = decode_rows(encode_rows(rows, "float16"))
    assert decoded.dtype == np.float32
    assert (np.abs(decoded - rows) <= 2.0**-11 * np.abs(rows) + 2.0**-25).all()


@pytest.mark.parametrize(("codec", "kept_variance"), [("pca_float16", 0.985), ("pq", 0.985)])
def test_lossy_codecs_keep_most_of_the_variance(rows: np.ndarray, codec: Any, kept_variance: float) -> None:
    arrays = encode_rows(rows, codec)
    decoded = decode_rows(arrays)
    assert decoded.shape == rows.shape
    assert decoded.dtype == np.float32
    lost = ((decoded - rows) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum()
    assert lost <= 1 - kept_variance
    assert "rows" not in arrays  # it did not fall back


def test_pca_is_off_by_what_the_dropped_components_hold(rows: np.ndarray) -> None:
    """The best approximation of that rank in the sense of Eckart and Young, up to float16."""
    arrays = encode_rows(rows, "pca_float16")
    kept = len(arrays["components"])
    centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centered, compute_uv=False)
    energy = np.cumsum(singular**2) / (singular**2).sum()
    assert energy[kept - 2] < 0.99 <= energy[kept - 1]
    best = (singular[kept:] ** 2).sum()
    error = ((decode_rows(arrays) - rows.astype(np.float64)) ** 2).sum()
    assert error == pytest.approx(best, rel=0.02)


def test_bytes_fall_from_codec_to_codec(rows: np.ndarray) -> None:
    sizes = [size_bytes(encode_rows(rows, codec)) for codec in CODECS]  # type: ignore[arg-type]
    assert sizes[0] == rows.nbytes
    assert sizes[1] == rows.nbytes / 2
    assert sizes[2] < sizes[1] / 2
    codes = encode_rows(rows, "pq")["codes"]
    assert codes.dtype == np.uint8
    assert codes.shape[0] == 3000
    assert 1 <= codes.shape[1] <= 16  # at most one byte for every 4 dimensions


@pytest.mark.parametrize("codec", ["pca_float16", "pq"])
def test_few_rows_fall_back_to_float16(codec: Any) -> None:
    few = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    assert set(encode_rows(few, codec)) == {"rows"}
    assert encode_rows(few, codec)["rows"].dtype == np.float16


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (300, 5), (600, 3)])
def test_every_shape_comes_back(codec: Any, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    arrays = encode_rows(values, codec)
    assert decode_rows(arrays).shape == shape
    assert encoded_rows(arrays) == shape[0]


@pytest.mark.parametrize("codec", CODECS)
def test_equal_rows_are_no_trouble(codec: Any) -> None:
    values = np.full((1000, 40), 2.5, dtype=np.float32)
    assert np.allclose(decode_rows(encode_rows(values, codec)), 2.5, atol=2e-3)


def test_encoding_is_deterministic(rows: np.ndarray) -> None:
    for codec in CODECS:
        first, second = encode_rows(rows, codec), encode_rows(rows.copy(), codec)  # type: ignore[arg-type]
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("codec", ["float16", "pca_float16"])
def test_values_beyond_float16_are_refused_not_sent_as_infinity(codec: Any) -> None:
    values = np.random.default_rng(0).normal(size=(2000, 40)).astype(np.float32)
    values[:, 0] *= 1e6
    with pytest.raises(UploadError, match=r"float16 cannot.*65504.*codec: float32"):
        encode_rows(values, codec)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no known encoding"),
        ({"features": np.zeros((2, 3))}, r"arrays \['features'\]"),
        ({"rows": np.zeros((2, 3), dtype=np.int64)}, "takes floats of 2 dimensions"),
        ({"rows": np.zeros((2, 3), dtype=np.complex64)}, "complex64"),
        ({"rows": np.array(["a", "b"])}, "takes floats"),
        ({"rows": np.zeros(3, dtype=np.float32)}, r"shape \(3,\)"),
        ({"coefficients": np.zeros((4, 2)), "components": np.zeros((3, 5)), "mean": np.zeros(5)}, "do not fit"),
        ({"coefficients": np.zeros((4, 3)), "components": np.zeros((3, 5)), "mean": np.zeros(4)}, "do not fit"),
        ({"coefficients": np.zeros((4, 3)), "components": np.zeros((3, 5)), "mean": np.zeros(())}, "takes floats"),
    ],
)
def test_what_no_codec_writes_is_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UploadError, match=message):
        decode_rows(arrays)


def test_clipping_shortens_long_rows_and_leaves_the_rest() -> None:
    rows = np.array([[3, 4], [0.3, 0.4], [0, 0], [3e30, 4e30]], dtype=np.float32)
    clipped = clip_rows(rows, 1.0)
    assert clipped.dtype == np.float32
    assert np.allclose(clipped, [[0.6, 0.8], [0.3, 0.4], [0, 0], [0.6, 0.8]])
    assert np.array_equal(clipped[1], rows[1])


def test_noise_has_the_sigma_that_was_asked_for_and_comes_from_the_rng() -> None:
    rows = np.full((400, 50), 7, dtype=np.float32)
    noisy = add_noise(rows, 0.5, rng=np.random.default_rng(3))
    assert np.array_equal(noisy, add_noise(rows, 0.5, rng=np.random.default_rng(3)))
    assert not np.array_equal(noisy, add_noise(rows, 0.5, rng=np.random.default_rng(4)))
    assert (noisy - rows).std() == pytest.approx(0.5, rel=0.03)
    assert abs((noisy - rows).mean()) < 0.02
    assert (rows == 7).all()
