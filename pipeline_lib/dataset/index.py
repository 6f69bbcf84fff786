"""The dataset index: one row an image (DESIGN artifact 1), and what each category's test may see of it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd

from data_contracts.config import Layout, Orientation
from data_contracts.errors import DatasetError, ImageError
from data_contracts.settings import ImageReading
from data_contracts.tables import DATASET_INDEX
from pipeline_lib.dataset.image_files import LeftOut, loose_images
from pipeline_lib.dataset.images import (
    IMAGE_SUFFIXES,
    UPRIGHT,
    StoredImage,
    is_hidden,
    is_image_file,
    read_bytes,
    read_stored,
)
from pipeline_lib.dataset.layout import (
    DEFECTS_CONFIG,
    GOOD,
    FoundImage,
    category_directory,
    find_images,
    folders,
    listing,
    mask_files,
    refuse_equal_stems,
    select_categories,
    thin_out,
    visa_table,
)

_NO_PIXELS: dict[str, str | int] = {
    "width": 0, "height": 0, "bit_depth": 0, "max_value": 0, "is_constant": 0, "is_grey": 0, "orientation": 0,
    "pages": 0, "pixels_sha256": "",
}  # fmt: skip
logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
Look = Callable[[str, StoredImage], None]
"""Called with the id of each image that can be read and what its file holds, decoded; from several threads."""


def index_dataset(
    root: Path | str,
    *,
    layout: Layout = "autovi",
    categories: Sequence[str] | None = None,
    max_images: int | None = None,
    splits: Sequence[str] = ("train", "test"),
    require_train: Literal["each", "any", "none"] = "each",
    equal_stems: Literal["refused", "kept"] = "refused",
    orientation: Orientation = "applied",
    workers: int | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
) -> pd.DataFrame:
    """The images below `root` as a table in the schema DATASET_INDEX.

    Sorted by category, split (train first), label (good first) and file name in natural order (img2 before img10).
    Every file is read, hashed and decoded once, `workers` at a time; one that cannot be decoded stays as a row with
    `problem` set and width and height 0. With `max_images`, at most that many of each (category, split, label) are
    kept, evenly spaced from the first to the last. `orientation` says whether width and height are those of the picture
    as it is to be seen, in all formats.

    Raises DatasetError for a root that is missing, without any category, without a category that was asked for, without
    any image in the folders of the layout, or without good training images: in each category, in any of them, or none
    needed, as `require_train` says; and, but for a check that lists them, for two images of one folder whose names
    differ in the ending alone.
    """
    root = Path(root)
    found: list[FoundImage] = []
    untrained: list[str] = []
    left_out = LeftOut()
    is_empty = True
    for category, directory in select_categories(root, layout=layout, categories=categories).items():
        of_category = list(find_images(category, directory, layout, left_out=left_out))
        is_empty = is_empty and not of_category
        if not any(image.split == "train" for image in of_category):
            wanted = directory / folders(directory, layout).train
            there = wanted.parent if wanted.parent.is_dir() else directory
            untrained.append(
                f"category {category} has no good training images: looked for {', '.join(sorted(IMAGE_SUFFIXES))} "
                f"files in {wanted}; {there} holds {listing(there)}"
            )
        if equal_stems == "refused":
            refuse_equal_stems(of_category)
        found += thin_out([image for image in of_category if image.split in splits], max_images)
    if is_empty:
        raise DatasetError(f"no image found in {root} for layout {layout}; {loose_images(root)}")
    nowhere = not any(image.split == "train" for image in found)
    if untrained and "train" in splits and (require_train == "each" or (require_train == "any" and nowhere)):
        raise DatasetError(untrained[0])
    rows = []
    with ThreadPoolExecutor(max_workers=workers or min(8, os.cpu_count() or 1)) as pool:
        for row in pool.map(lambda image: _describe(image, root, orientation, look), found):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(found))
    if line := left_out.describe():
        logger.warning("%s: %s", root, line)
    bad = sum(1 for row in rows if row["problem"])
    if bad:
        logger.warning("%d of %d images in %s cannot be read and are set aside", bad, len(rows), root)
    return pd.DataFrame(rows, columns=DATASET_INDEX.names).astype(_column_types())


def dataset_fingerprint(root: Path | str, *, layout: Layout = "autovi", categories: Sequence[str] | None = None) -> str:
    """SHA-256 (hex) over path and status of all images, masks and defects_config.json files.

    It changes whenever one of them is added, removed, renamed, written or replaced, and opens none of them: a cache
    key. The status is size, inode and the times of modification and of change: a copy that keeps the old time of
    modification, or a restored backup, still has a new time of change, which no program can set.
    Raises DatasetError as `index_dataset` does.
    """
    digest = hashlib.sha256(f"{layout}\n".encode())
    for category, directory in select_categories(Path(root), layout=layout, categories=categories).items():
        digest.update(f"{category}\0".encode())
        for relative, *status in sorted(_relevant_files(directory, directory.name, depth=4)):
            fields = "\0".join([relative, *map(str, status)])
            digest.update(f"{fields}\n".encode(errors="surrogateescape"))
        if layout == "visa" and (table := visa_table(directory)):
            digest.update(table.read_bytes())
    return digest.hexdigest()


# --- finding -------------------------------------------------------------------------------------------------------


def _describe(image: FoundImage, root: Path, orientation: Orientation, look: Look | None) -> dict[str, str | int]:
    size = 0
    digest = problem = ""
    pixels: dict[str, str | int] = {}
    try:
        content = read_bytes(image.path)
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        stored = read_stored(content, name=image.path.name)
        pixels = _describe_pixels(stored, orientation)
        if look is not None:
            look(image.image_id, stored)
    except ImageError as error:
        problem = str(error)
    return {
        "image_id": image.image_id,
        "category": image.category,
        "split": image.split,
        "label": image.label,
        "label_index": int(image.label != GOOD),
        "path": image.path.relative_to(root).as_posix(),
        "bytes": size,
        "sha256": digest,
        "n_mask_channels": image.n_mask_channels,
        "problem": problem,
        **(pixels or _NO_PIXELS),
    }


def _describe_pixels(stored: StoredImage, orientation: Orientation) -> dict[str, str | int]:
    width, height = stored.to_rgb(ImageReading(orientation=orientation)).size
    return {
        "width": width,
        "height": height,
        "bit_depth": stored.bit_depth,
        "max_value": stored.max_value,
        "is_constant": int(stored.is_constant),
        "is_grey": int(stored.is_grey),
        "orientation": stored.orientation if orientation == "applied" else UPRIGHT,
        "pages": stored.pages,
        "pixels_sha256": stored.pixels_sha256(),
    }


def _column_types() -> dict[str, str]:
    return {field.name: "int64" if str(field.type) == "int64" else "str" for field in DATASET_INDEX}


# --- directories -----------------------------------------------------------------------------------------------------


def _relevant_files(directory: Path, relative: str, *, depth: int) -> Iterator[tuple[str, int, int, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = f"{relative}/{entry.name}"
            if is_hidden(entry.name):
                continue
            if entry.is_dir() and depth > 0:
                yield from _relevant_files(Path(entry.path), name, depth=depth - 1)
            elif is_image_file(Path(entry.name)) or entry.name == DEFECTS_CONFIG:
                status = entry.stat(follow_symlinks=os.path.exists(entry.path))
                yield name, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def category_test_table(index: pd.DataFrame, category: str) -> pd.DataFrame:
    """The readable test images of one category, in index order."""
    rows = index[(index.category == category) & (index.split == "test") & (index.problem == "")]
    return rows.reset_index(drop=True)


def refuse_bad_images(index: pd.DataFrame) -> None:
    """Raise DatasetError, naming the first images that cannot be read (`dataset.on_bad_image: fail`)."""
    bad = index[index.problem != ""]
    if len(bad):
        first = "; ".join(f"{row['path']}: {row['problem']}" for row in bad.head(3).to_dict("records"))
        raise DatasetError(f"{len(bad)} images cannot be read and dataset.on_bad_image is fail: {first}")


def ground_truth_sha256(index: pd.DataFrame, root: Path, category: str, *, layout: Layout) -> str:
    """SHA-256 over the content of a category's masks and defects_config.json: what its metrics depend on."""
    digest = hashlib.sha256()
    directory = category_directory(root, category, layout=layout)
    files = [directory / DEFECTS_CONFIG]
    for row in index[(index.category == category) & (index.label_index == 1)].to_dict("records"):
        files += mask_files(directory, row["label"], Path(row["path"]).stem, layout=layout)
    for file in files:
        if file.is_file():
            content = file.read_bytes()
            digest.update(f"{file.relative_to(directory).as_posix()} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()
