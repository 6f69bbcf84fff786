"""Anomaly maps for the eye: image, heat map and overlay side by side, in one colour scale for a whole category.

A map is never stretched by its own minimum and maximum: on such pictures every image looks defective. `map_scale`
gives the one scale of a category, and the same colour then stands for the same score in all of its images.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from data_contracts.errors import ImageError
from data_contracts.manifests import Cells
from pipeline_lib.dataset.images import to_rgb
from pipeline_lib.maps.map_files import resize_map

TILE_PX = 160
CONTEXT = 6  # sides of a patch that a tile shows
OUTSIDE = (190, 190, 190)  # beyond the border of an image; black could be taken for a part of it

ANCHORS = (
    0x06061D, 0x190A3F, 0x320C60, 0x521372, 0x7A1577, 0xA41572, 0xCD195F,
    0xE64446, 0xF66A27, 0xFE9222, 0xFEB74B, 0xFED972, 0xFFF89B,
)  # fmt: skip
"""The colour map at equal steps of OKLab lightness, from 0.14 to 0.965: violet, magenta, orange, pale yellow.

Lightness rises all the way, so that the order of scores survives in grey, in print and for colour-blind eyes.
"""

OUTLINE = (0, 235, 200)
"""Ground truth; not in the colour map, and light enough for dark images."""

DARK = (16, 24, 24)  # the edge of lines against light images

GAP_PX = 6
BAR_PX = 14
LABELS_PX = 46

Scale = tuple[float, float]
"""(low, high): the scores of the darkest and the lightest colour."""


def colour_table() -> np.ndarray:
    """uint8 (256, 3): `ANCHORS`, straight lines between them."""
    anchors = np.array([[colour >> 16, colour >> 8 & 255, colour & 255] for colour in ANCHORS], np.float64)
    steps = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(steps, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


_TABLE = colour_table()


def map_scale(maps: np.ndarray, label_index: np.ndarray) -> Scale:
    """The colour scale of one category.

    maps: float (image, height, width); label_index: int (image,), 0 good. Low is the median over the good images'
    maps (over all where there is none), high the 95th percentile of the highest values of the images; both depend on
    the category as a whole, never on one image. Raises ImageError without maps or with values that are not finite.
    """
    if not maps.size or not np.isfinite(maps).all():
        raise ImageError(f"a colour scale needs at least one map and finite values, got an array {maps.shape}")
    good = maps[np.asarray(label_index) == 0]
    low = float(np.median(good if len(good) else maps))
    high = float(np.quantile(maps.reshape(len(maps), -1).max(axis=1), 0.95))
    return low, high if high > low else low + 1.0


def threshold_scale(threshold: float) -> Scale:
    """A scale for maps of images that no test set goes with: from half the threshold to 1.2 times it."""
    return 0.5 * threshold, 1.2 * threshold


def relative_heat(anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """float32 (height, width) in [0, 1]: where each value lies between `scale`'s ends; values beyond are cut off.

    Raises ImageError for a scale that is not low < high, both finite.
    """
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ImageError(f"a colour scale is (low, high) with low < high, got {scale}; take map_scale of the category")
    heat: np.ndarray = np.clip((np.asarray(anomaly_map, np.float32) - low) / (high - low), 0, 1)
    return heat


def colour_map(anomaly_map: np.ndarray, scale: Scale) -> np.ndarray:
    """uint8 (height, width, 3): the map in colours."""
    colours: np.ndarray = _TABLE[np.rint(relative_heat(anomaly_map, scale) * 255).astype(np.intp)]
    return colours


def overlay(pixels: np.ndarray, anomaly_map: np.ndarray, scale: Scale, *, opacity: float = 0.8) -> np.ndarray:
    """The map's colours over an image, uint8 (height, width, 3).

    The higher a score, the more of the image its colour covers, up to `opacity`; the low end covers nothing.
    """
    heat = relative_heat(anomaly_map, scale)
    alpha = (opacity * heat**0.75)[..., None]
    mixed = (1 - alpha) * pixels.astype(np.float32) + alpha * colour_map(anomaly_map, scale)
    covered: np.ndarray = np.rint(mixed).astype(np.uint8)
    return covered


def draw_outline(pixels: np.ndarray, mask: np.ndarray, *, colour: tuple[int, int, int] = OUTLINE) -> np.ndarray:
    """A copy of `pixels` (height, width, 3) with a line around the marked pixels of `mask` (height, width).

    The line lies outside, so that a small defect stays visible; it is about 1/200 of the shorter side thick, and has
    a dark edge against light images.
    """
    thickness_px = max(1, round(min(mask.shape) / 200))
    around = ndimage.binary_dilation(mask, structure=np.ones((3, 3)), iterations=thickness_px)
    edge = ndimage.binary_dilation(around, structure=np.ones((3, 3)), iterations=1)
    drawn = pixels.copy()
    drawn[edge & ~around] = DARK
    drawn[around & ~mask] = colour
    return drawn


def visualize_anomaly_map(
    image: Image.Image | np.ndarray,
    anomaly_map: np.ndarray,
    *,
    scale: Scale,
    ground_truth: np.ndarray | None = None,
    panel_px: int | None = None,
    colour_bar: bool = True,
    cells: Cells | None = None,
) -> Image.Image:
    """Image, heat map and overlay side by side, with the colour scale at the right.

    image: a picture, or uint8 (height, width, 3); anomaly_map: float of any (height, width), resized to the image;
    scale: (low, high) of the whole category, see `map_scale`; ground_truth: bool (height, width) of the image's size,
    outlined on image and overlay; panel_px: the longer side of each panel, the image's own size unless given; cells:
    where those of the map look, in the middle of their shares of the image unless given.
    Raises ImageError where ground truth and image differ in size, for a bad scale, and for a map that is not 2-D.
    """
    picture = to_rgb(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
    shape = (picture.height, picture.width)
    if np.ndim(anomaly_map) != 2:
        raise ImageError(f"an anomaly map has the shape (height, width), this one {np.shape(anomaly_map)}")
    if ground_truth is not None and ground_truth.shape != shape:
        raise ImageError(f"ground truth is {ground_truth.shape}, its image {shape} (height, width); they must be equal")
    picture, mask = fit(picture, ground_truth, panel_px)
    pixels = np.array(picture)
    values = resize_map(anomaly_map, picture.height, picture.width, cells)
    covered = overlay(pixels, values, scale)
    if mask is not None:
        pixels, covered = draw_outline(pixels, mask), draw_outline(covered, mask)
    panels = [Image.fromarray(panel) for panel in (pixels, colour_map(values, scale), covered)]
    return side_by_side([*panels, _colour_bar(picture.height, scale)] if colour_bar else panels)


def fit(
    picture: Image.Image, mask: np.ndarray | None, max_side_px: int | None
) -> tuple[Image.Image, np.ndarray | None]:
    """Picture and mask, made smaller so that the longer side is `max_side_px`; a marked pixel never gets lost."""
    longer = max(picture.size)
    if max_side_px is None or longer <= max_side_px:
        return picture, mask
    size = tuple(max(1, round(side * max_side_px / longer)) for side in picture.size)
    smaller = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    if mask is None:
        return smaller, None
    rows, columns = np.nonzero(mask)
    shrunk = np.zeros((size[1], size[0]), dtype=bool)
    shrunk[rows * size[1] // mask.shape[0], columns * size[0] // mask.shape[1]] = True
    return smaller, shrunk


def side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels in a row on white, tops aligned."""
    width = sum(panel.width for panel in panels) + GAP_PX * (len(panels) - 1)
    row = Image.new("RGB", (width, max(panel.height for panel in panels)), "white")
    left = 0
    for panel in panels:
        row.paste(panel, (left, 0))
        left += panel.width + GAP_PX
    return row


def one_below_another(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows in a column on white, left edges aligned."""
    height = sum(row.height for row in rows) + GAP_PX * (len(rows) - 1)
    column = Image.new("RGB", (max(row.width for row in rows), height), "white")
    top = 0
    for row in rows:
        column.paste(row, (0, top))
        top += row.height + GAP_PX
    return column


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _colour_bar(height_px: int, scale: Scale) -> Image.Image:
    """The scale as a bar, high at the top, with the scores of its ends."""
    bar = Image.new("RGB", (BAR_PX + LABELS_PX, height_px), "white")
    rows = np.linspace(scale[1], scale[0], height_px, dtype=np.float32)[:, None]
    bar.paste(Image.fromarray(colour_map(np.repeat(rows, BAR_PX, axis=1), scale)), (0, 0))
    if height_px >= 24:
        draw = ImageDraw.Draw(bar)
        draw.text((BAR_PX + 4, 0), f"{scale[1]:.4g}", fill="black")
        draw.text((BAR_PX + 4, height_px - 12), f"{scale[0]:.4g}", fill="black")
    return bar


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
