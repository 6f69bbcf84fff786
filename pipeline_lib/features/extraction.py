"""Patch features of images, computed once an image and backbone and shared by every experiment that needs them.

An image's features are stored, or how to make them again (`recipes`), under the hash of its file, the backbone, the
size and the version of the code, on a GPU also by how it computes, in float16 (relative error 2^-11). Whoever holds the
image finds them again; nobody reads the features of images that are not its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data_contracts.config import canonical_hash
from data_contracts.errors import ArtifactError, ConfigError, DatasetError
from data_contracts.manifests import Cells, Manifest
from data_contracts.settings import AS_EARLIER, BackboneSettings, ImageReading, Reading
from pipeline_lib.configuration.hardware import kernels_key
from pipeline_lib.dataset.images import load_image
from pipeline_lib.features.preprocessing import preprocess_image
from pipeline_lib.features.recipes import Recipe, can_be_had, write_recipe
from pipeline_lib.storage.artifact_store import ArtifactStore, sha256_of_file
from pipeline_lib.storage.references import image_manifests
from pipeline_lib.storage.scratch import scratch_array
from pipeline_lib.when_needed import torch

if TYPE_CHECKING:
    from pipeline_lib.features.extractor import FeatureExtractor

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
STORED_DTYPE = np.float16
RECORDS = "image_features"


@dataclass(frozen=True)
class ImageRow:
    """One image to extract, as the dataset index or a client's table lists it."""

    image_id: str
    category: str
    path: Path
    sha256: str
    size_bytes: int


def image_rows(frame: pd.DataFrame, data_root: Path) -> list[ImageRow]:
    """Rows of a dataset index or client table -> images to extract, in the table's order."""
    columns = zip(frame.image_id, frame.category, frame.path, frame.sha256, frame.bytes, strict=True)
    return [ImageRow(i, c, data_root / p, s, int(b)) for i, c, p, s, b in columns]


def feature_key(
    image_sha256: str,
    settings: BackboneSettings,
    size: tuple[int, int],
    *,
    version: str,
    reading: ImageReading,
    kernels: Mapping[str, object] | None = None,
) -> str:
    """Key of an image's features: its file's hash, the backbone, the (width, height) it is resized to, and by what.

    `version`: of the code; `reading`: how the file became pixels; `kernels`: `hardware.kernels_key`.
    """
    by: dict[str, object] = {} if kernels is None else {"kernels": dict(kernels)}
    if reading != AS_EARLIER.of(None):
        by["reading"] = reading.model_dump()
    return canonical_hash([image_sha256, settings.identity(), list(size), {"version": version, **by}])


@functools.lru_cache(maxsize=2)
def shared_extractor(settings: BackboneSettings, device: torch.device) -> FeatureExtractor:
    """One extractor a process for each backbone; it may be used by several threads at once."""
    from pipeline_lib.features.extractor import FeatureExtractor  # a class of torch's: imported where it computes

    return FeatureExtractor(settings=settings, device=device)


def extract_features(
    rows: list[ImageRow],
    store: ArtifactStore,
    extractor: FeatureExtractor,
    sizes: dict[str, tuple[int, int]],
    *,
    reading: Reading = AS_EARLIER,
    version: str | None = None,
    batch_size: int = 32,
    num_workers: int = 4,
    remade_from: Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Make sure that every image's features are in the store; returns a table in schema PATCH_FEATURES.

    With a `version` of the code, features that were computed before by this code are taken from the store. On the CPU
    images go through one at a time: cache-sized work, and the same bytes whatever else is in the batch. On a GPU, what
    memory sent through in smaller batches or on the CPU counts as computed in batches of `batch_size` all the same.
    With the data set's root `remade_from` the store keeps how to make features in place of them.
    Raises DatasetError when a file has changed since it was indexed, OSError when it cannot be opened, ConfigError for
    `remade_from` on a GPU, where features made again are not the same to the bit.
    """
    if remade_from is not None and extractor.device.type != "cpu":
        raise ConfigError(
            "runtime.keep_features: false makes features again where they are needed, which gives the same bytes on "
            f"the CPU alone; this run computes on {extractor.device.type}: set runtime.device: cpu, or keep them"
        )
    cudnn = torch.backends.cudnn
    kernels = kernels_key(
        extractor.device, batch_size=batch_size, deterministic=cudnn.deterministic, tf32=cudnn.allow_tf32
    )

    def key(row: ImageRow, version: str) -> str:
        size = sizes[row.category]
        return feature_key(
            row.sha256,
            extractor.settings,
            size,
            version=version,
            reading=reading.of(row.category),
            kernels=kernels,
        )

    def keep_recipe(row: ImageRow, features: Manifest) -> None:
        """Also of features that were there: their image may lie elsewhere by now."""
        if remade_from is not None:
            recipe = Recipe(
                image=row.path.relative_to(remade_from).as_posix(),
                image_sha256=row.sha256,
                size=sizes[row.category],
                reading=reading.of(row.category),
                backbone=extractor.settings,
            )
            write_recipe(store, features, recipe)

    manifests: dict[int, tuple[Manifest, tuple[int, int], int]] = {}
    missing = []
    for position, row in enumerate(rows):
        found = None if version is None else _stored_features(store, key(row, version), kept=remade_from is None)
        if found is None:
            missing.append(position)
        else:
            manifests[position] = found
            keep_recipe(row, found[0])
    done = len(manifests)
    if progress:
        progress(done, len(rows))
    for positions, pixels in _batches(rows, missing, sizes, reading, extractor, batch_size, num_workers):
        features, grid = extract_batch(extractor, pixels)
        for position, array in zip(positions, features, strict=True):
            row = rows[position]
            if not np.isfinite(array).all():
                raise DatasetError(f"{row.path}: its features are not finite in float16; check mean, std and weights")
            manifest = store.write_array("image_features", array, durable=False, keep=remade_from is None)
            keep_recipe(row, manifest)
            if version is not None:
                record = {"manifest": manifest.model_dump(), "grid": grid, "dim": array.shape[1]}
                store.remember(RECORDS, key(row, version), record)
            manifests[position] = (manifest, grid, array.shape[1])
        done += len(positions)
        if progress:
            progress(done, len(rows))
    table = []
    for position, row in enumerate(rows):
        manifest, grid, dim = manifests[position]
        width, height = sizes[row.category]
        table.append(_table_row(row, manifest, grid, dim, extractor.cells((height, width), grid)))
    return pd.DataFrame(table)


def read_patches(
    table: pd.DataFrame, store: ArtifactStore, *, dtype: type = np.float32, scratch: Path | None = None
) -> np.ndarray:
    """The patches of all images of a PATCH_FEATURES table, (patch, dim), in the table's order; checked on reading.

    float16 is how they are stored. With the directory `scratch`, more than 64 MiB of them are memory-mapped there.
    """
    counts = (table.grid_height * table.grid_width).to_numpy()
    patches = scratch_array((int(counts.sum()), int(table.dim.iloc[0])), dtype, directory=scratch)
    start = 0
    for manifest, count in zip(image_manifests(table), counts, strict=True):
        patches[start : start + count] = store.read_array(manifest)
        start += count
    return patches


def make_again(recipe: Recipe, features: Manifest, store: ArtifactStore, data_root: Path) -> np.ndarray:
    """An image's features (patch, dim), float16, that the store does not keep; checked as those that it keeps.

    Raises ArtifactError when other bytes come out, else as `extract_features`.
    """
    path = data_root / recipe.image
    pixels = _load_pixels(path, recipe.image_sha256, recipe.size, recipe.reading)
    extractor = shared_extractor(recipe.backbone, torch.device("cpu"))
    array: np.ndarray = extract_batch(extractor, pixels[None])[0][0]
    if store.write_array("image_features", array, keep=False).sha256 != features.sha256:
        raise ArtifactError(
            f"{path}: its features come out otherwise than before, as on another processor or with another library; "
            "run again, which extracts them anew"
        )
    return array


def _stored_features(store: ArtifactStore, key: str, *, kept: bool) -> tuple[Manifest, tuple[int, int], int] | None:
    record = store.recall(RECORDS, key)
    if record is None:
        return None
    manifest = Manifest.model_validate(record["manifest"])
    if not can_be_had(store, manifest, kept=kept):
        logger.warning("stored features are missing or damaged, computing them again: %s", manifest.path)
        return None
    return manifest, (record["grid"][0], record["grid"][1]), record["dim"]


def _table_row(row: ImageRow, manifest: Manifest, grid: tuple[int, int], dim: int, cells: Cells) -> dict[str, object]:
    return {
        "image_id": row.image_id,
        "category": row.category,
        "image_sha256": row.sha256,
        "image_bytes": row.size_bytes,
        "grid_height": grid[0],
        "grid_width": grid[1],
        "dim": dim,
        "cells": cells.for_table(),
        "path": manifest.path,
        "sha256": manifest.sha256,
        "size_bytes": manifest.size_bytes,
    }


def _load_pixels(path: Path, sha256: str, size: tuple[int, int], reading: ImageReading) -> torch.Tensor:
    if not path.exists():
        raise FileNotFoundError(f"{path} is gone since it was indexed")
    if sha256_of_file(path) != sha256:
        raise DatasetError(_changed(path, reading))
    return torch.from_numpy(preprocess_image(load_image(path, reading), width=size[0], height=size[1]))


def _changed(path: Path, reading: ImageReading) -> str:
    """What became of a file that is not what was indexed, and what to do."""
    try:
        load_image(path, reading)
    except (DatasetError, OSError) as error:
        return (
            f"{path} has changed since it was indexed and can no longer be read: put it back as it was, or remove it, "
            f"then run again ({error})"
        )
    return (
        f"{path} has changed since it was indexed, and can be read: where it belongs there, run again, which indexes "
        "the data set anew; otherwise put it back as it was first"
    )


def _batches(
    rows: list[ImageRow],
    positions: list[int],
    sizes: dict[str, tuple[int, int]],
    reading: Reading,
    extractor: FeatureExtractor,
    batch_size: int,
    num_workers: int,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Batches of one image size in the rows' order; decoding runs ahead of computing."""
    step = 1 if extractor.device.type == "cpu" else batch_size
    groups: list[list[int]] = []
    for position in positions:
        size = sizes[rows[position].category]
        if groups and len(groups[-1]) < step and sizes[rows[groups[-1][0]].category] == size:
            groups[-1].append(position)
        else:
            groups.append([position])
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        ahead = max(2, num_workers) * 2
        pending: list[list[object]] = []
        for number, group in enumerate(groups):
            for later in groups[len(pending) + number : number + ahead]:
                chosen = [rows[p] for p in later]
                pending.append(
                    [
                        pool.submit(_load_pixels, r.path, r.sha256, sizes[r.category], reading.of(r.category))
                        for r in chosen
                    ]
                )
            loaded = [future.result() for future in pending.pop(0)]  # type: ignore[attr-defined]
            yield group, torch.stack(loaded)


def extract_batch(extractor: FeatureExtractor, values: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """Features of a batch in the stored precision, float16 (image, patch, dim), and the patch grid.

    values: uint8 pixels (image, height, width, 3), or normalized floats (image, 3, height, width). Falls back to halves
    of the batch, then to the CPU, when memory runs out. Values beyond float16 become infinite; callers refuse them.
    """
    try:
        return _extract(extractor, values)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        if len(values) > 1:
            logger.warning("out of GPU memory with %d images at a time, trying half of it", len(values))
            half = len(values) // 2
            first, grid = extract_batch(extractor, values[:half])
            return np.concatenate([first, extract_batch(extractor, values[half:])[0]]), grid
        logger.warning("out of GPU memory with a single image, going on with the CPU")
        return _extract(shared_extractor(extractor.settings, torch.device("cpu")), values)


def _extract(extractor: FeatureExtractor, values: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    is_pixels = values.dtype == torch.uint8
    features, grid = extractor.extract(values) if is_pixels else extractor.extract_normalized(values.float())
    with np.errstate(over="ignore"):
        return features.numpy().astype(STORED_DTYPE), grid
