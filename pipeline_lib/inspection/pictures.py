"""Why an image is flagged: its most deviating patches beside the normal patches of the bank that are most like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from data_contracts.errors import ImageError
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.configuration.files import load_run_config
from pipeline_lib.dataset.images import load_image
from pipeline_lib.inspection.decisions import ImageDecision
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.maps.visualize import OUTLINE

N_PATCHES = 3
N_NEIGHBORS = 3
TILE_PX = 160
CONTEXT = 6  # sides of a patch that a tile shows
GAP_PX = 8
TEXT_PX = 30
OUTSIDE = (190, 190, 190)  # beyond the border of an image; black could be taken for a part of it

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


def explain(model: RunModel, decision: ImageDecision) -> list[PatchExplanation]:
    """The image's highest patches, each at least two patches from the ones before, with their nearest bank rows."""
    item = decision.patches
    if decision.scored is None or decision.category is None or item is None:
        return []
    category = decision.category
    return explain_patches(
        decision.scored.grid_map,
        item.patches,
        model.patchcore(category).memory_bank,
        origins=lambda rows: origins_of(model.provenance(category), rows, lambda: _image_paths(model)),
        clients=model.row_clients(category),
    )


def explain_patches(
    grid_map: np.ndarray,
    patches: np.ndarray,
    bank: MemoryBank,
    *,
    origins: Callable[[np.ndarray], Mapping[int, Origin]],
    clients: Sequence[str] | None,
    n_patches: int = N_PATCHES,
) -> list[PatchExplanation]:
    """The `n_patches` highest patches of an image, each with its nearest bank rows.

    grid_map: patch scores (height, width); patches: the same patches' features (height * width, dim); origins: bank
    rows -> what is known of their images; clients: the client of each bank row, or None where the bank does not say.
    """
    height, width = grid_map.shape
    places = _peaks(grid_map, n_patches)
    if not places:
        return []
    queries = np.stack([patches[y * width + x] for y, x in places]).astype(np.float32)
    distances, rows = bank.query(queries, num_neighbors=N_NEIGHBORS)
    known = origins(rows)
    return [
        PatchExplanation(
            ((x + 0.5) / width, (y + 0.5) / height),
            (1 / width, 1 / height),
            float(grid_map[y, x]),
            tuple(
                _neighbor(int(row), float(distance), clients, known, (height, width))
                for row, distance in zip(rows[number], distances[number], strict=True)
            ),
        )
        for number, (y, x) in enumerate(places)
    ]


def explanation_picture(decision: ImageDecision, patches: list[PatchExplanation]) -> Image.Image:
    """A row for each patch: the flagged place, then its nearest normal patches with distance and origin."""
    assert decision.pixels is not None
    columns = 1 + max(len(patch.neighbors) for patch in patches)
    sheet = Image.new(
        "RGB",
        (columns * (TILE_PX + GAP_PX) + GAP_PX, len(patches) * (TILE_PX + TEXT_PX + GAP_PX) + GAP_PX),
        (250, 250, 250),
    )
    draw = ImageDraw.Draw(sheet)
    image = Image.fromarray(decision.pixels)
    for row, patch in enumerate(patches):
        top = GAP_PX + row * (TILE_PX + TEXT_PX + GAP_PX)
        sheet.paste(patch_tile(image, patch.center, patch.size), (GAP_PX, top))
        draw.text((GAP_PX, top + TILE_PX + 2), f"this image\nscore {patch.score:.4g}", fill=(20, 20, 20))
        for column, neighbor in enumerate(patch.neighbors, start=1):
            left = GAP_PX + column * (TILE_PX + GAP_PX)
            sheet.paste(_neighbor_tile(neighbor, patch.size), (left, top))
            name = neighbor.image_id or (f"client {neighbor.client}" if neighbor.client else "origin not known")
            draw.text((left, top + TILE_PX + 2), f"{_short(name)}\ndistance {neighbor.distance:.4g}", fill=(20, 20, 20))
    return sheet


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


def _image_paths(model: RunModel) -> dict[str, Path]:
    index: pd.DataFrame | None = model.index
    if index is None:
        return {}
    root = load_run_config(model.directory)[0].dataset.root
    return {} if root is None else {str(i): root / p for i, p in zip(index.image_id, index.path, strict=True)}


def _neighbor(
    row: int,
    distance: float,
    clients: Sequence[str] | None,
    origins: Mapping[int, Origin],
    grid: tuple[int, int],
) -> Neighbor:
    client = clients[row] if clients else None
    if row not in origins:
        return Neighbor(row, distance, client)
    image_id, patch, path = origins[row]
    y, x = divmod(patch, grid[1])  # images of one category have one grid
    return Neighbor(row, distance, client, image_id, path, ((x + 0.5) / grid[1], (y + 0.5) / grid[0]))


def patch_tile(image: Image.Image, center: tuple[float, float], size: tuple[float, float]) -> Image.Image:
    """The surroundings of a patch, the patch itself in a frame; grey beyond the image's border."""
    x, y = center[0] * image.width, center[1] * image.height
    half = CONTEXT * max(size[0] * image.width, size[1] * image.height) / 2
    left, top, side = round(x - half), round(y - half), max(1, round(2 * half))
    tile = Image.new("RGB", (side, side), OUTSIDE)
    tile.paste(image, (-left, -top))
    tile = tile.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
    frame = TILE_PX / CONTEXT / 2
    box = (TILE_PX / 2 - frame, TILE_PX / 2 - frame, TILE_PX / 2 + frame, TILE_PX / 2 + frame)
    ImageDraw.Draw(tile).rectangle(box, outline=OUTLINE, width=2)
    return tile


def _neighbor_tile(neighbor: Neighbor, size: tuple[float, float]) -> Image.Image:
    if neighbor.image_path is not None and neighbor.center is not None:
        try:
            return patch_tile(load_image(neighbor.image_path), neighbor.center, size)
        except ImageError:
            pass  # moved since: the tile says that there is no picture
    tile = Image.new("RGB", (TILE_PX, TILE_PX), (225, 225, 225))
    ImageDraw.Draw(tile).text((12, TILE_PX // 2 - 12), "image stays\nat its station", fill=(90, 90, 90))
    return tile


def _short(name: str, limit: int = 26) -> str:
    return name if len(name) <= limit else "..." + name[-(limit - 3) :]
