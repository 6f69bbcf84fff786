"""Why an image is flagged: its most deviating patches and the rows of the bank that are most like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_contracts.manifests import CENTRALIZED_CLIENT, Cells
from pipeline_lib.bank.memory_bank import MemoryBank

N_PATCHES = 3
N_NEIGHBORS = 3

Origin = tuple[str, int, Path | None]
"""Of a bank row: image id, patch index in that image, where the image lies."""


@dataclass(frozen=True)
class Neighbor:
    """A normal patch of the bank. Its image is known where all images lay at one place; else its client."""

    bank_row: int
    distance: float
    client: str | None = None
    image_id: str | None = None
    image_path: Path | None = None
    center: tuple[float, float] | None = None  # x, y as shares of the image

    @property
    def origin(self) -> str:
        """What people are told of where it is from: its image and client, or at least the client."""
        if self.image_id is None:
            return self.client or "origin not known"
        return self.image_id if self.client in (None, CENTRALIZED_CLIENT) else f"{self.image_id} ({self.client})"


@dataclass(frozen=True)
class PatchExplanation:
    """One patch of the flagged image and its nearest normal patches."""

    center: tuple[float, float]  # x, y as shares of the image
    size: tuple[float, float]  # of a patch, as shares of the image
    score: float
    neighbors: tuple[Neighbor, ...]

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "center": list(self.center),
            "score": self.score,
            "neighbors": [
                {"bank_row": n.bank_row, "distance": n.distance, "client": n.client, "image_id": n.image_id}
                for n in self.neighbors
            ],
        }


def explain_patches(
    grid_map: np.ndarray,
    patches: np.ndarray,
    bank: MemoryBank,
    *,
    origins: Callable[[np.ndarray], Mapping[int, Origin]],
    clients: Sequence[str] | None,
    cells: Cells,
    n_patches: int = N_PATCHES,
) -> list[PatchExplanation]:
    """The `n_patches` highest patches of an image, each with its nearest bank rows.

    grid_map: patch scores (height, width); patches: the same patches' features (height * width, dim); origins: bank
    rows -> what is known of their images; clients: the client of each bank row, or None where the bank does not say;
    cells: where those of the grid look.
    """
    width = grid_map.shape[1]
    places = _peaks(grid_map, n_patches)
    if not places:
        return []
    queries = np.stack([patches[y * width + x] for y, x in places]).astype(np.float32)
    distances, rows = bank.query(queries, num_neighbors=N_NEIGHBORS)
    known = origins(rows)
    return [
        PatchExplanation(
            cells.center(y, x),
            cells.size,
            float(grid_map[y, x]),
            tuple(
                _neighbor(int(row), float(distance), clients, known, width, cells)
                for row, distance in zip(rows[number], distances[number], strict=True)
            ),
        )
        for number, (y, x) in enumerate(places)
    ]


def _peaks(grid_map: np.ndarray, count: int) -> list[tuple[int, int]]:
    values = grid_map.copy()
    found = []
    for _ in range(min(count, values.size)):
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        if not np.isfinite(values[y, x]):
            break
        found.append((int(y), int(x)))
        values[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = -np.inf
    return found


def origins_of(
    provenance: pd.DataFrame | None, rows: np.ndarray, image_paths: Callable[[], Mapping[str, Path]]
) -> dict[int, Origin]:
    """bank row -> its origin, of those `rows` that BANK_PROVENANCE lists; nothing without provenance."""
    if provenance is None:
        return {}
    table = provenance[provenance.bank_row.isin(rows.ravel().tolist())]
    paths = image_paths()
    return {
        int(row): (str(image), int(patch), paths.get(str(image)))
        for row, image, patch in zip(table.bank_row, table.image_id, table.patch_index, strict=True)
    }


def _neighbor(
    row: int,
    distance: float,
    clients: Sequence[str] | None,
    origins: Mapping[int, Origin],
    grid_width: int,
    cells: Cells,
) -> Neighbor:
    client = clients[row] if clients else None
    if row not in origins:
        return Neighbor(row, distance, client)
    image_id, patch, path = origins[row]
    y, x = divmod(patch, grid_width)  # images of one category have one grid
    return Neighbor(row, distance, client, image_id, path, cells.center(y, x))
