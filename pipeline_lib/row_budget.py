"""How many rows each client sends, by what its patches need: all clients' coverage curves are cut at one radius.

Farthest-first selection tells the distance of every pick to what was picked before it, which is the covering radius
that the selection had until then (Gonzalez 1985). These distances never rise, so that the largest of all clients
together are those that lower the largest radius the most: marginal gains, taken greedily. A client hands over its
curve alone, a number a pick; no row is among it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.errors import FedpatchError

HEADROOM = 4.0  # a client's curve goes on to this many times its share by count


@dataclass(frozen=True)
class RowBudget:
    """What the server grants: rows of each client, and the radius at which their curves were cut."""

    rows: np.ndarray  # int64 (client,)
    radius: float  # distance of the last pick that is granted; infinite where nothing is


def cut_at_common_radius(curves: Sequence[np.ndarray], n_rows: int) -> RowBudget:
    """Grant the `n_rows` largest distances of all curves; of equal ones those of the first clients.

    curves: pick distances (pick,) of each client, never rising; the first may be infinite. All picks are granted where
    there are no more than wanted. Raises FedpatchError for a curve that rises or is not a number.
    """
    for number, curve in enumerate(curves):
        if np.isnan(curve).any() or (curve[1:] > curve[:-1]).any():
            raise FedpatchError(f"coverage curve {number} rises or is not a number; it must be a farthest-first one")
    distances = np.concatenate([np.empty(0), *curves])
    client = np.repeat(np.arange(len(curves)), [len(curve) for curve in curves])
    granted = np.argsort(-distances, kind="stable")[: max(0, n_rows)]
    radius = float(distances[granted].min()) if len(granted) else math.inf
    return RowBudget(np.bincount(client[granted], minlength=len(curves)).astype(np.int64), radius)


def curve_length(share: float, n_patches: int) -> int:
    """Picks that a client's curve has, for a share by count of so many rows."""
    return min(n_patches, max(1, math.ceil(HEADROOM * share)))


def rows_of_round(total: int, held: int, round_number: int, num_rounds: int, *, is_relay: bool) -> int:
    """Rows that all clients together may send for one bank in one round, of `total` of which `held` were sent.

    In a relay all that is left: clients send only down to the common radius, and what others have covered by then is
    left for the next round. Else an even part of what is left.
    """
    left = max(0, total - held)
    return left if is_relay else math.ceil(left / (num_rounds - round_number + 1))
