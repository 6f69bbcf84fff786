"""Near copies: images that agree in what sets them apart from the other images of their category.

Thumbnails are high-passed, so that light counts little, and scaled to one length; then what many images have in common,
their mean and largest principal components, is taken away: parts in a fixture all look alike, and a part that is a
little shifted looks like others that are. Two images whose remainders correlate by more than NEAR are near copies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEAR = 0.7
"""Exposures of one tile correlate by 0.78 (median), other tiles by less than 0.63 (99 % of the nearest ones)."""

HIGH_PASS_SIGMA_PX = 1.5
COMPONENTS = 5
IMAGES_A_COMPONENT = 10
"""Fewer images have fewer components: otherwise nothing would be left of them."""
SHARED = 0.1
"""Of the images: a component that fewer of them make up is what near copies have in common."""

_ROWS = 1024  # of the matrix of correlations that are held at a time


class NearCopy(NamedTuple):
    """Two images by their positions, first < second."""

    first: int
    second: int
    correlation: float


def near_copies(thumbnails: np.ndarray) -> list[NearCopy]:
    """All pairs of near copies among the images of one category; thumbnails uint8 (image, height, width).

    Constant images are near copies of none.
    """
    if len(thumbnails) < 2:
        return []
    remainders = _remainders(thumbnails)
    pairs = []
    for start in range(0, len(remainders), _ROWS):
        correlations = remainders[start : start + _ROWS] @ remainders[start:].T
        for row, column in np.argwhere(correlations > NEAR).tolist():
            if row < column:
                pairs.append(NearCopy(start + row, start + column, float(correlations[row, column])))
    return pairs


def connected(n_images: int, pairs: list[NearCopy]) -> np.ndarray:
    """Number of the chain of near copies that each image belongs to, int64 (image,); images without any have -1."""
    from scipy import sparse  # slow to import, and few commands come here

    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    graph = sparse.coo_array((np.ones(len(pairs)), (first, second)), shape=(n_images, n_images))
    _, chains = sparse.csgraph.connected_components(graph, directed=False)
    paired = np.isin(np.arange(n_images), np.concatenate([first, second]))
    numbers: np.ndarray = np.where(paired, chains.astype(np.int64), -1)
    return numbers


def _remainders(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (image, pixel), each of length 1, or 0 where nothing is left."""
    from scipy.ndimage import gaussian_filter
    from scipy.sparse.linalg import svds

    images = thumbnails.astype(np.float32)
    high = (images - gaussian_filter(images, (0, HIGH_PASS_SIGMA_PX, HIGH_PASS_SIGMA_PX))).reshape(len(images), -1)
    high = _scaled(high)
    shows_something = high.any(axis=1, keepdims=True)
    high -= high.mean(axis=0)
    if n_components := min(COMPONENTS, len(high) // IMAGES_A_COMPONENT):
        start = np.random.default_rng(0).standard_normal(min(high.shape), np.float32)  # the same every time
        shares, _, components = svds(high, k=2 * n_components, v0=start)
        by_images = 1 / np.sum(shares**4, axis=0)  # how many images a component is of: m where m have equal shares
        common = np.flatnonzero(by_images > SHARED * len(high))[-n_components:]  # svds: the largest come last
        high -= (high @ components[common].T) @ components[common]
    return _scaled(high * shows_something)


def _scaled(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = np.divide(
        rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-3 * np.max(lengths, initial=1e-6)
    )
    return scaled
