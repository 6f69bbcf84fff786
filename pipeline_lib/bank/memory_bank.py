"""The memory bank: patch features of normal images, and the distance of a patch to the nearest of them."""

from __future__ import annotations

import logging

import numpy as np

from data_contracts.errors import FedpatchError
from pipeline_lib.bank.approximate import Search, build_index
from pipeline_lib.neighbors.exact import ExactSearch, check_matrix, exact_distances
from pipeline_lib.neighbors.on_device import DeviceSearch
from pipeline_lib.when_needed import torch

logger = logging.getLogger(__name__)


class MemoryBank:
    """Rows of normal patch features with a nearest-neighbour index (Roth et al. 2022, section 3.1 and 3.3).

    `features` is (rows, dim), any float type, kept as float32. `search` is exact, or one of faiss's approximate
    indexes: ivf (inverted lists), hnsw (graph), pq (product quantization, smallest). Whatever the index, the distances
    returned are recomputed from the rows. Exact search is
    pipeline_lib.neighbors.exact' own, which answers like faiss's flat index but does not cancel for large norms;
    `use_faiss=False` refuses the other three. With a CUDA `device` exact search runs there, with the same answers.
    Raises FedpatchError for an empty bank, NaN or infinity, or a search that needs faiss without it.
    """

    def __init__(
        self,
        features: np.ndarray,
        *,
        use_faiss: bool = True,
        search: Search = "exact",
        seed: int = 0,
        threads: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.features = check_matrix(features, name="memory bank")
        if not len(self.features):
            raise FedpatchError("memory bank: no rows; a bank needs the features of at least one normal patch")
        if search not in ("exact", "ivf", "hnsw", "pq"):
            raise FedpatchError(f"search is {search!r}; it accepts exact, ivf, hnsw, pq")
        if search != "exact" and not use_faiss:
            raise FedpatchError(f"search: {search} is an index of faiss; set use_faiss: true, or search: exact")
        self.search, self.seed, self.threads = search, seed, threads
        self.index = build_index(self.features, search, seed=seed) if search != "exact" else None
        self._exact: ExactSearch | None = None  # made when first used
        self.device = device if device is not None and device.type == "cuda" else None
        self._on_device: DeviceSearch | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Dimensions of a row."""
        return int(self.features.shape[1])

    def revised(self, features: np.ndarray, source: np.ndarray) -> MemoryBank:
        """A bank of `features`: row i is own row `source[i]`, to the bit, or another one where that is -1.

        Answers like one made anew, of which the CPU's exact search is spared most.
        """
        bank = MemoryBank(features, search=self.search, seed=self.seed, threads=self.threads, device=self.device)
        if self.search == "exact" and self.device is None:
            bank._exact = self.exact_search.revised(bank.features, source)
        return bank

    def query(self, queries: np.ndarray, num_neighbors: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Distances (float32, not squared) and bank rows (int64), both (queries, k), nearest first.

        k is `num_neighbors`, or the size of the bank where that is smaller.
        Raises FedpatchError for the wrong number of dimensions, NaN or infinity, or num_neighbors below 1.
        """
        queries = check_matrix(queries, name="queries", dim=self.dim)
        if num_neighbors < 1:
            raise FedpatchError(f"num_neighbors is {num_neighbors}; it must be at least 1")
        kept = min(num_neighbors, len(self))
        if self.index is None:
            return self._query_device(queries, kept) if self.device else self.exact_search.search(queries, kept)
        return self._query_index(queries, kept)

    def _query_device(self, queries: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact search on the GPU; on the CPU once its memory runs out."""
        assert self.device is not None
        try:
            self._on_device = self._on_device or DeviceSearch(self.features, self.device)
            return self._on_device.search(queries, kept)
        except torch.OutOfMemoryError:
            logger.warning("out of GPU memory searching %d rows, going on with the CPU", len(self))
            self.device = self._on_device = None
            torch.cuda.empty_cache()
            return self.exact_search.search(queries, kept)

    def _query_index(self, queries: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Ask the approximate index for a few more than needed, then order them by their true distances."""
        assert self.index is not None
        asked = min(len(self), max(4 * kept, 16) if self.search == "pq" else kept)
        _, found = self.index.search(queries - self.center, asked)
        missing = found < 0
        indices = np.where(missing, 0, found).astype(np.int64)
        distances = exact_distances(queries, self.features, indices)
        distances[missing] = np.inf
        order = np.lexsort((indices, distances), axis=1)[:, :kept]
        distances, indices = np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)
        short = np.flatnonzero(~np.isfinite(distances).all(axis=1))
        if len(short):  # the index reached fewer rows than were asked for
            distances[short], indices[short] = self.exact_search.search(queries[short], kept)
        return distances, indices

    @property
    def exact_search(self) -> ExactSearch:
        """The rows prepared for exact search."""
        if self._exact is None:
            self._exact = ExactSearch(self.features, threads=self.threads)
        return self._exact

    @property
    def center(self) -> np.ndarray:
        """Mean of the rows; approximate indexes hold rows minus it, since faiss's products cancel far from 0."""
        mean: np.ndarray = self.features.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    def recall(self, queries: np.ndarray, num_neighbors: int = 1) -> float:
        """Share of the true nearest neighbours that `query` returns; ties in distance count as found."""
        found, _ = self.query(queries, num_neighbors)
        queries = check_matrix(queries, name="queries", dim=self.dim)
        if not len(queries):
            raise FedpatchError("recall: no queries; give at least one")
        true, _ = self.exact_search.search(queries, found.shape[1])
        return float((found <= true[:, -1:] * (1 + 1e-6)).mean())
