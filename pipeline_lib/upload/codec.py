"""What leaves a station: rows clipped and noised where asked for, then encoded. The server decodes to float32.

Noise here is noise; nothing is claimed about differential privacy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_contracts.config import Codec
from data_contracts.errors import UploadError
from pipeline_lib.upload import product_quantization

PCA_KEPT_VARIANCE = 0.99
BYTES_PER_VALUE: dict[Codec, int] = {"float32": 4, "float16": 2, "pca_float16": 2, "pq": 2}  # at most, for the last two


def clip_rows(rows: np.ndarray, clip_norm: float) -> np.ndarray:
    """Rows (row, dim) whose Euclidean norm is above `clip_norm` are shortened to it; the others stay as they are."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    clipped: np.ndarray = rows * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-12))
    return clipped.astype(np.float32)


def add_noise(rows: np.ndarray, noise_sigma: float, *, rng: np.random.Generator) -> np.ndarray:
    """Rows (row, dim) plus Gaussian noise of standard deviation `noise_sigma` in every dimension."""
    noisy: np.ndarray = rows + rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(noise_sigma)
    return noisy.astype(np.float32)


def encode_rows(rows: np.ndarray, codec: Codec) -> dict[str, np.ndarray]:
    """Rows float32 (row, dim) -> the arrays of an upload.

    `pca_float16` keeps the principal components that hold 99 % of the rows' variance; `pq` is one byte for every 4
    dimensions (`pipeline_lib.upload.product_quantization`). Where rows are too few to be worth a codebook both fall
    back to float16, and the arrays say so. Raises UploadError for values that float16 cannot hold, where it is used.
    """
    match codec:
        case "float32":
            return {"rows": np.ascontiguousarray(rows, dtype=np.float32)}
        case "float16":
            return {"rows": _to_float16(rows)}
        case "pca_float16":
            return _encode_pca(rows)
        case "pq":
            quantized = product_quantization.quantize_rows(rows)
            return encode_rows(rows, "float16") if quantized is None else quantized


def decode_rows(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arrays of an upload -> rows float32 (row, dim). Raises UploadError for arrays that no codec writes."""
    names = set(arrays)
    if names == {"rows"}:
        return _floats(arrays, "rows", ndim=2)
    if names == {"coefficients", "components", "mean"}:
        coefficients, components = _floats(arrays, "coefficients", ndim=2), _floats(arrays, "components", ndim=2)
        mean = _floats(arrays, "mean", ndim=1)
        if coefficients.shape[1] != len(components) or components.shape[1] != len(mean):
            raise UploadError(f"its arrays do not fit one another: {_shapes(arrays)}")
        decoded: np.ndarray = coefficients @ components
        decoded += mean
        return decoded
    if names == product_quantization.ARRAYS:
        return product_quantization.restore_rows(arrays)
    raise UploadError(f"an upload with arrays {sorted(names)} is in no known encoding")


def encoded_rows(arrays: Mapping[str, np.ndarray]) -> int:
    """How many rows the arrays of an upload stand for, before anything is decoded; 0 for an unknown encoding."""
    for name in ("rows", "coefficients", "codes"):
        if name in arrays and arrays[name].ndim:
            return len(arrays[name])
    return 0


def _floats(arrays: Mapping[str, np.ndarray], name: str, *, ndim: int) -> np.ndarray:
    array = arrays[name]
    if array.ndim != ndim or array.dtype.kind != "f":
        raise UploadError(
            f"its array {name} is {array.dtype} of shape {array.shape}; it takes floats of {ndim} dimensions"
        )
    return np.asarray(array, dtype=np.float32)


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in sorted(arrays.items()))


def _to_float16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UploadError(
            f"rows hold values that float16 cannot (up to {np.abs(values).max():g}, at most {np.finfo(np.float16).max}"
            "); set upload.codec: float32, or check upload.noise_sigma"
        )
    return halves


def _encode_pca(rows: np.ndarray) -> dict[str, np.ndarray]:
    mean = rows.mean(axis=0, dtype=np.float64)
    centered = rows - mean
    variances, vectors = np.linalg.eigh(centered.T @ centered / max(1, len(rows)))
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    total = float(variances.sum())
    kept = 1 if total == 0 else int(np.searchsorted(np.cumsum(variances) / total, PCA_KEPT_VARIANCE) + 1)
    kept = min(kept, rows.shape[1])
    if kept * (len(rows) + rows.shape[1]) >= rows.size:
        return encode_rows(rows, "float16")
    components = vectors[:, :kept].T
    return {
        "coefficients": _to_float16(centered @ components.T),
        "components": _to_float16(components),
        "mean": mean.astype(np.float32),
    }
