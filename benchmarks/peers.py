"""The peers: anomalib where it is installed (`pip install -e ".[bench]"`), else its loops written out here.

The written-out forms follow anomalib 2.7 line by line (KCenterGreedy, SparseRandomProjection, PatchcoreModel's nearest
neighbours and image score); tests/benchmarks/test_peers.py compares them with the installed one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import math
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils.random import sample_without_replacement
from torch import Tensor
from torch.nn import functional

try:
    with warnings.catch_warnings():  # it uses names that timm and itself call deprecated
        warnings.simplefilter("ignore")
        from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

    ANOMALIB = f"anomalib {importlib.metadata.version('anomalib')}"
except ImportError:
    KCenterGreedy = None
    ANOMALIB = "anomalib 2.7 (its loop, written out)"


class Unprojected:
    """Takes the place of the random projection and leaves the features as they are."""

    def fit(self, embedding: Tensor) -> Unprojected:
        return self

    def transform(self, embedding: Tensor) -> Tensor:
        return embedding


class SparseRandomProjection:
    """Li, Hastie & Church 2006, to the Johnson-Lindenstrauss dimension, as anomalib has it (from scikit-learn)."""

    def __init__(self, eps: float = 0.9) -> None:
        self.eps = eps
        self.matrix = torch.empty(0)

    def fit(self, embedding: Tensor) -> SparseRandomProjection:
        rows, dim = embedding.shape
        denominator = self.eps**2 / 2 - self.eps**3 / 3
        size = math.floor(4 * math.log(rows) / denominator)
        density = 1 / math.sqrt(dim)
        matrix = np.zeros((size, dim))
        binomial = torch.distributions.Binomial(total_count=dim, probs=density)
        for i in range(size):
            nonzero = int(binomial.sample())
            places = sample_without_replacement(dim, nonzero)
            signs = np.random.default_rng(int(torch.randint(2**31, (1,)))).choice([-1.0, 1.0], size=nonzero)
            matrix[i, places] = signs
        self.matrix = torch.from_numpy(matrix * math.sqrt(1 / density) / math.sqrt(size)).float()
        return self

    def transform(self, embedding: Tensor) -> Tensor:
        return embedding @ self.matrix.T


class WrittenOutKCenterGreedy:
    """anomalib's KCenterGreedy: for each pick the distance of every row to the newest center, minimum, arg max."""

    def __init__(self, embedding: Tensor, sampling_ratio: float) -> None:
        self.embedding = embedding
        self.coreset_size = int(len(embedding) * sampling_ratio)
        self.model: Any = SparseRandomProjection(eps=0.9)

    def select_coreset_idxs(self) -> list[int]:
        self.model.fit(self.embedding)
        self.features = self.model.transform(self.embedding)
        smallest = torch.full((len(self.features), 1), math.inf)
        index = torch.randint(high=len(self.features), size=(1,)).squeeze()
        selected = [index]
        for _ in range(self.coreset_size - 1):
            distances = torch.linalg.norm(self.features - self.features[index], ord=2, dim=1, keepdim=True)
            smallest = torch.minimum(smallest, distances)
            index = torch.max(smallest.squeeze(1), dim=0)[1]
            smallest.scatter_(0, index.unsqueeze(0).unsqueeze(1), 0.0)
            selected.append(index)
        return torch.stack(selected).tolist()


def k_center_greedy(embedding: Tensor, picks: int, *, projected: bool) -> Any:
    """anomalib's selector for exactly `picks` rows of (rows, dim)."""
    kind = KCenterGreedy or WrittenOutKCenterGreedy
    selector = kind(embedding, (picks + 0.5) / len(embedding))
    if not projected:
        selector.model = Unprojected()
    return selector


def project(embedding: Tensor) -> Tensor:
    """(rows, fewer dimensions): its random projection, fitted and applied."""
    model = k_center_greedy(embedding, 2, projected=True).model
    model.fit(embedding)
    projected: Tensor = model.transform(embedding)
    return projected


def select(selector: Any) -> list[int]:
    """Its selection, without its progress bar."""
    with contextlib.redirect_stderr(io.StringIO()):
        indices: list[int] = selector.select_coreset_idxs()
    return indices


# --- PatchcoreModel ------------------------------------------------------------------------------------------------


def euclidean_distances(x: Tensor, y: Tensor) -> Tensor:
    """PatchcoreModel.euclidean_dist: (n, d), (m, d) -> (n, m)."""
    result = torch.matmul(x, y.transpose(-2, -1))
    result.mul_(-2)
    result.add_(x.pow(2).sum(dim=-1, keepdim=True))
    result.add_(y.pow(2).sum(dim=-1, keepdim=True).transpose(-2, -1))
    return result.clamp_min_(0).sqrt_()


def nearest_neighbors(embedding: Tensor, bank: Tensor, *, neighbors: int) -> tuple[Tensor, Tensor]:
    """PatchcoreModel.nearest_neighbors: in chunks of 1,024 queries; (distances, rows)."""
    parts = []
    for chunk in embedding.split(1024):
        distances = euclidean_distances(chunk, bank)
        parts.append(distances.min(1) if neighbors == 1 else distances.topk(k=neighbors, largest=False, dim=1))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def image_score(patch_scores: Tensor, locations: Tensor, embedding: Tensor, bank: Tensor, *, neighbors: int) -> float:
    """PatchcoreModel.compute_anomaly_score of one image: scores and bank rows (patch,), embedding (patch, dim)."""
    farthest = int(patch_scores.argmax())
    feature, score = embedding[farthest], patch_scores[farthest]
    nearest = bank[locations[farthest]]
    _, support = nearest_neighbors(nearest[None], bank, neighbors=min(neighbors, len(bank)))
    distances = euclidean_distances(feature[None], bank[support[0]])
    return float((1 - functional.softmax(distances, dim=1)[0, 0]) * score)
