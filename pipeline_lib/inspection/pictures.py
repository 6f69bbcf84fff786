"""Why a finished model flags an image: its highest patches explained, and the picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from data_contracts.errors import ImageError
from data_contracts.settings import ImageReading
from pipeline_lib.bank.explanation import Neighbor, PatchExplanation, explain_patches, origins_of
from pipeline_lib.configuration.files import load_run_config
from pipeline_lib.dataset.images import load_image
from pipeline_lib.inspection.decisions import ImageDecision
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.maps.visualize import TILE_PX, patch_tile

GAP_PX = 8
TEXT_PX = 30


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
        cells=decision.scored.cells,
    )


def explanation_picture(decision: ImageDecision, patches: list[PatchExplanation]) -> Image.Image:
    """A row for each patch: the flagged place, then its nearest normal patches with distance and origin."""
    assert decision.pixels is not None
    sheet = Image.new("RGB", _corner(len(patches), _columns(patches)), (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    image = Image.fromarray(decision.pixels)
    for row, patch in enumerate(patches):
        left, top = _corner(row, 0)
        sheet.paste(patch_tile(image, patch.center, patch.size), (left, top))
        draw.text((left, top + TILE_PX + 2), f"this image\nscore {patch.score:.4g}", fill=(20, 20, 20))
        for column, neighbor in enumerate(patch.neighbors, start=1):
            left, top = _corner(row, column)
            sheet.paste(_neighbor_tile(neighbor, patch.size, decision.reading), (left, top))
            text = f"{_short(neighbor.origin)}\ndistance {neighbor.distance:.4g}"
            draw.text((left, top + TILE_PX + 2), text, fill=(20, 20, 20))
    return sheet


def tile_place(patches: Sequence[PatchExplanation], row: int, column: int) -> tuple[float, float, float, float]:
    """On the picture of these explanations: its width and height, and a tile's left and top edge, in sides of a tile.

    Column 0 is the image's own patch, those after it its nearest normal patches.
    """
    (width, height), (left, top) = _corner(len(patches), _columns(patches)), _corner(row, column)
    return width / TILE_PX, height / TILE_PX, left / TILE_PX, top / TILE_PX


def _columns(patches: Sequence[PatchExplanation]) -> int:
    return 1 + max(len(patch.neighbors) for patch in patches)


def _corner(row: int, column: int) -> tuple[int, int]:
    return GAP_PX + column * (TILE_PX + GAP_PX), GAP_PX + row * (TILE_PX + TEXT_PX + GAP_PX)


def _image_paths(model: RunModel) -> dict[str, Path]:
    index: pd.DataFrame | None = model.index
    if index is None:
        return {}
    root = load_run_config(model.directory)[0].dataset.root
    return {} if root is None else {str(i): root / p for i, p in zip(index.image_id, index.path, strict=True)}


def _neighbor_tile(neighbor: Neighbor, size: tuple[float, float], reading: ImageReading) -> Image.Image:
    if neighbor.image_path is not None and neighbor.center is not None:
        try:
            return patch_tile(load_image(neighbor.image_path, reading), neighbor.center, size)
        except ImageError:
            pass  # moved since: the tile says that there is no picture
    tile = Image.new("RGB", (TILE_PX, TILE_PX), (225, 225, 225))
    font, middle = ImageFont.load_default(size=TILE_PX / 6), (TILE_PX / 2, TILE_PX / 2)
    ImageDraw.Draw(tile).text(middle, "no picture", fill=(60, 60, 60), font=font, anchor="mm")
    return tile


def _short(name: str, limit: int = 26) -> str:
    return name if len(name) <= limit else "..." + name[-(limit - 3) :]
