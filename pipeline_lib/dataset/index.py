"""The dataset index: one row an image, found by the layout of the directories (DESIGN artifact 1).

Layouts, below `<root>/<category>/` (a category unzipped twice deep, `<root>/<category>/<category>/`, is accepted, and
so is a root that is itself one category):

* autovi: train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>/*.png, defects_config.json
* mvtec: the same folders, with one mask an image, ground_truth/<defect>/<stem>_mask.png
* folder: good/ and any other folder, each of which is a kind of defect; no masks. The last fifth of the good images in
  natural order (rounded down, at least one where there are two) is the good half of the test set, the rest is for
  training. Where train/ and test/ exist instead, they are used as in the other layouts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from data_contracts.errors import DatasetError, ImageError
from data_contracts.tables import DATASET_INDEX
from pipeline_lib.dataset.images import IMAGE_SUFFIXES, decode_image, is_image_file, read_bytes, to_rgb

logger = logging.getLogger(__name__)

Layout = Literal["autovi", "mvtec", "folder"]
Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

GOOD = "good"
DEFECTS_CONFIG = "defects_config.json"
_NOT_LABELS = frozenset({"train", "test", "ground_truth"})
_LOOKED_FOR = {
    "autovi": "directories with train/good and test/<defect>",
    "mvtec": "directories with train/good and test/<defect>",
    "folder": "directories with good/ (or train/ and test/)",
}


@dataclass(frozen=True)
class FoundImage:
    """An image file and where it belongs, before it is read."""

    category: str
    split: str
    label: str
    path: Path
    image_id: str
    n_mask_channels: int


def index_dataset(
    root: Path | str,
    *,
    layout: Layout = "autovi",
    categories: Sequence[str] | None = None,
    max_images: int | None = None,
    splits: Sequence[str] = ("train", "test"),
    require_train: Literal["each", "any", "none"] = "each",
    workers: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The images below `root` as a table in the schema DATASET_INDEX.

    Sorted by category, split (train first), label (good first) and file name in natural order (img2 before img10).
    Every file is read, hashed and decoded once, `workers` at a time; one that cannot be decoded stays as a row with
    `problem` set and width and height 0. With `max_images`, at most that many of each (category, split, label) are
    kept, evenly spaced from the first to the last.

    Raises DatasetError for a root that is missing, without any category, without a category that was asked for, or
    without good training images: in each category, in any of them, or none needed, as `require_train` says.
    """
    root = Path(root)
    found: list[FoundImage] = []
    untrained: list[str] = []
    for category, directory in select_categories(root, layout=layout, categories=categories).items():
        of_category = list(find_images(category, directory, layout))
        if not any(image.split == "train" for image in of_category):
            wanted = "good" if layout == "folder" else "train/good"
            untrained.append(
                f"category {category} has no good training images: looked for {', '.join(sorted(IMAGE_SUFFIXES))} "
                f"files in {directory / wanted}; {directory} holds {_listing(directory)}"
            )
        found += thin_out([image for image in of_category if image.split in splits], max_images)
    nowhere = not any(image.split == "train" for image in found)
    if untrained and "train" in splits and (require_train == "each" or (require_train == "any" and nowhere)):
        raise DatasetError(untrained[0])
    rows = []
    with ThreadPoolExecutor(max_workers=workers or min(8, os.cpu_count() or 1)) as pool:
        for row in pool.map(lambda image: _describe(image, root), found):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(found))
    bad = sum(1 for row in rows if row["problem"])
    if bad:
        logger.warning("%d of %d images in %s cannot be read and are set aside", bad, len(rows), root)
    return pd.DataFrame(rows, columns=DATASET_INDEX.names).astype(_column_types())


def dataset_fingerprint(root: Path | str, *, layout: Layout = "autovi", categories: Sequence[str] | None = None) -> str:
    """SHA-256 (hex) over path, size and modification time of all images, masks and defects_config.json files.

    It changes whenever one of them is added, removed, renamed or written, and opens none of them: a cache key.
    Raises DatasetError as `index_dataset` does.
    """
    digest = hashlib.sha256(f"{layout}\n".encode())
    for category, directory in select_categories(Path(root), layout=layout, categories=categories).items():
        digest.update(f"{category}\0".encode())
        for relative, size, modified_ns in sorted(_relevant_files(directory, directory.name, depth=4)):
            digest.update(f"{relative}\0{size}\0{modified_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def find_categories(root: Path | str, *, layout: Layout = "autovi") -> dict[str, Path]:
    """Category name -> its directory, sorted by name; empty where there is none.

    Raises DatasetError where `root` is not a directory, and for another layout.
    """
    root = Path(root)
    if layout not in _LOOKED_FOR:
        raise DatasetError(f"layout is {layout!r}; it accepts {', '.join(_LOOKED_FOR)}")
    if not root.is_dir():
        kind = "is not a directory" if root.exists() else "does not exist"
        raise DatasetError(f"data set root {root} {kind}; set dataset.root to the directory that holds the categories")
    if _is_category(root, layout):
        return {root.resolve().name: root}
    candidates = ((directory.name, _unzipped(directory, layout)) for directory in _directories(root))
    return {name: directory for name, directory in sorted(candidates) if _is_category(directory, layout)}


def select_categories(
    root: Path | str, *, layout: Layout = "autovi", categories: Sequence[str] | None = None
) -> dict[str, Path]:
    """`find_categories`, narrowed to `categories`. Raises DatasetError where none or not all are there."""
    there = find_categories(root, layout=layout)
    if not there:
        raise DatasetError(
            f"no category found in {root} for layout {layout}: looked for {_LOOKED_FOR[layout]}; "
            f"it holds {_listing(Path(root))}"
        )
    if categories is None:
        return there
    if missing := [name for name in categories if name not in there]:
        raise DatasetError(f"no category {', '.join(missing)} in {root}; there are {', '.join(there)}")
    return {name: directory for name, directory in there.items() if name in set(categories)}


def category_directory(root: Path | str, category: str, *, layout: Layout = "autovi") -> Path:
    """The directory of one category. Raises DatasetError where it is not there."""
    directory = _unzipped(Path(root) / category, layout)
    if _is_category(directory, layout):
        return directory
    return select_categories(root, layout=layout, categories=[category])[category]


def mask_files(directory: Path, folder: str, stem: str, *, layout: Layout = "autovi") -> list[Path]:
    """Mask files of the test image <folder>/<stem> of the category in `directory`, in natural order."""
    ground_truth = directory / "ground_truth" / folder
    match layout:
        case "autovi":
            return [path for path in _files(ground_truth / stem) if path.suffix.lower() == ".png"]
        case "mvtec":
            return [path for path in (ground_truth / f"{stem}_mask.png",) if path.is_file()]
        case "folder":
            return []


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sorting key of a file name: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


# --- finding -------------------------------------------------------------------------------------------------------


def _is_category(directory: Path, layout: Layout) -> bool:
    wanted = ("good", "train") if layout == "folder" else ("train", "test")
    return any((directory / name).is_dir() for name in wanted)


def _unzipped(directory: Path, layout: Layout) -> Path:
    inner = directory / directory.name
    return inner if _is_category(inner, layout) and not _is_category(directory, layout) else directory


def find_images(category: str, directory: Path, layout: Layout) -> Iterator[FoundImage]:
    """The category's images in the order of the index."""
    by_split: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    if layout == "folder" and not (directory / "train").is_dir():
        good = _images(directory / GOOD)
        n_test = max(1, len(good) // 5) if len(good) > 1 else 0
        by_split["train"][GOOD] = good[: len(good) - n_test]
        by_split["test"] = {GOOD: good[len(good) - n_test :]}
        labels = [folder for folder in _directories(directory) if folder.name not in _NOT_LABELS]
    else:
        by_split["train"][GOOD] = _images(directory / "train" / GOOD)
        labels = _directories(directory / "test")
        by_split["test"] = {GOOD: _images(directory / "test" / GOOD)}
    by_split["test"] |= {folder.name: _images(folder) for folder in sorted(labels) if folder.name != GOOD}
    for split, by_label in by_split.items():
        for label, paths in by_label.items():
            stems = Counter(path.stem for path in paths)
            for path in paths:
                name = path.stem if stems[path.stem] == 1 else path.name
                masks = mask_files(directory, label, path.stem, layout=layout) if split == "test" else []
                yield FoundImage(category, split, label, path, f"{category}/{split}/{label}/{name}", len(masks))


def thin_out(images: list[FoundImage], max_images: int | None) -> list[FoundImage]:
    """At most `max_images` of each split and label, evenly spaced."""
    if max_images is None:
        return images
    groups: dict[tuple[str, str], list[FoundImage]] = {}
    for image in images:
        groups.setdefault((image.split, image.label), []).append(image)
    kept = []
    for group in groups.values():
        count = min(max_images, len(group))
        kept += [group[position * (len(group) - 1) // max(1, count - 1)] for position in range(count)]
    return kept


def _describe(image: FoundImage, root: Path) -> dict[str, str | int]:
    width = height = size = 0
    digest = problem = ""
    try:
        content = read_bytes(image.path)
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        width, height = to_rgb(decode_image(content, name=image.path.name), name=image.path.name).size
    except ImageError as error:
        width = height = 0
        problem = str(error)
    return {
        "image_id": image.image_id,
        "category": image.category,
        "split": image.split,
        "label": image.label,
        "label_index": int(image.label != GOOD),
        "path": image.path.relative_to(root).as_posix(),
        "width": width,
        "height": height,
        "bytes": size,
        "sha256": digest,
        "n_mask_channels": image.n_mask_channels,
        "problem": problem,
    }


def _column_types() -> dict[str, str]:
    return {field.name: "int64" if str(field.type) == "int64" else "str" for field in DATASET_INDEX}


# --- directories -----------------------------------------------------------------------------------------------------


def _entries(directory: Path) -> list[Path]:
    """Entries that are not hidden, in natural order. Raises DatasetError for names that are not UTF-8."""
    if not directory.is_dir():
        return []
    try:
        entries = [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"cannot list {directory}: {error.strerror or error}") from error
    for path in entries:
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(f"a file name in {directory} is not UTF-8: {path.name!r}; rename it") from error
    return sorted(entries, key=lambda path: natural_order(path.name))


def _directories(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_dir()]


def _files(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_file()]


def _images(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if is_image_file(path)]


def _relevant_files(directory: Path, relative: str, *, depth: int) -> Iterator[tuple[str, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = f"{relative}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and depth > 0:
                yield from _relevant_files(Path(entry.path), name, depth=depth - 1)
            elif is_image_file(Path(entry.name)) or entry.name == DEFECTS_CONFIG:
                status = entry.stat(follow_symlinks=os.path.exists(entry.path))
                yield name, status.st_size, status.st_mtime_ns


def _listing(directory: Path, limit: int = 8) -> str:
    names = [f"{path.name}/" if path.is_dir() else path.name for path in _entries(directory)]
    shown = ", ".join(names[:limit]) or "nothing"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
