"""Equal results: slow float64 checks of what the fast side answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

CPU = torch.device("cpu")
PICK_TOLERANCE = 1e-5


def replay_is_exact(
    features: np.ndarray, indices: np.ndarray, *, device: torch.device = CPU, rows_per_block: int = 512
) -> tuple[bool, float]:
    """Whether every pick was the farthest row at its step: distance at least (1 - 1e-5) of the true maximum.

    Float64, over all rows (rows, dim) and all picks (picks,). Returns also the smallest share of the maximum.
    """
    if len(np.unique(indices)) != len(indices):
        return False, 0.0
    center = features[:: max(1, len(features) // 4096)].mean(axis=0, dtype=np.float64)
    picks = torch.from_numpy(features[indices].astype(np.float64) - center).to(device)
    pick_squares = picks.square().sum(dim=1)
    steps = len(indices)
    largest = torch.zeros(steps, dtype=torch.float64, device=device)  # [t]: of any row to its nearest of picks 0..t
    own = np.full(steps, np.inf)  # own[t]: of pick t to its nearest of the picks before
    number = np.full(len(features), -1)
    number[indices] = np.arange(steps)
    for start in range(0, len(features), rows_per_block):
        block = features[start : start + rows_per_block].astype(np.float64) - center
        rows = torch.from_numpy(block).to(device)
        squares = torch.addmm(pick_squares, rows, picks.T, alpha=-2.0) + rows.square().sum(dim=1, keepdim=True)
        squares = squares.cummin(dim=1).values
        torch.maximum(largest, squares.amax(dim=0), out=largest)
        picked = np.flatnonzero(number[start : start + len(block)] > 0)
        steps_of_them = number[start + picked]
        own[steps_of_them] = squares[picked, steps_of_them - 1].cpu().numpy()
    share = np.sqrt(np.maximum(own[1:], 0.0) / np.maximum(largest[:-1].cpu().numpy(), 1e-300))
    smallest = float(share.min(initial=1.0))
    return smallest >= 1 - PICK_TOLERANCE, smallest


def nearest_distances(
    queries: np.ndarray, bank: np.ndarray, *, device: torch.device = CPU, rows_per_block: int = 512
) -> np.ndarray:
    """float64 (queries,): distance of each query to its nearest row of the bank, by brute force."""
    center = bank.mean(axis=0, dtype=np.float64)
    rows = torch.from_numpy(bank.astype(np.float64) - center).to(device)
    squares = rows.square().sum(dim=1)
    result = np.empty(len(queries))
    for start in range(0, len(queries), rows_per_block):
        part = queries[start : start + rows_per_block].astype(np.float64)
        asked = torch.from_numpy(part - center).to(device)
        nearest = torch.addmm(squares, asked, rows.T, alpha=-2.0).argmin(dim=1).cpu().numpy()
        result[start : start + len(part)] = np.linalg.norm(part - bank[nearest], axis=1)
    return result


def distances_are_exact(found: np.ndarray, true: np.ndarray, queries: np.ndarray) -> tuple[bool, float]:
    """Whether |error| <= 1e-5 d + 1e-6 |x| for all; also the largest error as a share of what is allowed."""
    allowed = 1e-5 * true + 1e-6 * np.linalg.norm(queries.astype(np.float64), axis=1)
    share = float((np.abs(found.astype(np.float64) - true) / np.maximum(allowed, 1e-300)).max())
    return share <= 1.0, share


def auroc_not_shown_to_be_lower(
    labels: Sequence[bool], own: Sequence[float], peer: Sequence[float], tolerance: float, *, resamples: int = 2000
) -> bool:
    """False when the own AUROC is below the peer's by more than `tolerance` in 97.5 % of paired resamples of images.

    For tests too small to show a difference of `tolerance` by the figures alone.
    """
    marks, scores = np.array(labels), np.array([own, peer], dtype=np.float64)
    rng = np.random.default_rng(0)
    behind = []
    for _ in range(resamples):
        parts = [rng.choice(np.flatnonzero(marks == mark), np.count_nonzero(marks == mark)) for mark in (False, True)]
        drawn = np.concatenate(parts)
        first, second = (roc_auc_score(marks[drawn], side[drawn]) for side in scores)
        behind.append(second - first)
    return bool(np.percentile(behind, 2.5) <= tolerance)
