"""Where a data set's categories, images and masks lie on disk.

Layouts, below `<root>/<category>/` (a category unzipped twice deep, `<root>/<category>/<category>/`, is accepted, and
so is a root that is itself one category):

* autovi: train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>/*.png, defects_config.json
* mvtec: the same folders, with one mask an image, ground_truth/<defect>/<stem>_mask.png
* folder: good/ and any other folder, each of which is a kind of defect; no masks. The last fifth of the good images in
  natural order (rounded down, at least one where there are two) is the good half of the test set, the rest is for
  training. Where train/ and test/ exist instead, they are used as in the other layouts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.image_files import LeftOut, count_outside, images_in
from pipeline_lib.dataset.images import is_hidden

Layout = Literal["autovi", "mvtec", "folder"]
GOOD = "good"
UNANNOTATED = "unannotated"
"""The folder of defective images that nobody has drawn masks for: they are in the image metrics alone."""
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
            f"it holds {listing(Path(root))}"
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


def _is_category(directory: Path, layout: Layout) -> bool:
    wanted = ("good", "train") if layout == "folder" else ("train", "test")
    return any((directory / name).is_dir() for name in wanted)


def _unzipped(directory: Path, layout: Layout) -> Path:
    inner = directory / directory.name
    return inner if _is_category(inner, layout) and not _is_category(directory, layout) else directory


def find_images(
    category: str, directory: Path, layout: Layout, *, left_out: LeftOut | None = None
) -> Iterator[FoundImage]:
    """The category's images in the order of the index; `left_out` counts the other files beside them."""
    left_out = LeftOut() if left_out is None else left_out
    by_split: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    if layout == "folder" and not (directory / "train").is_dir():
        good = _images(directory / GOOD, left_out)
        n_test = max(1, len(good) // 5) if len(good) > 1 else 0
        by_split["train"][GOOD] = good[: len(good) - n_test]
        by_split["test"] = {GOOD: good[len(good) - n_test :]}
        labels = [folder for folder in _directories(directory) if folder.name not in _NOT_LABELS]
        _count_outside(directory, {*_NOT_LABELS, GOOD, *(folder.name for folder in labels)}, left_out)
    else:
        by_split["train"][GOOD] = _images(directory / "train" / GOOD, left_out)
        labels = _directories(directory / "test")
        by_split["test"] = {GOOD: _images(directory / "test" / GOOD, left_out)}
        _count_outside(directory / "train", {GOOD}, left_out)
        _count_outside(directory / "test", {GOOD, *(folder.name for folder in labels)}, left_out)
    by_split["test"] |= {folder.name: _images(folder, left_out) for folder in sorted(labels) if folder.name != GOOD}
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


def refuse_equal_stems(images: Collection[FoundImage]) -> None:
    """Raise DatasetError where two images of one folder have the same name but for the ending: mask and map are found
    by it, so that one of them would get the other's."""
    by_name: dict[tuple[Path, str], list[Path]] = {}
    for image in images:
        by_name.setdefault((image.path.parent, image.path.stem), []).append(image.path)
    if equal := [paths for paths in by_name.values() if len(paths) > 1]:
        shown = "; ".join(" and ".join(str(path) for path in paths) for paths in equal[:3])
        raise DatasetError(
            f"{len(equal)} names in one folder stand for several images: {shown}; masks and maps are found by the name "
            f"without its ending; rename or remove all but one"
        )


def _entries(directory: Path) -> list[Path]:
    """Entries that are not hidden, in natural order. Raises DatasetError for names that are not UTF-8."""
    if not directory.is_dir():
        return []
    try:
        return _sorted(directory, [path for path in directory.iterdir() if not is_hidden(path.name)])
    except OSError as error:
        raise DatasetError(f"cannot list {directory}: {error.strerror or error}") from error


def _sorted(directory: Path, entries: list[Path]) -> list[Path]:
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


def _images(directory: Path, left_out: LeftOut) -> list[Path]:
    """The images right in a directory."""
    if not directory.is_dir():
        return []
    try:
        return _sorted(directory, images_in(directory, left_out))
    except OSError as error:
        raise DatasetError(f"cannot list {directory}: {error.strerror or error}") from error


def _count_outside(directory: Path, folders: Collection[str], left_out: LeftOut) -> None:
    if directory.is_dir():
        try:
            count_outside(directory, folders, left_out)
        except OSError as error:
            raise DatasetError(f"cannot list {directory}: {error.strerror or error}") from error


def listing(directory: Path, limit: int = 8) -> str:
    names = [f"{path.name}/" if path.is_dir() else path.name for path in _entries(directory)]
    shown = ", ".join(names[:limit]) or "nothing"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
