"""How many rows a bank has, and how many of them each client's upload may hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_contracts.settings import AggregationSettings
from pipeline_lib.coreset.selection import coreset_size


def client_quotas(sent: Sequence[int], weights: Sequence[float], target: int) -> np.ndarray:
    """Rows of the bank for each client, int64 (client,), summing to `target` where they `sent` that many.

    In proportion to their weights, such as their images. A client that sent fewer rows than its share gives all of
    them and leaves the rest to the others, in their proportions. Rounded once, by largest remainder.
    """
    available = np.array(sent)
    wanted = np.array(weights, dtype=np.float64)
    quotas = np.zeros(len(available), dtype=np.int64)
    is_open = available > 0
    while (left := target - int(quotas.sum())) > 0 and is_open.any():
        open_weights = np.where(is_open, wanted, 0.0)
        if open_weights.sum() == 0:
            open_weights = is_open.astype(np.float64)
        share = open_weights / open_weights.sum() * left
        filled = is_open & (share >= available)
        if not filled.any():
            quotas += np.floor(share).astype(np.int64)
            remainders = np.where(open_weights > 0, share - np.floor(share), -1.0)
            order = np.argsort(-remainders, kind="stable")
            quotas[order[: target - int(quotas.sum())]] += 1
            break
        quotas[filled] = available[filled]
        is_open &= ~filled
    return quotas


def bank_size(settings: AggregationSettings, n_patches: int) -> int:
    """Rows of a bank for clients with so many patches: as configured, or as many as the centralized baseline keeps."""
    if settings.target_rows is not None:
        return settings.target_rows
    return coreset_size(settings.coreset_percentage, n_patches)
