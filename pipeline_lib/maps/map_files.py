"""Anomaly maps as image files: `<maps>/<category>/test/<folder>/<stem>.png|.tiff|.tif|.npy`.

PNG has no floating point: PNG copies are 16 bit with one scale for a whole category, kept beside them in
`<category>/scale.json`, so that scores stay comparable across images. TIFF (float32) and npy hold exact values.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_contracts.errors import ImageError
from data_contracts.manifests import Cells
from pipeline_lib.storage.artifact_store import write_file

SUFFIXES = (".npy", ".tiff", ".tif", ".png")
"""What `find_map` looks for; exact formats first, should there be several."""

SCALE_FILE = "scale.json"
PNG_MAX = 2**16 - 1
_GREY_MODES = ("L", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")


@dataclass(frozen=True)
class MapScale:
    """value = offset + step x PNG value, for all maps of a category."""

    offset: float
    step: float

    @classmethod
    def of_maps(cls, maps: Iterable[np.ndarray]) -> MapScale:
        """The scale from the lowest to the highest value over all maps. Raises ImageError without a finite map."""
        low, high = math.inf, -math.inf
        for values in maps:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ImageError(f"a scale needs at least one map and finite values, got {low} to {high}")
        return cls(low, (high - low) / PNG_MAX)

    def to_png(self, values: np.ndarray) -> np.ndarray:
        """uint16 (height, width); values outside the scale are cut off at its ends."""
        if not self.step:
            return np.zeros(values.shape, np.uint16)
        steps = np.rint((values.astype(np.float64) - self.offset) / self.step)
        return np.clip(steps, 0, PNG_MAX).astype(np.uint16)


def find_map(maps_root: Path, category: str, folder: str, stem: str) -> Path:
    """The file that holds a test image's map. Raises ImageError, listing what was looked for, or several that fit."""
    directory = maps_root / category / "test" / folder
    found = [path for suffix in SUFFIXES if (path := directory / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ImageError(f"{directory} holds several maps of one image: {names}; keep one")
    if found:
        return found[0]
    looked_for = ", ".join(f"{stem}{suffix}" for suffix in SUFFIXES)
    there = "" if directory.is_dir() else " (there is no such directory)"
    raise ImageError(
        f"no anomaly map for {category}/test/{folder}/{stem}: looked in {directory}{there} for {looked_for}"
    )


def read_map(path: Path) -> np.ndarray:
    """float32 (height, width), the file's raw values.

    Raises ImageError, naming the file, when it cannot be read, is not grey, two-dimensional, real or finite.
    """
    values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path)
    if values.ndim != 2 or not values.size:
        raise ImageError(f"{path}: an anomaly map has the shape (height, width), this one {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if bad := int((~np.isfinite(values)).sum()):
        raise ImageError(
            f"{path}: {bad} of {values.size} values are NaN, infinite or beyond float32; write finite ones"
        )
    return values


def resize_map(values: np.ndarray, height: int, width: int, cells: Cells | None = None) -> np.ndarray:
    """Bilinear, float32 (height, width); a map of that size, with a cell a pixel, comes back as it is.

    cells: where those of the map look; in the middle of their shares of the image unless given.
    """
    values = np.asarray(values, np.float32)
    cells, pixels = cells or Cells.even(values.shape), Cells.even((height, width))
    if cells == pixels and values.shape == (height, width):
        return values
    import torch  # here, so that files are listed and refused without it

    from pipeline_lib.features.resampling import resample

    array: np.ndarray = resample(torch.tensor(values)[None, None], cells, pixels, (height, width))[0, 0].numpy()
    return array


def refuse_other_shape(values: np.ndarray, height: int, width: int, *, name: str) -> None:
    """Raise ImageError for a map (height, width) with other proportions than its image: enlarged, it would not fit.

    A side may differ from the image's proportions by the one pixel that rounding takes.
    """
    map_height, map_width = values.shape

    def fits(map_height: int, map_width: int) -> bool:
        return min(abs(map_height - map_width * height / width), abs(map_width - map_height * width / height)) <= 1

    if fits(map_height, map_width):
        return
    turned = " It looks transposed: save it as (height, width)." if fits(map_width, map_height) else ""
    raise ImageError(
        f"{name}: the map is {map_width} wide and {map_height} high, its image {width} and {height}; a map has the "
        f"image's size or its proportions.{turned} Where maps were made of a squeezed image, give --stretch-maps"
    )


def write_npy_map(path: Path, values: np.ndarray) -> None:
    """Write float32 npy; exact."""
    buffer = io.BytesIO()
    np.save(buffer, _checked(path, values), allow_pickle=False)
    write_file(path, buffer.getvalue(), durable=False)


def write_tiff_map(path: Path, values: np.ndarray) -> None:
    """Write a float32 TIFF; exact."""
    _write_image(path, _checked(path, values), "TIFF")


def write_png_map(path: Path, values: np.ndarray, *, scale: MapScale) -> None:
    """Write a 16-bit grey PNG in the category's scale."""
    _write_image(path, scale.to_png(_checked(path, values)), "PNG")


def write_scale(category_directory: Path, scale: MapScale) -> None:
    """Write `scale.json` beside a category's PNG maps."""
    text = json.dumps({"offset": scale.offset, "step": scale.step}, indent=1) + "\n"
    write_file(category_directory / SCALE_FILE, text.encode(), durable=False)


def _read_npy(path: Path) -> np.ndarray:
    try:
        values: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: cannot be read as npy ({error})") from error
    if values.dtype.kind not in "fiu":
        raise ImageError(f"{path}: an anomaly map holds real numbers, this one {values.dtype}")
    return values


def _read_image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            values = np.array(image) if mode in _GREY_MODES and frames == 1 else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as an image ({error})") from error
    if values is None:
        raise ImageError(f"{path}: an anomaly map is one grey image, this is mode {mode} with {frames} frame(s)")
    return values


def _checked(path: Path, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ImageError(f"{path}: cannot write a map of shape {values.shape}; it must be 2-D, not empty and finite")
    return values


def _write_image(path: Path, values: np.ndarray, image_format: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, image_format)
    write_file(path, buffer.getvalue(), durable=False)
