"""Rows in clusters, so that a query is compared with the rows of those clusters alone that may hold its nearest row.

Forms are short ones or whole rows, as in `bounds`. By the triangle inequality a row of a cluster with center c and
radius r is at least |q - c| - r away from a query q. How far the nearest row may be says the query's own cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from pipeline_lib.neighbors.bounds import Float32Bounds

ROWS_A_CLUSTER = 64
FEWEST_ROWS = 4096  # with fewer, the steps from cluster to cluster take longer than what they save
MOST_ROWS = 512  # of a cluster
LLOYD_STEPS = 1
NEARBY = 4  # clusters in which a query looks for a row that is near it
STEP = 2048
ENLARGED = 1.0 + 1e-6  # more than rounding takes from a radius


class Clusters:
    """Clusters of the rows in `bounds`, which are put in their order: `order[place]` is the number of the row there."""

    def __init__(self, bounds: Float32Bounds, rows: int) -> None:
        self.bounds = bounds
        forms = bounds.columns[:rows, :-1] * np.float32(-0.5)
        centers = forms[np.linspace(0, rows - 1, rows // ROWS_A_CLUSTER).astype(int)]
        for step in range(LLOYD_STEPS + 1):
            nearest = _nearest(centers, forms)
            kept = self._arrange(nearest)
            centers = centers[kept]
            if step < LLOYD_STEPS:
                sums = np.add.reduceat(forms[self.order], self.starts, axis=0)
                centers = sums / (self.ends - self.starts)[:, None].astype(np.float32)
        self._center(centers)
        far = _distances(forms[self.order], np.repeat(centers, self.ends - self.starts, axis=0))
        self.radii: np.ndarray = np.maximum.reduceat(far, self.starts)
        bounds.columns[:rows] = bounds.columns[self.order]

    def revised(self, bounds: Float32Bounds, places: np.ndarray, new: np.ndarray) -> Clusters:
        """Clusters of the rows in `bounds`: row i was at `places[i]` here, but for those of the numbers `new`.

        Centers stay; a new row goes to the nearest.
        """
        clusters = copy.copy(self)
        clusters.bounds = bounds
        of = np.repeat(np.arange(len(self.centers)), self.ends - self.starts)[places]
        forms = bounds.columns[new, :-1] * np.float32(-0.5)
        of[new] = _nearest(self.centers, forms)
        radii = self.radii.copy()
        np.maximum.at(radii, of[new], _distances(forms, self.centers[of[new]]))
        kept = clusters._arrange(of)
        clusters.radii = radii[kept]
        clusters._center(self.centers[kept])
        bounds.columns[: len(of)] = bounds.columns[clusters.order]
        return clusters

    def _arrange(self, of: np.ndarray) -> np.ndarray:
        """Put rows in the order of the clusters that they are `of` (row,), and say which of those each cluster is."""
        self.order = np.argsort(of, kind="stable")
        _, starts = np.unique(of[self.order], return_index=True)
        self.starts = np.union1d(starts, np.arange(0, len(of), MOST_ROWS))
        self.ends = np.append(self.starts[1:], len(of))
        kept: np.ndarray = of[self.order[self.starts]]
        return kept

    def _center(self, centers: np.ndarray) -> None:
        self.centers = centers
        self.center_squares: np.ndarray = np.einsum("ij,ij->i", centers, centers, dtype=np.float64)

    def nearby(self, left: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of a few rows that are near each query, (queries, places), and squared distances to the centers.

        `left` is Float32Bounds.left of the queries, `squares` their squared norms.
        """
        to_centers = _squares_less_own(self.centers, left[:, :-1]) + squares[:, None]
        count = min(NEARBY, len(self.centers))
        parts = np.array_split(np.arange(len(self.centers)), count)  # the nearest of each: faster than a partition
        nearest = np.stack([part[0] + to_centers[:, part[0] : part[-1] + 1].argmin(axis=1) for part in parts], axis=1)
        places = np.empty(nearest.shape, np.int64)
        order = np.argsort(nearest, axis=None, kind="stable")
        firsts = np.searchsorted(nearest.reshape(-1)[order], np.arange(len(self.centers) + 1))
        for cluster, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            chosen = order[firsts[cluster] : firsts[cluster + 1]]
            if len(chosen):
                product = left[chosen // count] @ self.bounds.columns[start:end].T
                places.reshape(-1)[chosen] = start + product.argmin(axis=1)
        return places, to_centers

    def may_hold(self, squares: np.ndarray, to_centers: np.ndarray, squared_reach: np.ndarray) -> np.ndarray:
        """Which clusters may hold a row within `squared_reach` (queries,) of a query: bool (queries, clusters).

        Squared distances of forms are off by at most unit (|q|^2 + 2|b|^2), as in Float32Bounds; |b| is at most 1.
        """
        unit = self.bounds.unit
        reach = np.sqrt(squared_reach + unit * (squares + 2.0))
        at_least = to_centers - unit * (squares[:, None] + 2 * self.center_squares)
        result: np.ndarray = at_least <= (self.radii + reach[:, None]) ** 2
        return result

    def within(
        self, left: np.ndarray, squares: np.ndarray, to_centers: np.ndarray, squared_reach: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (places, query numbers) whose bound does not exceed `squared_reach` (queries,), cluster by cluster."""
        may = self.may_hold(squares, to_centers, squared_reach)
        limit = self.bounds.limit(squared_reach, squares)
        for cluster, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            numbers = np.flatnonzero(may[:, cluster])
            if not len(numbers):
                continue
            whole = 2 * len(numbers) > len(left)  # then taking them out costs more than it saves
            asked, most = (left, limit) if whole else (left[numbers], limit[numbers])
            hits = np.flatnonzero(asked @ self.bounds.columns[start:end].T <= most[:, None])
            found, within = np.divmod(hits, end - start)
            yield start + within, found if whole else numbers[found]


def _nearest(centers: np.ndarray, forms: np.ndarray) -> np.ndarray:
    parts = [_squares_less_own(centers, forms[s : s + STEP]).argmin(axis=1) for s in range(0, len(forms), STEP)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _distances(forms: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """float64 (forms,): no less than the distances of forms to as many centers."""
    far = forms.astype(np.float64) - centers
    distances: np.ndarray = np.sqrt(np.einsum("ij,ij->i", far, far)) * ENLARGED
    return distances


def _squares_less_own(centers: np.ndarray, forms: np.ndarray) -> np.ndarray:
    """float32 (forms, centers): |c|^2 - 2 x.c, the squared distance less |x|^2."""
    result = forms @ (np.float32(-2.0) * centers.T)
    result += np.einsum("ij,ij->i", centers, centers)
    return result
