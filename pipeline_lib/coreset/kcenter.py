"""Exact greedy k-center selection (farthest first), lazy and blocked.

Gonzalez 1985, "Clustering to minimize the maximum intercluster distance" (a 2-approximation); Sener & Savarese 2018,
"Active learning for CNNs: a core-set approach"; Roth et al. 2022 (PatchCore), algorithm 1.

The distance of a row to the selected set only falls, so the last one computed is an upper bound, and only rows with
the largest bounds need a look before the next pick. A round therefore takes the rows above a threshold, compares them
with the centers chosen since their last look (a matrix product), and picks among those still above the threshold
until none is left; everything outside is known to lie below.

The matrix product is in float32 and serves as a filter with a rigorous error margin: whatever it cannot rule out is
computed by direct differences in float64, so every bound is exact to about 1e-15 and every pick is the true farthest
row, for near-duplicates, large offsets and any number of threads alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.block_threads import block_mapper
from pipeline_lib.coreset.centered import CenteredFeatures, Mapper, squared_norms
from pipeline_lib.coreset.selection import CoresetSelection, Progress, check_features

CANDIDATES_PER_ROUND = 4096
ROWS_PER_PRODUCT = 2048
CENTERS_PER_PRODUCT = 128
PAIRS_PER_STEP = 4096
POOL_BYTES = 32 << 20
SELECTED = -1.0  # in place of a bound: the row is selected, or its group's quota is used up


def greedy_coreset_selection(
    features: np.ndarray,
    target_size: int,
    *,
    rng: np.random.Generator,
    initial_centers: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    group_quotas: Mapping[int, int] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> CoresetSelection:
    """Choose `target_size` rows of `features` (rows, dim) by exact greedy k-center.

    The start row is drawn from `rng` and is `indices[0]`; each further pick is the row farthest from all picks, the
    lowest index among equals. When only duplicates of selected rows are left, the lowest indices follow.

    `initial_centers` (centers, dim) are already covered places: selection goes on from them, without a random start,
    and `covering_radius` counts them. With `groups` (integers, (rows,)) and `group_quotas` at most that many rows of
    each group are picked (a group without a quota gives none): the farthest row among the groups with quota left.

    Working memory: 24 bytes a row, 12 bytes a value of the selected rows and of `initial_centers`, and a few blocks
    (up to 100 MB and 40 MB a thread); `features` are not copied and may be float16 or memory-mapped.

    Raises FedpatchError for values that are not finite, a size out of range, or quotas that do not reach it.
    """
    check_features(features, target_size)
    with block_mapper(threads) as map_blocks:
        state = _LazyFarthestFirst(features, target_size, map_blocks, initial_centers)
        state.limit_groups(groups, group_quotas)
        state.start(rng)
        while state.picked < target_size:
            if not state.pick_round():
                state.pick_duplicates()
            if progress is not None:
                progress(state.picked, target_size)
        return state.result()


class _LazyFarthestFirst:
    """Bounds, stamps and centers of one selection. Squared distances are in the centered, scaled coordinates."""

    def __init__(
        self, features: np.ndarray, target_size: int, map_blocks: Mapper, initial_centers: np.ndarray | None
    ) -> None:
        self.points = CenteredFeatures(features, map_blocks)
        self.map_blocks = map_blocks
        rows, dim = features.shape
        given = np.empty((0, dim), np.float32) if initial_centers is None else initial_centers
        if given.ndim != 2 or given.shape[1] != dim:
            raise FedpatchError(f"initial_centers have shape {given.shape}; features have {dim} dimensions")
        if not np.isfinite(given).all():
            raise FedpatchError("initial_centers hold NaN or infinity; they must be finite")
        self.target_size = target_size
        self.centers = np.empty((len(given) + target_size, dim))
        self.filter_columns = np.empty((len(given) + target_size, dim + 1), np.float32)  # (-2c, |c|^2), see _compare
        self.center_squares = np.empty(len(given) + target_size)
        self.count = 0  # centers so far, initial ones included
        self.indices = np.empty(target_size, np.int64)
        self.pick_squares = np.empty(target_size)
        self.picked = 0
        self.bounds = np.full(rows, np.inf)  # squared distance to the centers before `stamps`, never too small
        self.stamps = np.zeros(rows, np.int32)  # number of centers that the row was compared with
        self.groups: np.ndarray | None = None
        self.quota_left: dict[int, int] = {}
        self.retired: list[tuple[np.ndarray, np.ndarray]] = []  # rows of groups without quota, and their bounds
        self.pool_rows = int(np.clip(POOL_BYTES // (8 * dim), 64, 8192))
        for center in self.points.transform(given):
            self._add_center(center)

    # --- centers -----------------------------------------------------------------------------------------------

    def _add_center(self, center: np.ndarray) -> None:
        self.centers[self.count] = center
        square = float(center @ center)
        self.center_squares[self.count] = square
        self.filter_columns[self.count, :-1] = -2.0 * center
        self.filter_columns[self.count, -1] = square
        self.count += 1

    def pick(self, row: int, squared_distance: float) -> None:
        """Make a row a center. Its bound is marked; others are not touched."""
        self.indices[self.picked] = row
        self.pick_squares[self.picked] = squared_distance
        self.picked += 1
        self._add_center(self.points.rows(row))
        self.bounds[row] = SELECTED
        if self.groups is not None:
            group = int(self.groups[row])
            self.quota_left[group] -= 1
            if self.quota_left[group] == 0:
                self._retire(group)

    # --- groups ------------------------------------------------------------------------------------------------

    def limit_groups(self, groups: np.ndarray | None, group_quotas: Mapping[int, int] | None) -> None:
        """Take up the quotas. Rows of groups without quota are never picked, but count for the covering radius."""
        if (groups is None) != (group_quotas is None):
            raise FedpatchError("groups and group_quotas go together: give both or neither")
        if groups is None or group_quotas is None:
            return
        if groups.shape != (len(self.points),) or groups.dtype.kind not in "iu":
            raise FedpatchError(f"groups are {groups.dtype} {groups.shape}; one integer a row, ({len(self.points)},)")
        names, counts = np.unique(groups, return_counts=True)
        self.groups = groups
        self.quota_left = {int(name): int(group_quotas.get(int(name), 0)) for name in names}
        reachable = sum(min(max(self.quota_left[int(g)], 0), int(n)) for g, n in zip(names, counts, strict=True))
        if reachable < self.target_size:
            raise FedpatchError(
                f"group quotas allow {reachable} rows, {self.target_size} were asked for; raise the quotas"
            )

    def _retire(self, group: int) -> None:
        assert self.groups is not None
        rows = np.flatnonzero((self.groups == group) & (self.bounds >= 0))
        self.retired.append((rows, self.bounds[rows]))
        self.bounds[rows] = SELECTED

    # --- rounds ------------------------------------------------------------------------------------------------

    def start(self, rng: np.random.Generator) -> None:
        """Bounds of all rows from the first center alone, a drawn row unless centers were given."""
        row = None
        if not self.count:
            row = int(rng.integers(len(self.points)) if self.groups is None else rng.choice(self._rows_with_quota()))
        center = self.points.rows(row) if row is not None else self.centers[0]

        def look(block: slice) -> None:
            self.bounds[block] = squared_norms(self.points.rows(block) - center)

        self.map_blocks(look, self.points.blocks)
        self.stamps[:] = 1
        for group, quota in self.quota_left.items():
            if quota <= 0:
                self._retire(group)
        if row is not None:
            self.pick(row, np.inf)

    def _rows_with_quota(self) -> np.ndarray:
        assert self.groups is not None
        with_quota = [group for group, quota in self.quota_left.items() if quota > 0]
        return np.flatnonzero(np.isin(self.groups, with_quota))

    def pick_round(self) -> bool:
        """Refresh the rows with the largest bounds and pick among them; False when no row has a distance above 0."""
        while True:
            largest = float(self.bounds.max())
            if largest <= 0:
                return False
            threshold = self._threshold(largest)
            pool = self.refresh(np.flatnonzero(self.bounds > threshold), threshold)
            if len(pool):
                self._pick_in_pool(pool, threshold)
                return True

    def _threshold(self, largest: float) -> float:
        """A value below `largest` that about CANDIDATES_PER_ROUND bounds exceed, from an evenly spaced sample."""
        rows = len(self.bounds)
        sample = self.bounds[self.picked % max(1, rows // 16384) :: max(1, rows // 16384)]
        above = min(len(sample) - 1, len(sample) * CANDIDATES_PER_ROUND // rows)
        value = float(np.partition(sample, len(sample) - 1 - above)[len(sample) - 1 - above])
        return max(0.0, min(value, largest * (1 - 1e-9)))

    def refresh(self, candidates: np.ndarray, threshold: float) -> np.ndarray:
        """Compare rows with the centers that they have not seen; the ones still above the threshold, ascending.

        A row is left as soon as its bound falls to the threshold: its stamp says how far it got.
        """
        candidates = candidates[np.argsort(self.stamps[candidates], kind="stable")]
        starts = range(0, len(candidates), ROWS_PER_PRODUCT)
        alive = self.map_blocks(
            lambda start: self._refresh_block(candidates[start : start + ROWS_PER_PRODUCT], threshold), starts
        )
        result: np.ndarray = np.sort(np.concatenate(alive)) if alive else candidates
        return result

    def _refresh_block(self, rows: np.ndarray, threshold: float) -> np.ndarray:
        exact = self.points.rows(rows)
        filter_rows = np.ones((len(rows), self.points.dim + 1), np.float32)
        filter_rows[:, :-1] = exact
        squares = self.points.squared_norms[rows]
        bounds = self.bounds[rows]
        start = int(self.stamps[rows].min())
        while start < self.count and len(rows):
            stop = min(self.count, start + CENTERS_PER_PRODUCT)
            self._compare(exact, filter_rows, squares, bounds, start, stop)
            alive = bounds > threshold
            if stop < self.count and np.count_nonzero(alive) < 0.75 * len(rows):
                self.bounds[rows] = bounds
                self.stamps[rows] = stop
                rows, exact, filter_rows, squares = rows[alive], exact[alive], filter_rows[alive], squares[alive]
                bounds = bounds[alive]
            start = stop
        self.bounds[rows] = bounds
        self.stamps[rows] = self.count
        result: np.ndarray = rows[bounds > threshold]
        return result

    def _compare(
        self,
        exact: np.ndarray,
        filter_rows: np.ndarray,
        squares: np.ndarray,
        bounds: np.ndarray,
        start: int,
        stop: int,
    ) -> None:
        """Lower `bounds` in place to the squared distances to centers [start, stop) where those are smaller.

        |x - c|^2 = |x|^2 + (x, 1) . (-2c, |c|^2). In float32 the product of dim + 1 terms is off by at most
        (dim + 1) u (2|x||c| + |c|^2) with u = 2^-24 (Higham 2002, section 3.1), rounding the factors adds 2u of the
        same; 2|x||c| <= |x|^2 + |c|^2 gives the margin (dim + 16) u (|x|^2 + 2|c|^2).
        """
        columns, squares_sum = self.filter_columns[start:stop], squares + 2.0 * self.center_squares[start:stop].max()
        margin = (self.points.dim + 16) * 2.0**-24 * squares_sum + 1e-37
        rows, centers = _undecided_pairs(filter_rows @ columns.T, squares, bounds, margin)
        if len(rows) > 4 * PAIRS_PER_STEP:  # near-duplicates: the same filter in float64, for the rows in question
            closer = np.unique(rows)
            product = exact[closer] @ self.centers[start:stop].T
            product *= -2.0
            product += self.center_squares[start:stop]
            margin = (self.points.dim + 16) * 2.0**-53 * squares_sum[closer]
            rows, centers = _undecided_pairs(product, squares[closer], bounds[closer], margin)
            rows = closer[rows]
        for step in range(0, len(rows), PAIRS_PER_STEP):
            row = rows[step : step + PAIRS_PER_STEP]
            difference = exact[row]
            difference -= self.centers[start + centers[step : step + PAIRS_PER_STEP]]
            np.minimum.at(bounds, row, squared_norms(difference))

    def _pick_in_pool(self, pool: np.ndarray, threshold: float) -> None:
        """Pick among refreshed rows while the farthest of them beats everything outside (all at most `threshold`)."""
        first_outside = len(self.points)  # the lowest index outside whose distance equals the threshold
        if len(pool) > self.pool_rows:
            order = np.lexsort((pool, -self.bounds[pool]))
            outside = order[self.pool_rows :]
            threshold = float(self.bounds[pool[outside[0]]])
            first_outside = int(pool[outside][self.bounds[pool[outside]] == threshold].min())
            pool = np.sort(pool[order[: self.pool_rows]])
        else:
            first_outside = -1  # rows at the threshold were left out of the pool: do not pick at it
        points = self.points.rows(pool)
        while self.picked < self.target_size:
            bounds = self.bounds[pool]
            farthest = int(bounds.argmax())
            value = float(bounds[farthest])
            if value < threshold or (value == threshold and int(pool[farthest]) > first_outside) or value <= 0:
                return
            self.pick(int(pool[farthest]), value)
            still_open = self.bounds[pool] >= 0
            fresh = squared_norms(points - points[farthest])
            self.bounds[pool[still_open]] = np.minimum(bounds[still_open], fresh[still_open])
            self.stamps[pool[still_open]] = self.count
            keep = self.bounds[pool] >= threshold
            if np.count_nonzero(keep) < 0.75 * len(pool):
                pool, points = pool[keep], points[keep]
                if not len(pool):
                    return

    def pick_duplicates(self) -> None:
        """Every row left lies on a center: take the lowest indices, as far as quotas allow."""
        while self.picked < self.target_size:
            left = np.flatnonzero(self.bounds >= 0)
            if self.groups is None:
                for row in left[: self.target_size - self.picked]:
                    self.pick(int(row), 0.0)
            else:
                self.pick(int(left[0]), 0.0)

    # --- result ------------------------------------------------------------------------------------------------

    def result(self) -> CoresetSelection:
        """The selection with its covering radius: one more refresh finds the row that would come next."""
        for rows, bounds in self.retired:
            unselected = ~np.isin(rows, self.indices[: self.picked])
            self.bounds[rows[unselected]] = bounds[unselected]
        radius = 0.0
        while (largest := float(self.bounds.max())) > 0:
            threshold = self._threshold(largest)
            pool = self.refresh(np.flatnonzero(self.bounds > threshold), threshold)
            if len(pool):
                radius = float(np.sqrt(self.bounds[pool].max()))
                break
        distances = np.sqrt(self.pick_squares)
        return CoresetSelection(self.indices, radius / self.points.scale, distances / self.points.scale)


def _undecided_pairs(
    approximate: np.ndarray, squares: np.ndarray, bounds: np.ndarray, margin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, column) whose distance may be the row's smallest and below its bound.

    `approximate` (rows, columns) plus `squares` (rows,) is a squared distance, known to within `margin` (rows,).
    """
    lowest = approximate.min(axis=1) + squares
    closer = np.flatnonzero(lowest - margin < bounds)
    if not len(closer):
        return closer, closer
    limit = np.minimum(bounds[closer], lowest[closer] + margin[closer]) + margin[closer] - squares[closer]
    limit = np.nextafter(limit.astype(approximate.dtype), approximate.dtype.type(np.inf))
    rows, columns = np.nonzero(approximate[closer] <= limit[:, None])
    return closer[rows], columns
