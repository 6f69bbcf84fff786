"""Patch features of real images, extracted once and kept in a temporary directory.

`narrow`: EfficientNet-Lite0 at 256x256, blocks.2 and blocks.4, 152 dimensions, as a run with the offline backbone has
them. `wide`: the same network's blocks.2 to blocks.6 (40, 80, 112, 192, 320 channels) on the 32x32 grid of blocks.2,
averaged over 3x3 and once more over 7x7 patches, and blocks.1 (24) by mean and by maximum: 1,536 dimensions, as many
as WideResNet-50-2 gives.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.dataset.images import load_image
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.preprocessing import preprocess_image

SIZE_PX = 256
Kind = Literal["narrow", "wide"]
WIDE_LAYERS = ("blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6")


def data_root() -> Path:
    """`$FEDPATCH_REAL_DATA`, or the place that the tests look at."""
    root = Path(os.environ.get("FEDPATCH_REAL_DATA", Path(__file__).parents[2] / "shared" / "datasets" / "real3"))
    if not root.is_dir():
        raise SystemExit(f"no real images at {root}; set FEDPATCH_REAL_DATA to a data set in AutoVI's layout")
    return root


def cache_directory() -> Path:
    """Where features and other costly inputs are kept between runs."""
    path = Path(tempfile.gettempdir()) / f"fedpatch-benchmarks-{os.getuid()}"
    path.mkdir(exist_ok=True)
    return path


def images_of(category: str, split: Literal["train", "test"], count: int) -> list[Path]:
    """About evenly spaced images of a category, `count` of them."""
    paths = sorted(p for p in (data_root() / category / split).rglob("*") if p.suffix in (".png", ".jpg"))
    if count > len(paths):
        raise SystemExit(f"{category}/{split} has {len(paths)} images, {count} were asked for")
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]


def load_pixels(path: Path, *, width: int = SIZE_PX, height: int = SIZE_PX) -> torch.Tensor:
    """uint8 (1, height, width, 3)."""
    return torch.from_numpy(preprocess_image(load_image(path), width=width, height=height))[None]


def features(kind: Kind, category: str, split: Literal["train", "test"], *, rows: int) -> np.ndarray:
    """float32 (rows, 152 or 1536): 1,024 patches an image, images spread evenly over the category's split."""
    path = cache_directory() / f"{kind}-{category}-{split}-{rows}.npy"
    if not path.exists():
        count = -(-rows // 1024)
        extracted = np.concatenate([_extract(kind, image) for image in images_of(category, split, count)])[:rows]
        _save(path, extracted)
    return np.load(path)


def bank(kind: Kind, category: str, *, rows: int, out_of: int) -> np.ndarray:
    """float32 (rows, dim): the k-center selection from `out_of` training patches."""
    path = cache_directory() / f"bank-{kind}-{category}-{rows}-{out_of}.npy"
    if not path.exists():
        source = features(kind, category, "train", rows=out_of)
        _save(path, source[greedy_coreset_selection(source, rows, rng=np.random.default_rng(0)).indices])
    return np.load(path)


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(temporary, array)
    temporary.replace(path)


_extractors: dict[Kind, FeatureExtractor] = {}


def _extract(kind: Kind, image: Path) -> np.ndarray:
    if kind not in _extractors:
        layers = WIDE_LAYERS if kind == "wide" else None
        _extractors[kind] = FeatureExtractor("efficientnet_lite0", layers, neighborhood_size=1 if kind == "wide" else 3)
    extractor = _extractors[kind]
    if kind == "narrow":
        return extractor.extract(load_pixels(image))[0][0].numpy()
    return _wide(extractor, load_pixels(image))


@torch.inference_mode()
def _wide(extractor: FeatureExtractor, pixels: torch.Tensor) -> np.ndarray:
    flat, grid = extractor.extract(pixels)  # on the 64x64 grid of blocks.1
    maps = flat.permute(0, 2, 1).reshape(1, -1, *grid)
    fine, deep = maps[:, :24], functional.avg_pool2d(maps[:, 24:], 2)
    near = functional.avg_pool2d(deep, 3, 1, 1)
    far = functional.avg_pool2d(near, 7, 1, 3)
    stacked = torch.cat([near, far, functional.avg_pool2d(fine, 2), functional.max_pool2d(fine, 2)], dim=1)
    return stacked[0].permute(1, 2, 0).reshape(-1, stacked.shape[1]).contiguous().numpy()
