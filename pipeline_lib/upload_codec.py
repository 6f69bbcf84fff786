"""What leaves a station: rows clipped and noised where asked for, then encoded. The server decodes to float32.

Noise here is noise; nothing is claimed about differential privacy.
"""

from __future__ import annotations

from collections.abc import Mapping

import faiss
import numpy as np

from data_contracts.errors import UploadError
from data_contracts.stages import Codec

PCA_KEPT_VARIANCE = 0.99
PQ_DIMENSIONS_PER_CODE = 4
PQ_CENTROIDS = 256


def clip_rows(rows: np.ndarray, clip_norm: float) -> np.ndarray:
    """Rows (row, dim) whose Euclidean norm is above `clip_norm` are shortened to it."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped: np.ndarray = rows * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-12))
    return clipped.astype(np.float32)


def add_noise(rows: np.ndarray, noise_sigma: float, *, rng: np.random.Generator) -> np.ndarray:
    """Rows (row, dim) plus Gaussian noise of standard deviation `noise_sigma` in every dimension."""
    noisy: np.ndarray = rows + rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(noise_sigma)
    return noisy.astype(np.float32)


def encode_rows(rows: np.ndarray, codec: Codec) -> dict[str, np.ndarray]:
    """Rows float32 (row, dim) -> the arrays of an upload.

    `pca_float16` keeps the principal components that hold 99 % of the rows' variance; `pq` is product quantization
    (Jegou et al. 2011) with one byte for every 4 dimensions. Where rows are too few to be worth a codebook both fall
    back to float16, and the arrays say so.
    """
    match codec:
        case "float32":
            return {"rows": np.ascontiguousarray(rows, dtype=np.float32)}
        case "float16":
            return {"rows": rows.astype(np.float16)}
        case "pca_float16":
            return _encode_pca(rows)
        case "pq":
            return _encode_pq(rows)


def decode_rows(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arrays of an upload -> rows float32 (row, dim). Raises UploadError for arrays that no codec writes."""
    names = set(arrays)
    if names == {"rows"}:
        return np.asarray(arrays["rows"], dtype=np.float32)
    if names == {"coefficients", "components", "mean"}:
        decoded: np.ndarray = arrays["coefficients"].astype(np.float32) @ arrays["components"].astype(np.float32)
        return np.asarray(decoded + arrays["mean"], dtype=np.float32)
    if names == {"codes", "codebooks", "dim"}:
        codebooks = arrays["codebooks"].astype(np.float32)  # (code, centroid, width)
        parts = [codebooks[m][arrays["codes"][:, m]] for m in range(len(codebooks))]
        return np.ascontiguousarray(np.concatenate(parts, axis=1)[:, : int(arrays["dim"])])
    raise UploadError(f"an upload with arrays {sorted(names)} is in no known encoding")


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
        "coefficients": (centered @ components.T).astype(np.float16),
        "components": components.astype(np.float16),
        "mean": mean.astype(np.float32),
    }


def _encode_pq(rows: np.ndarray) -> dict[str, np.ndarray]:
    n_rows, dim = rows.shape
    codes_per_row = -(-dim // PQ_DIMENSIONS_PER_CODE)
    codebook_bytes = PQ_CENTROIDS * codes_per_row * PQ_DIMENSIONS_PER_CODE * 2
    if n_rows < PQ_CENTROIDS or codebook_bytes + n_rows * codes_per_row >= rows.size * 2:
        return encode_rows(rows, "float16")
    padded = np.zeros((n_rows, codes_per_row * PQ_DIMENSIONS_PER_CODE), dtype=np.float32)
    padded[:, :dim] = rows
    quantizer = faiss.ProductQuantizer(padded.shape[1], codes_per_row, 8)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(padded)
    codebooks = faiss.vector_to_array(quantizer.centroids).reshape(codes_per_row, PQ_CENTROIDS, PQ_DIMENSIONS_PER_CODE)
    return {
        "codes": quantizer.compute_codes(padded),
        "codebooks": codebooks.astype(np.float16),
        "dim": np.array(dim, dtype=np.int64),
    }
