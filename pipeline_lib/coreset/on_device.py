"""Exact greedy k-center on a GPU: many picks from one look at the rows, as on the CPU.

Each round takes the rows with the largest upper bounds (distances only fall), compares them with the centers that they
have not seen by products in float32, and measures the farthest, the pool, in float64 where those products cannot rule a
center out. Distances within the pool then say which picks follow: all those that are farther than any row outside may
be. The picks of a round are counted out on the host, so that it waits for the GPU a few times a round, not at every
pick. Distances that decide are direct differences in float64, so that the picks are those of the CPU but for ties
within rounding (1e-15).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.selection import (
    CoresetSelection,
    Progress,
    check_centers,
    check_features,
    refuse_non_finite,
)
from pipeline_lib.neighbors import on_device
from pipeline_lib.neighbors.bfloat16_products import underflow
from pipeline_lib.neighbors.on_device import DeviceRows, pair_squares, product, squared_differences
from pipeline_lib.when_needed import torch

CANDIDATES = 8192  # of a round, at least; a share of many rows
CANDIDATE_SHARE = 8
POOL_ROWS = 512  # at most; fewer of few rows
CENTERS_PER_PRODUCT = 512
LAST_ROUNDS = 8
MANY_PAIRS = 16  # a row; if more are left by a product in float32, one in float64 follows
SELECTED = -1.0  # in place of a bound
logger = logging.getLogger(__name__)


def kcenter_selection(
    features: np.ndarray,
    target_size: int,
    *,
    device: torch.device | None,
    rng: np.random.Generator,
    initial_centers: np.ndarray | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
) -> CoresetSelection:
    """`greedy_coreset_selection`, on the GPU where `device` is one; on the CPU where its memory runs out."""
    if device is not None and device.type == "cuda":
        state = rng.bit_generator.state
        try:
            return select_on_device(
                features, target_size, device=device, rng=rng, initial_centers=initial_centers, progress=progress
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            rng.bit_generator.state = state
            logger.warning("out of GPU memory selecting from %d rows, going on with the CPU", len(features))
    return greedy_coreset_selection(
        features, target_size, rng=rng, initial_centers=initial_centers, progress=progress, scratch=scratch
    )


def select_on_device(
    features: np.ndarray,
    target_size: int,
    *,
    device: torch.device,
    rng: np.random.Generator,
    initial_centers: np.ndarray | None = None,
    progress: Progress | None = None,
) -> CoresetSelection:
    """As `greedy_coreset_selection` without quotas, on `device`.

    Rows stay in the host's memory where they do not fit, and those of a round are copied. Memory there: 24 bytes a row,
    8 or 12 bytes a value of the selected rows and `initial_centers`, blocks of about 1 GB.
    Raises also torch.OutOfMemoryError where that does not fit.
    """
    check_features(features, target_size)
    given = check_centers(initial_centers, features.shape[1])
    with torch.inference_mode():
        state = _FarthestFirst(features, target_size, given, device, rng)
        while state.picked < target_size:
            if not state.pick_round():
                state.pick_duplicates()
            if progress is not None:
                progress(state.picked, target_size)
        return state.result()


class _Pool(NamedTuple):
    """The farthest rows, in order of their numbers; squared distances in scaled coordinates."""

    rows: torch.Tensor
    values: torch.Tensor  # the rows as they came
    squares: torch.Tensor  # float64: exactly to the nearest center
    threshold: torch.Tensor  # float64, a scalar: no row outside is farther
    first_outside: torch.Tensor  # the lowest row outside whose bound is the threshold, or -1


class _FarthestFirst:
    def __init__(
        self,
        features: np.ndarray,
        target_size: int,
        given: np.ndarray,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        start = None if len(given) else int(rng.integers(len(features)))
        first = given[0] if start is None else features[start]
        try:
            self.rows = DeviceRows(features, device)
        except OverflowError:
            refuse_non_finite(features)
            raise FedpatchError(
                "features are too large: the squares of their distances overflow; rescale them"
            ) from None
        self.dim, self.device = features.shape[1], device
        self.dtype = torch.float32 if on_device.product_is_accurate(device, torch.float32) else torch.float64
        self.indices = np.empty(target_size, np.int64)
        self.pick_squares = np.empty(target_size)
        self.picked = 0
        self.pool_rows = min(POOL_ROWS, max(64, len(features) // 32))
        capacity, dtype = len(given) + target_size, np.result_type(features, given)
        self.centers = torch.empty(
            (capacity, self.dim), dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device
        )
        self.columns = torch.empty((capacity, self.dim), dtype=self.dtype, device=device)  # -2c
        self.center_squares = torch.empty(capacity, dtype=torch.float64, device=device)
        self.count = 0
        self.ends: list[int] = []  # of the chunks of centers that products take, ascending
        self.bounds = self._squares_to(first)  # no less than squared distances to the first `stamps` centers
        self.stamps = torch.ones(len(features), dtype=torch.int64, device=device)
        for part in range(0, len(given), self.rows.step):
            self._add_centers(on_device.on_device(given[part : part + self.rows.step], device))
        if len(given) and not float(on_device.to_host(self.center_squares[: self.count].max())[0]) < 2.0**100:
            raise FedpatchError("initial_centers lie too far from the features to be compared; rescale both")
        if start is not None:
            self._pick(np.array([start]), np.array([np.inf]))
            self.bounds[start] = SELECTED
            self._add_centers(self.rows.take(torch.tensor([start], device=device)))

    def _squares_to(self, first: np.ndarray) -> torch.Tensor:
        center = torch.from_numpy(first.astype(np.float64)).to(self.device)
        parts = [squared_differences(self.rows.block(part).double(), center) for part in self.rows.blocks()]
        return torch.cat(parts) * self.rows.scale**2

    def _add_centers(self, values: torch.Tensor) -> None:
        part = slice(self.count, self.count + len(values))
        centered = self.rows.scaled(values)
        self.centers[part] = values
        self.columns[part] = -2.0 * centered
        self.center_squares[part] = centered.square().sum(dim=1)
        self.ends += [*range(self.count + CENTERS_PER_PRODUCT, part.stop, CENTERS_PER_PRODUCT), part.stop]
        self.count = part.stop
        older = -LAST_ROUNDS - 1  # most rows have seen all but the last rounds' centers, of which none is taken in vain
        if len(self.ends) > -older and self.ends[older + 1] - self.ends[older - 1] <= CENTERS_PER_PRODUCT:
            del self.ends[older]

    def _pick(self, rows: np.ndarray, squares: np.ndarray) -> None:
        part = slice(self.picked, self.picked + len(rows))
        self.indices[part], self.pick_squares[part] = rows, squares
        self.picked += len(rows)

    # --- rounds ------------------------------------------------------------------------------------------------

    def pick_round(self) -> bool:
        """Pick from a pool of the farthest rows what can be; False when no distance is above 0."""
        pool = self._farthest()
        rows, known, threshold, outside, *pairs = on_device.to_host(
            pool.rows, pool.squares, pool.threshold, pool.first_outside, *self._pairs_within(pool)
        )
        if known.max() <= 0 and threshold <= 0:
            return False
        bounds = known.copy()
        picks = _picks(rows, bounds, pairs, float(threshold), int(outside), self.target_size - self.picked)
        fallen = (bounds == 0) & (known > 0)  # below the threshold, how far was not asked
        bounds[fallen] = np.minimum(known[fallen], threshold)
        self.bounds[pool.rows] = torch.from_numpy(bounds).to(self.device)
        if picks:
            positions = np.array([pick for pick, _ in picks])
            self._pick(rows[positions], np.array([square for _, square in picks]))
            self._add_centers(pool.values[torch.from_numpy(positions).to(self.device)])
        return True

    @property
    def target_size(self) -> int:
        return len(self.indices)

    def _farthest(self) -> _Pool:
        """The rows with the largest bounds once more of them have been compared with all centers."""
        order = self.bounds.sort(descending=True, stable=True).indices
        count = min(len(order), max(CANDIDATES, len(order) // CANDIDATE_SHARE))
        candidates = order[:count].sort().values
        self._refresh(candidates)
        again = candidates[self.bounds[candidates].sort(descending=True, stable=True).indices]
        rows = again[: self.pool_rows].sort().values
        outside = torch.cat([order[count : count + 1], again[self.pool_rows : self.pool_rows + 1]])
        limits = torch.cat([self.bounds[outside], torch.zeros(1, dtype=torch.float64, device=self.device)])
        threshold = limits.max()
        first = torch.where(limits[:-1] == threshold, outside, len(order)).amin() if len(outside) else order[-1]
        values = self.rows.take(rows)
        squares = torch.minimum(self.bounds[rows], self._exact_squares(rows, values))
        self.bounds[rows] = squares
        return _Pool(rows, values, squares, threshold, first)

    def _refresh(self, rows: torch.Tensor) -> None:
        """Lower the bounds of rows by products with the centers that they have not seen."""
        stamps, order = self.stamps[rows].sort(stable=True)
        rows = rows[order]
        counts = on_device.to_host(torch.searchsorted(stamps, torch.tensor(self.ends, device=self.device)))[0].tolist()
        unit = on_device.product_unit(self.dim, self.dtype)
        raised = (self.center_squares[: self.count] * (1 + unit)).to(self.dtype)
        for start in range(0, counts[-1], self.rows.step):
            block = rows[start : min(start + self.rows.step, counts[-1])]
            forms = self.rows.scaled(self.rows.take(block)).to(self.dtype)
            lowest = torch.full((len(block),), torch.inf, dtype=self.dtype, device=self.device)
            for first, end, count in zip([0, *self.ends[:-1]], self.ends, counts, strict=True):
                if (unseen := min(count - start, len(block))) <= 0:
                    continue
                part = slice(first, end)
                products = product(forms[:unseen], self.columns[part])
                products += raised[part]
                torch.minimum(lowest[:unseen], products.amin(dim=1), out=lowest[:unseen])
            bounds = lowest.double() + self.rows.squares[block] * (1 + unit) + underflow(self.dim)
            self.bounds[block] = torch.minimum(self.bounds[block], bounds)
        self.stamps[rows] = self.count

    def _exact_squares(self, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """float64 (rows,): to the nearest center, of rows whose bounds are above that."""
        result = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=self.device)
        step = max(1, on_device.BLOCK_BYTES // (8 * len(rows)))
        for start in range(0, self.count, step):
            part = slice(start, min(start + step, self.count))
            near, centers = self._undecided(rows, values, part, self.dtype)
            if len(near) > MANY_PAIRS * len(rows):  # near-duplicates
                near, centers = self._undecided(rows, values, part, torch.float64)
            squares = pair_squares(values.__getitem__, near, self.centers.__getitem__, centers + start, self.dim)
            result.scatter_reduce_(0, near, squares * self.rows.scale**2, "amin")
        return result

    def _undecided(
        self, rows: torch.Tensor, values: torch.Tensor, part: slice, dtype: torch.dtype
    ) -> tuple[torch.Tensor, ...]:
        """Pairs (number of the row, number of the center in `part`) that may be no farther than the row's bound."""
        unit = on_device.product_unit(self.dim, dtype)
        columns = self.columns[part]
        if dtype != self.dtype:
            columns = -2.0 * self.rows.scaled(self.centers[part])
        products = product(self.rows.scaled(values).to(dtype), columns)
        products += (self.center_squares[part] * (1 - unit)).to(dtype)
        limits = self.bounds[rows] - self.rows.squares[rows] * (1 - unit) + underflow(self.dim)
        return torch.nonzero(products <= on_device.upwards(limits, dtype)[:, None], as_tuple=True)

    def _pairs_within(self, pool: _Pool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a pick does to the others: pairs in order of the pick, as (starts, others, squared distances).

        Pairs that are farther apart than the other is from its center are left out; of those that are certainly nearer
        than the threshold is said 0, since the other then is no pick of this round.
        """
        picks, others, below = self._near_within(pool, self.dtype)
        asked = torch.nonzero(~below)[:, 0]
        if len(asked) > MANY_PAIRS * len(pool.rows):  # near-duplicates
            picks, others, below = self._near_within(pool, torch.float64)
            asked = torch.nonzero(~below)[:, 0]
        squares = torch.zeros(len(picks), dtype=torch.float64, device=self.device)
        take = pool.values.__getitem__
        squares[asked] = pair_squares(take, picks[asked], take, others[asked], self.dim) * self.rows.scale**2
        starts = torch.searchsorted(picks.contiguous(), torch.arange(len(pool.rows) + 1, device=self.device))
        return starts, others, squares

    def _near_within(self, pool: _Pool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        unit = on_device.product_unit(self.dim, dtype)
        forms, norms = self.rows.scaled(pool.values).to(dtype), self.rows.squares[pool.rows]
        sums = norms[:, None] + norms
        distances = product(forms, -2.0 * forms).double() + sums
        margins = sums * unit + underflow(self.dim)
        picks, others = torch.nonzero(distances - margins < pool.squares, as_tuple=True)
        return picks, others, (distances + margins < pool.threshold)[picks, others]

    def pick_duplicates(self) -> None:
        """Every row left lies on a center: take the lowest."""
        (left,) = on_device.to_host(torch.nonzero(self.bounds >= 0)[: self.target_size - self.picked, 0])
        self._pick(left, np.zeros(len(left)))
        self.bounds.fill_(SELECTED)

    def result(self) -> CoresetSelection:
        """The selection with its covering radius: the distance of the row that would come next."""
        while True:
            pool = self._farthest()
            square, threshold = (
                float(value) for value in on_device.to_host(pool.squares.max().clamp(min=0), pool.threshold)
            )
            if square >= threshold:
                break
        scale = self.rows.scale
        radius = float(np.sqrt(square)) / scale
        return CoresetSelection(self.indices, radius, np.sqrt(self.pick_squares) / scale)


def _picks(
    rows: np.ndarray, bounds: np.ndarray, pairs: list[np.ndarray], threshold: float, first_outside: int, most: int
) -> list[tuple[int, float]]:
    """Picks as (position in `rows`, squared distance), while they are farther than what is outside; lowers `bounds`."""
    starts, others, squares = pairs
    result: list[tuple[int, float]] = []
    while len(result) < most:
        farthest = int(bounds.argmax())
        square = float(bounds[farthest])
        if square < threshold or (square == threshold and rows[farthest] > first_outside) or square <= 0:
            break
        result.append((farthest, square))
        part = slice(starts[farthest], starts[farthest + 1])
        near = others[part]
        bounds[near] = np.minimum(bounds[near], squares[part])
        bounds[farthest] = SELECTED
    return result
