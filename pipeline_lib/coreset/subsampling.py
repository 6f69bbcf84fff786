"""Random and density subsampling: the controls that greedy k-center is compared with."""

from __future__ import annotations

import numpy as np

from pipeline_lib.coreset.selection import CoresetSelection, check_features, refuse_non_finite
from pipeline_lib.neighbors.exact import ExactSearch, check_matrix

DENSITY_SAMPLE_ROWS = 2048
DENSITY_NEIGHBORS = 5


def random_subsampling(
    features: np.ndarray, target_size: int, *, rng: np.random.Generator, threads: int | None = None
) -> CoresetSelection:
    """`target_size` different rows, drawn evenly. `covering_radius` is exact. Raises FedpatchError as k-center does."""
    check_features(features, target_size)
    refuse_non_finite(features)
    indices = rng.choice(len(features), size=target_size, replace=False).astype(np.int64)
    return CoresetSelection(indices, covering_radius(features, features[indices], threads=threads))


def density_subsampling(
    features: np.ndarray, target_size: int, *, rng: np.random.Generator, threads: int | None = None
) -> CoresetSelection:
    """`target_size` different rows, drawn one after the other with probability proportional to local density.

    The density of a row is estimated as 1 / r, with r its distance to the DENSITY_NEIGHBORS-th nearest of
    DENSITY_SAMPLE_ROWS rows drawn evenly (the k-nearest-neighbour estimate of Loftsgaarden & Quesenberry 1965 is
    1 / r^dim; the power is left out, since in hundreds of dimensions it puts all weight on one row). r is taken as at
    least 1e-3 of its median, so that duplicates do not take everything. Raises FedpatchError as k-center does.
    """
    check_features(features, target_size)
    refuse_non_finite(features)
    sample = np.sort(rng.choice(len(features), size=min(DENSITY_SAMPLE_ROWS, len(features)), replace=False))
    search = ExactSearch(check_matrix(features[sample], name="density sample"), threads=threads)
    neighbors = min(DENSITY_NEIGHBORS, len(sample))
    distances = np.concatenate(
        [
            search.search(check_matrix(features[start : start + 65536], name="features"), neighbors)[0][:, -1]
            for start in range(0, len(features), 65536)
        ]
    ).astype(np.float64)
    floor = 1e-3 * float(np.median(distances))
    density = 1.0 / np.maximum(distances, floor if floor > 0 else 1.0)
    # Gumbel keys: the largest target_size of log(weight) + Gumbel noise are a draw without replacement (Yellott 1977)
    keys = np.log(density) + rng.gumbel(size=len(features))
    indices = np.argsort(-keys, kind="stable")[:target_size].astype(np.int64)
    return CoresetSelection(indices, covering_radius(features, features[indices], threads=threads))


def covering_radius(features: np.ndarray, centers: np.ndarray, *, threads: int | None = None) -> float:
    """Largest distance of a row of `features` (rows, dim) to its nearest row of `centers` (centers, dim)."""
    search = ExactSearch(check_matrix(centers, name="centers"), threads=threads)
    radius = 0.0
    for start in range(0, len(features), 65536):
        block = check_matrix(features[start : start + 65536], name="features", dim=centers.shape[1])
        radius = max(radius, float(search.search(block)[0].max()))
    return radius
