"""Exact nearest neighbours on a GPU: products in float64 name candidates, direct differences in float64 decide."""

from __future__ import annotations

import numpy as np

from pipeline_lib.when_needed import torch

MORE_CANDIDATES = 8
FLOAT64_UNIT = 2.0**-53
PRODUCT_BYTES = 1 << 30


class DeviceSearch:
    """Rows float32 (rows, dim), finite, on `device` in float64. Raises torch.OutOfMemoryError where they do not fit."""

    def __init__(self, rows: np.ndarray, device: torch.device) -> None:
        self.device = device
        self.rows = torch.from_numpy(rows).to(device).double()
        self.center = self.rows.mean(dim=0)
        self.centered = self.rows - self.center
        self.squares = self.centered.square().sum(dim=1)
        self.largest_square = self.squares.max()

    def search(self, queries: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(distances float32, indices int64), both (queries, kept), nearest first, and which queries are decided.

        A query with more rows as near as rounding can tell than candidates were taken is not decided (bool, False).
        Equal distances: the lowest index first.
        """
        taken = min(len(self.rows), kept + MORE_CANDIDATES)
        distances = np.empty((len(queries), kept), np.float32)
        indices = np.empty((len(queries), kept), np.int64)
        decided = np.empty(len(queries), bool)
        step = max(1, PRODUCT_BYTES // (8 * max(len(self.rows), taken * self.rows.shape[1])))
        with torch.inference_mode():
            for start in range(0, len(queries), step):
                part = slice(start, start + step)
                found = self._search_block(torch.from_numpy(queries[part]).to(self.device).double(), kept, taken)
                distances[part], indices[part], decided[part] = (values.cpu().numpy() for values in found)
        return distances, indices, decided

    def _search_block(
        self, queries: torch.Tensor, kept: int, taken: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        centered = queries - self.center
        squares = centered.square().sum(dim=1)
        product = torch.addmm(self.squares[None], centered, self.centered.T, alpha=-2.0)
        product += squares[:, None]
        reached, candidates = product.topk(taken, dim=1, largest=False)
        candidates = candidates.sort(dim=1).values  # so that a stable sort puts the lowest of equals first
        measured = (self.rows[candidates] - queries[:, None]).square().sum(dim=2)
        measured, order = measured.sort(dim=1, stable=True)
        margin = (self.rows.shape[1] + 16) * FLOAT64_UNIT * 2 * (squares + self.largest_square)
        decided = torch.full((len(queries),), taken == len(self.rows), device=self.device)
        decided |= measured[:, kept - 1] < reached[:, -1] - margin
        return measured[:, :kept].sqrt().float(), candidates.gather(1, order[:, :kept]), decided
