"""Rows as one byte for every four dimensions: product quantization in the rows' own principal axes.

Product quantization (Jegou et al. 2011) of the features as they are gives every four dimensions a byte, whether they
vary or not. Here the rows are first turned to their principal axes, as in optimized product quantization (Ge et al.
2013, its parametric solution), and the axes are divided over the codes by how many bits each is worth: at a distortion
D an axis of variance v takes max(0, log2(v / D) / 2) bits (reverse water-filling, Cover and Thomas 2006, theorem
10.3.3), a code takes consecutive axes up to eight bits, and D is the smallest for which the codes suffice. Axes below D
are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import faiss
import numpy as np

from data_contracts.errors import UploadError

DIMENSIONS_PER_CODE = 4
CENTROIDS = 256
CODE_BITS = 8.0
ITERATIONS = 10
ARRAYS = frozenset({"codes", "widths", "centroids", "centroid_scales", "axes", "axis_scales", "mean"})
DISTORTION_STEPS = 60
SMALLEST_DISTORTION = 2.0**-22  # of the largest variance, what float16 loses: axes below it hold nothing but rounding


def axes_per_code(variances: np.ndarray, n_codes: int) -> list[int]:
    """How many principal axes each code takes, the first codes the axes that vary most; at most `n_codes` codes.

    variances: (axis,) falling. Axes beyond the sum are worth no bit and are left out; one axis at least is kept.
    """
    largest = float(variances[0])
    if largest <= 0:
        return [1]
    low, high = SMALLEST_DISTORTION * largest, largest  # the distortion lies between: at `high` no axis is worth a bit
    best = [1]
    for _ in range(DISTORTION_STEPS):
        distortion = (low + high) / 2
        widths = _fill_codes(variances, distortion)
        if len(widths) <= n_codes:
            best, high = widths, distortion
        else:
            low = distortion
    return best


def _fill_codes(variances: np.ndarray, distortion: float) -> list[int]:
    """Consecutive axes into codes of eight bits; an axis that is worth more has a code of its own."""
    bits = 0.5 * np.log2(variances[variances > distortion] / distortion)
    widths: list[int] = []
    filled = CODE_BITS
    for worth in bits.tolist():
        if widths and filled + worth <= CODE_BITS:
            widths[-1] += 1
            filled += worth
        else:
            widths.append(1)
            filled = worth
    return widths or [1]


def quantize_rows(rows: np.ndarray) -> dict[str, np.ndarray] | None:
    """Rows float32 (row, dim) -> the arrays of `ARRAYS`; None where they would be no smaller than float16.

    codes uint8 (row, code); widths uint16 (code,), the axes of each; centroids int8 (256, axis) and axes int8 (axis,
    dim), each with a float32 scale for every axis; mean float32 (dim,). k-means starts from a fixed seed.
    """
    n_rows, dim = rows.shape
    if n_rows < CENTROIDS:
        return None
    mean = rows.mean(axis=0, dtype=np.float64)
    centered = rows - mean
    variances, vectors = np.linalg.eigh(centered.T @ centered / n_rows)
    widths = axes_per_code(np.maximum(variances[::-1], 0), -(-dim // DIMENSIONS_PER_CODE))
    kept = sum(widths)
    if n_rows * len(widths) + kept * (CENTROIDS + dim + 8) + 4 * dim >= rows.size * 2:
        return None
    axes, axis_scales = _to_int8(vectors[:, ::-1].T[:kept], axis=1)
    turned = (centered @ (axes * axis_scales[:, None]).T.astype(np.float64)).astype(np.float32)
    codes = np.empty((n_rows, len(widths)), dtype=np.uint8)
    centers = np.empty((CENTROIDS, kept), dtype=np.float32)
    for code, part in enumerate(_slices(widths)):
        values = np.ascontiguousarray(turned[:, part])
        clusters = faiss.Kmeans(
            values.shape[1], CENTROIDS, niter=ITERATIONS, seed=code, min_points_per_centroid=1, verbose=False
        )
        clusters.train(values)
        codes[:, code] = clusters.index.search(values, 1)[1][:, 0]
        centers[:, part] = clusters.centroids
    centroids, centroid_scales = _to_int8(centers, axis=0)
    return {
        "codes": codes,
        "widths": np.array(widths, dtype=np.uint16),
        "centroids": centroids,
        "centroid_scales": centroid_scales,
        "axes": axes,
        "axis_scales": axis_scales,
        "mean": mean.astype(np.float32),
    }


def restore_rows(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arrays of `quantize_rows` -> rows float32 (row, dim). Raises UploadError for what it does not write."""
    kinds = {
        "codes": (np.uint8, 2), "widths": (np.uint16, 1), "centroids": (np.int8, 2), "axes": (np.int8, 2),
        "centroid_scales": (np.float32, 1), "axis_scales": (np.float32, 1), "mean": (np.float32, 1),
    }  # fmt: skip
    for name, (dtype, ndim) in kinds.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != ndim:
            found = arrays[name]
            expected = f"{np.dtype(dtype)} of {ndim} dimensions"
            raise UploadError(f"its array {name} is {found.dtype} of shape {found.shape}, expected {expected}")
    codes, widths, centroids, axes = (arrays[name] for name in ("codes", "widths", "centroids", "axes"))
    kept = len(axes)
    fits = (
        codes.shape[1] == len(widths) > 0
        and int(widths.sum(dtype=np.int64)) == kept == centroids.shape[1]
        and kept == len(arrays["centroid_scales"]) == len(arrays["axis_scales"])
        and axes.shape[1] == len(arrays["mean"]) > 0
        and codes.max(initial=0) < len(centroids)
    )
    if not fits:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in sorted(ARRAYS))
        raise UploadError(f"its arrays do not fit one another: {shapes}")
    centers = centroids * arrays["centroid_scales"]
    turned = np.concatenate([centers[codes[:, i], part] for i, part in enumerate(_slices(widths.tolist()))], axis=1)
    rows: np.ndarray = turned @ (axes * arrays["axis_scales"][:, None])
    rows += arrays["mean"]
    return rows


def _slices(widths: list[int]) -> list[slice]:
    ends = list(itertools.accumulate(widths))
    return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]


def _to_int8(values: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Values -> (int8, one float32 scale for each line along `axis`): an error of at most 1/254 of the largest."""
    scales = (np.abs(values).max(axis=axis) / 127).astype(np.float32)
    divisors = np.expand_dims(np.where(scales > 0, scales, 1), axis)
    return np.rint(values / divisors).clip(-127, 127).astype(np.int8), scales
