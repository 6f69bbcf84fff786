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
from pipeline_lib.block_threads import Mapper, block_mapper
from pipeline_lib.coreset.centered import CenteredFeatures, squared_norms
from pipeline_lib.coreset.quotas import GroupQuotas
from pipeline_lib.coreset.selection import CoresetSelection, Progress, check_features

CANDIDATES_PER_ROUND = 8192
ROWS_PER_PRODUCT = 1024
CENTERS_PER_PRODUCT = 128
PAIRS_PER_STEP = 2048
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

    Working memory: 20 bytes a row, 8 bytes a value of the selected rows and of `initial_centers` (16 for float64),
    and a few blocks (about 40 MB, and 10 MB a thread); `features` are not copied, and may be float16 or memory-mapped.

    Raises FedpatchError for values that are not finite, a size out of range, or quotas that do not reach it.
    """
    check_features(features, target_size)
    quotas = GroupQuotas(groups, group_quotas, rows=len(features), target_size=target_size)
    with block_mapper(threads) as map_blocks:
        state = _LazyFarthestFirst(features, target_size, initial_centers, quotas, map_blocks)
        state.start(rng)
        while state.picked < target_size:
            if not state.pick_round():
                state.pick_duplicates()
            if progress is not None:
                progress(state.picked, target_size)
        return state.result()


class _LazyFarthestFirst:
    """Bounds, stamps and centers of one selection; bounds are squared and in the scaled coordinates."""

    def __init__(
        self,
        features: np.ndarray,
        target_size: int,
        initial_centers: np.ndarray | None,
        quotas: GroupQuotas,
        map_blocks: Mapper,
    ) -> None:
        rows, dim = features.shape
        given = np.empty((0, dim), np.float32) if initial_centers is None else initial_centers
        if given.ndim != 2 or given.shape[1] != dim:
            raise FedpatchError(f"initial_centers have shape {given.shape}; features have {dim} dimensions")
        if not np.isfinite(given).all():
            raise FedpatchError("initial_centers hold NaN or infinity; they must be finite")
        self.points = CenteredFeatures(features)
        self.quotas = quotas
        self.map_blocks = map_blocks
        self.target_size = target_size
        self.given = len(given)
        self.indices = np.empty(target_size, np.int64)
        self.pick_squares = np.empty(target_size)
        self.picked = 0
        self.centers = np.empty((len(given) + target_size, dim), np.result_type(features, given))
        self.centers[: len(given)] = given
        self.center_columns = np.empty((len(given) + target_size, dim + 1), np.float32)  # (-2c, |c|^2)
        self.center_squares = np.empty(len(given) + target_size)
        self.bounds = np.empty(rows)  # squared distance to the nearest of the centers before `stamps`
        self.stamps = np.ones(rows, np.int32)  # number of centers that the row was compared with
        self.pool_rows = int(np.clip(POOL_BYTES // (8 * dim), 64, 8192))

    @property
    def count(self) -> int:
        """Centers so far."""
        return self.given + self.picked

    # --- start -------------------------------------------------------------------------------------------------

    def start(self, rng: np.random.Generator) -> None:
        """Bounds of all rows from the first center alone: a row drawn evenly, unless centers were given."""
        row = None if self.given else self.quotas.draw(rng)
        center = self.centers[0].astype(np.float64) if row is None else self.points.raw(row)

        def look(start: int) -> None:
            block = slice(start, start + ROWS_PER_PRODUCT)
            rows = self.points.measure(block)
            rows -= center
            with np.errstate(over="ignore", invalid="ignore"):
                self.bounds[block] = squared_norms(rows)

        self.map_blocks(look, range(0, len(self.points), ROWS_PER_PRODUCT))
        given_squares = squared_norms(self.centers[: self.given].astype(np.float64) - self.points.center)
        self.points.set_scale(float(given_squares.max(initial=0.0)))
        self.bounds *= self.points.scale**2
        self._prepare_centers(0, self.given)
        self._mark(self.quotas.close_empty(self.bounds))
        if row is not None:
            self._pick(row, np.inf)
            self._prepare_centers(0, 1)
            if self.quotas.use(row):
                self._mark(self.quotas.close(row, self.bounds))

    def _pick(self, row: int, squared_distance: float) -> None:
        """Take a row. `_prepare_centers` must follow before the next comparison."""
        self.indices[self.picked] = row
        self.pick_squares[self.picked] = squared_distance
        self.picked += 1
        self.bounds[row] = SELECTED

    def _prepare_centers(self, first: int, last: int) -> None:
        """What comparisons need of the centers [first, last)."""
        if first >= self.given:
            rows = self.indices[first - self.given : last - self.given]
            self.centers[first:last] = self.points.features[rows]
        centered = self.points.centered(self.centers[first:last])
        squares = squared_norms(centered.astype(np.float64))
        self.center_columns[first:last, :-1] = -2.0 * centered
        self.center_columns[first:last, -1] = squares
        self.center_squares[first:last] = squares

    def _mark(self, rows: np.ndarray) -> None:
        self.bounds[rows] = SELECTED

    # --- rounds ------------------------------------------------------------------------------------------------

    def pick_round(self) -> bool:
        """Refresh the rows with the largest bounds and pick among them; False when no distance is above 0."""
        pool, threshold = self._farthest()
        if len(pool):
            before = self.count
            self._pick_in_pool(pool, threshold)
            self._prepare_centers(before, self.count)
        return len(pool) > 0

    def _farthest(self) -> tuple[np.ndarray, float]:
        """Refreshed rows, ascending, and a threshold that they exceed and no other row does; none if all are 0."""
        while (largest := float(self.bounds.max())) > 0:
            threshold = self._threshold(largest)
            pool = self._refresh(np.flatnonzero(self.bounds > threshold), threshold)
            if len(pool):
                return pool, threshold
        return np.empty(0, np.int64), 0.0

    def _threshold(self, largest: float) -> float:
        """A value below `largest` that about CANDIDATES_PER_ROUND bounds exceed, from an evenly spaced sample."""
        rows = len(self.bounds)
        step = max(1, rows // 16384)
        sample = self.bounds[self.picked % step :: step]
        rank = max(0, len(sample) - 1 - len(sample) * CANDIDATES_PER_ROUND // rows)
        return max(0.0, min(float(np.partition(sample, rank)[rank]), largest * (1 - 1e-9)))

    def _refresh(self, candidates: np.ndarray, threshold: float) -> np.ndarray:
        """Compare rows with the centers that they have not seen; the ones still above the threshold, ascending.

        A row is left as soon as its bound falls to the threshold: its stamp says how far it got.
        """
        candidates = candidates[np.argsort(self.stamps[candidates], kind="stable")]
        starts = range(0, len(candidates), ROWS_PER_PRODUCT)
        alive = self.map_blocks(
            lambda start: self._refresh_block(candidates[start : start + ROWS_PER_PRODUCT], threshold), starts
        )
        return np.sort(np.concatenate(alive)) if alive else candidates

    def _refresh_block(self, rows: np.ndarray, threshold: float) -> np.ndarray:
        columns, squares, bounds = self.points.columns(rows), self.points.squared_norms[rows], self.bounds[rows]
        start = int(self.stamps[rows[0]])  # candidates come with their stamps ascending
        while start < self.count and len(rows):
            stop = min(self.count, start + CENTERS_PER_PRODUCT)
            self._compare(rows, columns, squares, bounds, start, stop)
            alive = bounds > threshold
            if stop < self.count and np.count_nonzero(alive) < 0.75 * len(rows):
                self.bounds[rows] = bounds
                self.stamps[rows] = stop
                rows, columns, squares, bounds = rows[alive], columns[alive], squares[alive], bounds[alive]
            start = stop
        self.bounds[rows] = bounds
        self.stamps[rows] = self.count
        result: np.ndarray = rows[bounds > threshold]
        return result

    def _compare(
        self, rows: np.ndarray, columns: np.ndarray, squares: np.ndarray, bounds: np.ndarray, start: int, stop: int
    ) -> None:
        """Lower `bounds` in place to the squared distances to centers [start, stop) where those are smaller.

        |x - c|^2 = |x|^2 + (x, 1) . (-2c, |c|^2). In float32 the product of dim + 1 terms is off by at most
        (dim + 1) u (2|x||c| + |c|^2) with u = 2^-24 (Higham 2002, section 3.1), and rounding the factors adds 2u of
        the same; 2|x||c| <= |x|^2 + |c|^2 gives the margin (dim + 16) u (|x|^2 + 2|c|^2).
        """
        norms = squares + 2.0 * self.center_squares[start:stop].max()
        terms = self.points.dim + 16
        product = self.center_columns[start:stop] @ columns.T
        close, centers = _undecided_pairs(product, squares, bounds, terms * 2.0**-24 * norms + 1e-37)
        if len(close) > 4 * PAIRS_PER_STEP:  # near-duplicates: the same filter in float64 for the rows in question
            near = np.unique(close)
            product = self._product64(rows[near], start, stop)
            close, centers = _undecided_pairs(
                product, squares[near], bounds[near], terms * 2.0**-53 * norms[near] + 1e-290
            )
            close = near[close]
        square_of_scale = self.points.scale**2
        for step in range(0, len(close), PAIRS_PER_STEP):
            some = close[step : step + PAIRS_PER_STEP]
            difference = self.points.raw(rows[some])
            difference -= self.centers[start + centers[step : step + PAIRS_PER_STEP]]
            np.minimum.at(bounds, some, squared_norms(difference) * square_of_scale)

    def _product64(self, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
        """|c|^2 - 2 c . x in float64, (centers, rows)."""
        points, scale = self.points, self.points.scale
        centers = (self.centers[start:stop] - points.center) * scale
        product: np.ndarray = centers @ ((points.raw(rows) - points.center) * scale).T
        product *= -2.0
        product += squared_norms(centers)[:, None]
        return product

    def _pick_in_pool(self, pool: np.ndarray, threshold: float) -> None:
        """Pick among refreshed rows while the farthest of them beats everything outside (all at most `threshold`)."""
        first_outside = -1  # lowest row outside the pool that equals the threshold; -1: not known
        if len(pool) > self.pool_rows:
            order = np.lexsort((pool, -self.bounds[pool]))
            outside = pool[order[self.pool_rows :]]
            threshold = float(self.bounds[outside[0]])
            first_outside = int(outside[0])
            pool = np.sort(pool[order[: self.pool_rows]])
        points, bounds = self.points.raw(pool), self.bounds[pool]
        square_of_scale = self.points.scale**2
        while self.picked < self.target_size:
            farthest = int(bounds.argmax())
            value, row = float(bounds[farthest]), int(pool[farthest])
            if value < threshold or (value == threshold and row > first_outside) or value <= 0:
                break
            self._pick(row, value)
            fresh = squared_norms(points - points[farthest])
            fresh *= square_of_scale
            np.minimum(bounds, fresh, out=bounds)
            bounds[farthest] = SELECTED
            keep = bounds >= threshold
            closed = self.quotas.use(row)
            if closed:
                in_group = self.quotas.member(row, pool)
                self.bounds[pool] = bounds
                self.stamps[pool] = self.count
                self._mark(self.quotas.close(row, self.bounds))
                bounds[in_group] = SELECTED
                keep &= ~in_group
            if closed or np.count_nonzero(keep) < 0.75 * len(pool):
                gone = ~keep & (bounds >= 0)
                self.bounds[pool[gone]] = bounds[gone]
                self.stamps[pool[gone]] = self.count
                pool, points, bounds = pool[keep], points[keep], bounds[keep]
                if not len(pool):
                    return
        self.bounds[pool] = bounds
        self.stamps[pool] = self.count

    def pick_duplicates(self) -> None:
        """Every row left lies on a center: take the lowest indices, as far as quotas allow."""
        before = self.count
        for row in np.flatnonzero(self.bounds >= 0):
            if self.picked == self.target_size:
                break
            if self.bounds[row] >= 0:
                self._pick(int(row), 0.0)
                if self.quotas.use(int(row)):
                    self._mark(self.quotas.close(int(row), self.bounds))
        self._prepare_centers(before, self.count)

    # --- result ------------------------------------------------------------------------------------------------

    def result(self) -> CoresetSelection:
        """The selection with its covering radius: the distance of the row that would come next."""
        self.quotas.reopen(self.bounds)
        pool, _ = self._farthest()
        radius = float(np.sqrt(self.bounds[pool].max(initial=0.0)))
        scale = self.points.scale
        return CoresetSelection(self.indices, radius / scale, np.sqrt(self.pick_squares) / scale)


def _undecided_pairs(
    product: np.ndarray, squares: np.ndarray, bounds: np.ndarray, margin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, center) whose distance may be the row's smallest and below its bound.

    `product` (centers, rows) plus `squares` (rows,) is a squared distance, known to within `margin` (rows,).
    """
    lowest = product.min(axis=0) + squares
    closer = np.flatnonzero(lowest - margin < bounds)
    if not len(closer):
        return closer, closer
    limit = np.minimum(bounds[closer], lowest[closer] + margin[closer]) + margin[closer] - squares[closer]
    limit = np.nextafter(limit.astype(product.dtype), product.dtype.type(np.inf))
    centers, rows = np.nonzero(product[:, closer] <= limit)
    return closer[rows], centers
