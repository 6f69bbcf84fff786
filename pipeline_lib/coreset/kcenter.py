"""Exact greedy k-center selection (farthest first), lazy and blocked.

Gonzalez 1985, "Clustering to minimize the maximum intercluster distance" (a 2-approximation); Sener & Savarese 2018,
"Active learning for CNNs: a core-set approach"; Roth et al. 2022 (PatchCore), algorithm 1.

The distance of a row to the selected set only falls, so the last one computed is an upper bound, and only rows with
the largest bounds need a look before the next pick. A round therefore takes the rows above a threshold, compares them
with the centers chosen since their last look (a matrix product), and picks among those still above the threshold
until none is left; everything outside is known to lie below.

Most rows of a round are shown to lie near a center by a guess: the nearest by short forms, to which the distance is
measured (pipeline_lib.coreset.upper_bounds). Of the others, matrix products in float32 rule out pairs with rigorous
error margins, and what they leave is computed by direct differences in float64. So every distance that decides is
exact to about 1e-15 and every pick is the true farthest row, for near-duplicates, large offsets and any number of
threads alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline_lib.coreset.center_distances import CenterDistances, RowBlock
from pipeline_lib.coreset.centered import CenteredFeatures
from pipeline_lib.coreset.quotas import GroupQuotas
from pipeline_lib.coreset.selection import CoresetSelection, Progress, check_centers, check_features
from pipeline_lib.coreset.upper_bounds import UpperBounds
from pipeline_lib.neighbors.block_threads import Mapper, block_mapper
from pipeline_lib.neighbors.short_forms import squared_norms

CANDIDATES_PER_ROUND = 8192  # at most; fewer of few rows
ROWS_PER_PRODUCT = 512
CENTERS_PER_PRODUCT = 512
POOL_BYTES = 32 << 20
POOL_ROWS = 1024
PICKS_PER_LOOK = 4  # at which rows of the pool have fallen to the threshold
FARTHER = 2.0**102  # than any two rows or centers, scaled and squared
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
    scratch: Path | None = None,
) -> CoresetSelection:
    """Choose `target_size` rows of `features` (rows, dim) by exact greedy k-center.

    The start row is drawn from `rng` and is `indices[0]`; each further pick is the row farthest from all picks, the
    lowest index among equals. When only duplicates of selected rows are left, the lowest indices follow.

    `initial_centers` (centers, dim) are already covered places: selection goes on from them, without a random start,
    and `covering_radius` counts them. With `groups` (integers, (rows,)) and `group_quotas` at most that many rows of
    each group are picked (a group without a quota gives none): the farthest row among the groups with quota left.

    Working memory: `features` are not copied, and may be float16 or memory-mapped. Their short forms take at most half
    of a float32 copy and 4 bytes a row (65 values a row at most); bounds take 32 bytes a row; the selected rows and
    `initial_centers` 12 bytes a value (16 for float64); blocks about 40 MB, and 10 MB a
    thread. With the directory `scratch` short forms of more than 64 MiB are a file there (see
    pipeline_lib.storage.scratch).

    Raises FedpatchError for values that are not finite, a size out of range, or quotas that do not reach it.
    """
    check_features(features, target_size)
    given = check_centers(initial_centers, features.shape[1])
    quotas = GroupQuotas(groups, group_quotas, rows=len(features), target_size=target_size)
    with block_mapper(threads) as map_blocks:
        state = _LazyFarthestFirst(features, target_size, given, quotas, rng, map_blocks, scratch)
        while state.picked < target_size:
            if not state.pick_round():
                state.pick_duplicates()
            if progress is not None:
                progress(state.picked, target_size)
        return state.result()


class _LazyFarthestFirst:
    """Bounds and stamps of one selection; bounds are squared and in the scaled coordinates."""

    def __init__(
        self,
        features: np.ndarray,
        target_size: int,
        given: np.ndarray,
        quotas: GroupQuotas,
        rng: np.random.Generator,
        map_blocks: Mapper,
        scratch: Path | None,
    ) -> None:
        """Bounds of all rows from the first center alone: a row drawn evenly, unless centers were given."""
        start = None if len(given) else quotas.draw(rng)
        first = given[0] if start is None else features[start]
        self.points = CenteredFeatures(features, first, map_blocks, scratch=scratch)
        capacity = len(given) + target_size
        self.centers = CenterDistances(self.points, capacity, np.result_type(features, given))
        self.quotas = quotas
        self.map_blocks = map_blocks
        self.target_size = target_size
        self.indices = np.empty(target_size, np.int64)
        self.pick_squares = np.empty(target_size)
        self.picked = 0
        self.bounds = np.full(len(features), FARTHER)  # squared distance to the nearest of the centers before `stamps`
        self.stamps = np.zeros(len(features), np.int32)  # number of centers that the row was compared with
        self.upper = UpperBounds(self.centers, self.points.first_squares)
        self.pool_rows = int(np.clip(POOL_BYTES // (8 * features.shape[1]), 64, POOL_ROWS))
        self.centers.add(given)
        self._close(quotas.close_empty(self.bounds))
        if start is not None:
            self._pick(start, np.inf)
            self._close_group_if_full(start)
            self._add_picks(0)

    def _pick(self, row: int, squared_distance: float) -> None:
        """Take a row; `_add_picks` must follow before the next refresh."""
        self.indices[self.picked] = row
        self.pick_squares[self.picked] = squared_distance
        self.picked += 1
        self._close(row)

    def _add_picks(self, first: int) -> None:
        """Make the picks from number `first` on centers of later comparisons."""
        self.centers.add(self.points.features[self.indices[first : self.picked]])

    def _close(self, rows: np.ndarray | int) -> None:
        self.bounds[rows] = self.upper.values[rows] = SELECTED

    def _store(self, rows: np.ndarray, bounds: np.ndarray, stamp: int) -> None:
        """Squared distances of rows to the nearest of the first `stamp` centers."""
        self.bounds[rows], self.stamps[rows] = bounds, stamp
        self.upper.store(rows, bounds, stamp)

    def _close_group_if_full(self, row: int) -> bool:
        """Count a pick against its group's quota; when that is used up, the group's other rows are closed."""
        full = self.quotas.use(row)
        if full:
            self._close(self.quotas.close(row, self.bounds))
        return full

    # --- rounds ------------------------------------------------------------------------------------------------

    def pick_round(self) -> bool:
        """Refresh the rows with the largest bounds and pick among them; False when no distance is above 0."""
        pool, threshold = self._farthest()
        if len(pool):
            before = self.picked
            self._pick_in_pool(pool, threshold)
            self._add_picks(before)
        return len(pool) > 0

    def _farthest(self) -> tuple[np.ndarray, float]:
        """Refreshed rows, ascending, and a threshold that they exceed and no other row does; none if all are 0."""
        while (largest := float(self.upper.values.max())) > 0:
            threshold = self._threshold(self.upper.values, largest)
            pool = self._refresh(self.upper.above(threshold, self.map_blocks), threshold)
            if len(pool):
                return pool, threshold
        return np.empty(0, np.int64), 0.0

    def _threshold(self, bounds: np.ndarray, largest: float) -> float:
        """A value below `largest` that about as many bounds exceed as a round takes, from an evenly spaced sample."""
        rows = len(bounds)
        step = max(1, rows // 16384)
        sample = bounds[self.picked % step :: step]
        candidates = min(CANDIDATES_PER_ROUND, max(1024, rows // 24))
        rank = max(0, len(sample) - 1 - len(sample) * candidates // rows)
        return max(0.0, min(float(np.partition(sample, rank)[rank]), largest * (1 - 1e-9)))

    def _refresh(self, candidates: np.ndarray, threshold: float) -> np.ndarray:
        """Compare rows with the centers that they have not seen; the ones still above the threshold, ascending.

        A row is left as soon as its bound falls to the threshold: its stamp says how far it got.
        """
        candidates = candidates[np.argsort(self.stamps[candidates], kind="stable")]
        rows = min(ROWS_PER_PRODUCT, max(64, -(-len(candidates) // 8)))
        blocks = [candidates[start : start + rows] for start in range(0, len(candidates), rows)]
        alive = self.map_blocks(lambda block: self._refresh_block(block, threshold), blocks)
        return np.sort(np.concatenate(alive)) if alive else candidates

    def _refresh_block(self, rows: np.ndarray, threshold: float) -> np.ndarray:
        block, count = RowBlock(self.points, rows, self.bounds[rows], self.upper.values[rows]), self.centers.count
        start = int(self.stamps[rows[0]])  # candidates come with their stamps ascending
        while start < count and len(block.rows):
            stop = min(count, start + CENTERS_PER_PRODUCT)
            self.centers.lower_bounds(block, start, stop)
            alive = block.bounds > threshold
            if stop < count and np.count_nonzero(alive) < 0.75 * len(alive):
                self._store(block.rows, block.bounds, stop)
                block.keep(alive)
            start = stop
        self._store(block.rows, block.bounds, count)
        result: np.ndarray = block.rows[block.bounds > threshold]
        return result

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
        at_least = self.centers.lower_bounds_among(pool)
        square_of_scale = self.points.scale**2
        seen = self.centers.count  # centers that the pool was compared with
        while self.picked < self.target_size:
            farthest = int(bounds.argmax())
            value, row = float(bounds[farthest]), int(pool[farthest])
            if value < threshold or (value == threshold and row > first_outside) or value <= 0:
                break
            self._pick(row, value)
            seen += 1
            near = np.flatnonzero(at_least[farthest] < bounds)
            fresh = squared_norms(points[near] - points[farthest]) * square_of_scale
            bounds[near] = np.minimum(bounds[near], fresh)
            bounds[farthest] = SELECTED
            if self.quotas.limited:
                self._store(pool, bounds, seen)
                if self._close_group_if_full(row):
                    bounds = self.bounds[pool]
            elif seen % PICKS_PER_LOOK:
                continue
            keep = bounds >= threshold
            if np.count_nonzero(keep) < 0.75 * len(pool):
                self._store(pool, bounds, seen)
                pool, points, bounds = pool[keep], points[keep], bounds[keep]
                at_least = at_least[np.ix_(keep, keep)]
                if not len(pool):
                    return
        self._store(pool, bounds, seen)

    def pick_duplicates(self) -> None:
        """Every row left lies on a center: take the lowest indices, as far as quotas allow."""
        before = self.picked
        for row in np.flatnonzero(self.bounds >= 0).tolist():
            if self.picked == self.target_size:
                break
            if self.bounds[row] >= 0:
                self._pick(row, 0.0)
                self._close_group_if_full(row)
        self._add_picks(before)

    # --- result ------------------------------------------------------------------------------------------------

    def result(self) -> CoresetSelection:
        """The selection with its covering radius: the distance of the row that would come next."""
        reopened = self.quotas.reopen(self.bounds)
        self.upper.store(reopened, self.bounds[reopened], self.stamps[reopened])
        pool, _ = self._farthest()
        radius = float(np.sqrt(self.bounds[pool].max(initial=0.0)))
        scale = self.points.scale
        return CoresetSelection(self.indices, radius / scale, np.sqrt(self.pick_squares) / scale)
