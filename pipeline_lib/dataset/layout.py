"""Where a data set's categories, images and masks lie on disk.

Layouts, below `<root>/<category>/` (a category unzipped twice deep, `<root>/<category>/<category>/`, is accepted, and
so is a root that is itself one category, and one that is a symbolic link):

* autovi, and MVTec LOCO: train/good, test/good, test/<defect>, defects_config.json, and as masks
  ground_truth/<defect>/<stem>/*.png or ground_truth/<defect>/<stem>.png
* mvtec: the same folders, with one mask an image, ground_truth/<defect>/<stem>_mask.png
* mvtec_ad2: train/good, test_public/good, test_public/<defect>, test_public/ground_truth/<defect>/<stem>_mask.png
* visa: Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly/<stem>.png; which of the normal ones are for
  training says <root>/split_csv/1cls.csv, and where there is none, they are divided as in the layout folder
* folder: good/ and any other folder, each of which is a kind of defect; no masks. The last fifth of the good images in
  natural order (rounded down, at least one where there are two) is the good half of the test set, the rest is for
  training. Where train/ and test/ exist instead, they are used as in the other layouts.

Good images that a layout has beside these (validation/good of MVTec LOCO and AD 2) and test images without a truth
(test_private) are left out and counted. Normal images in the folders of two layouts, such as good/ beside train/good/,
are an error that names both.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_contracts.config import Layout
from data_contracts.errors import DatasetError
from pipeline_lib.dataset.image_files import LeftOut, count_outside, images_in, loose_images
from pipeline_lib.dataset.images import is_hidden

GOOD = "good"
UNANNOTATED = "unannotated"
"""The folder of defective images that nobody has drawn masks for: they are in the image metrics alone."""
DEFECTS_CONFIG = "defects_config.json"
VISA_SPLIT = "split_csv/1cls.csv"
_NOT_LABELS = frozenset({"train", "test", "ground_truth"})


@dataclass(frozen=True)
class LayoutRules:
    """Where a layout has what, below the directory of a category."""

    looked_for: str
    marks: tuple[str, ...]  # directories of which any makes a directory a category
    train: str  # good images
    test: str  # a directory for each kind of defect, and `good`
    good: str = GOOD
    truth: str = "ground_truth"  # a directory of masks for each kind of defect
    masks: Literal["named", "marked", "none"] = "none"  # by their values' names, by what is not 0, or not there
    suffix: str = ""  # of a mask's stem after its image's


_AD = ("directories with train/good and test/<defect>", ("train", "test"), "train/good", "test")
RULES: dict[Layout, LayoutRules] = {
    "autovi": LayoutRules(*_AD, masks="named"),
    "mvtec": LayoutRules(*_AD, masks="marked", suffix="_mask"),
    "mvtec_ad2": LayoutRules(
        "directories with train/good and test_public/<defect>", ("test_public",), "train/good", "test_public",
        truth="test_public/ground_truth", masks="marked", suffix="_mask",
    ),
    "visa": LayoutRules(
        "directories with Data/Images/Normal", ("Data/Images",), "Data/Images/Normal", "Data/Images",
        good="Normal", truth="Data/Masks", masks="marked",
    ),
    "folder": LayoutRules("directories with good/ (or train/ and test/)", ("good", "train"), "train/good", "test"),
}  # fmt: skip


_NORMAL_FOLDERS = frozenset({GOOD}.union(*({rules.train, f"{rules.test}/{rules.good}"} for rules in RULES.values())))
"""Of all layouts: where people put the normal images of a category."""


@dataclass(frozen=True)
class Folders:
    """Of a category, relative to its directory: where its images are looked for."""

    train: str
    test_good: str
    defect: str  # with <defect> for the name of a kind, where the layout has a folder for each


def folders(directory: Path, layout: Layout) -> Folders:
    """The folders of the category in `directory`."""
    rules = RULES[layout]
    if layout == "folder" and not (directory / "train").is_dir():
        return Folders(GOOD, GOOD, "<defect>")
    defect = "Anomaly" if layout == "visa" else "<defect>"
    return Folders(rules.train, f"{rules.test}/{rules.good}", f"{rules.test}/{defect}")


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
    if layout not in RULES:
        raise DatasetError(f"layout is {layout!r}; it accepts auto, {', '.join(RULES)}")
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
            f"no category found in {root} for layout {layout}: looked for {RULES[layout].looked_for}; "
            f"it holds {listing(Path(root))}; {loose_images(Path(root))}"
        )
    if categories is None:
        return there
    if missing := [name for name in categories if name not in there]:
        raise DatasetError(f"no category {', '.join(missing)} in {root}; there are {', '.join(there)}")
    return {name: directory for name, directory in there.items() if name in set(categories)}


def detect_layout(root: Path | str) -> tuple[Layout, str]:
    """The layout that all categories below `root` have, and what shows it, relative to `root`.

    Raises DatasetError where `root` is not a directory, holds no category of any layout, or categories of two.
    """
    root = Path(root)
    find_categories(root)
    candidates = [root, *(inner if (inner := path / path.name).is_dir() else path for path in _directories(root))]
    shown: dict[Layout, str] = {}
    for directory in candidates[:1] if _shown_layout(root) else candidates[1:]:
        if found := _shown_layout(directory):
            shown.setdefault(found[0], found[1].relative_to(root).as_posix())
    if not shown:
        looked_for = "; ".join(dict.fromkeys(f"{rules.looked_for} ({name})" for name, rules in RULES.items()))
        raise DatasetError(
            f"no category of any layout found in {root}: looked for {looked_for}; it holds {listing(root)}; "
            f"{loose_images(root)}"
        )
    if len(shown) > 1 and shown.get("folder", "").endswith("test"):  # without masks it fits the other, too
        del shown["folder"]
    if len(shown) > 1:
        raise DatasetError(
            f"the categories in {root} have different layouts: {', '.join(f'{k} ({v})' for k, v in shown.items())}; "
            f"say dataset.layout or --layout, or use one data set for each"
        )
    return next(iter(shown.items()))


def resolved_layout(layout: Layout, root: Path | str) -> Layout:
    """`layout`, or where it is auto the one that the data set has. Raises DatasetError as `detect_layout`."""
    return detect_layout(root)[0] if layout == "auto" else layout


def _shown_layout(directory: Path) -> tuple[Layout, Path] | None:
    """The layout of a category and the file or directory that shows it; None where it is no category."""
    early: tuple[Layout, ...] = ("visa", "mvtec_ad2")
    for layout in early:
        if (own := directory / RULES[layout].marks[0]).is_dir():
            return layout, own
    if not all((directory / name).is_dir() for name in ("train", "test")):
        mark = next((path for name in ("good", "train") if (path := directory / name).is_dir()), None)
        return None if mark is None else ("folder", mark)
    if (config := directory / DEFECTS_CONFIG).is_file():
        return "autovi", config
    for folder in _directories(directory / "ground_truth"):
        for mask in _entries(folder):
            return ("autovi" if mask.is_dir() else "mvtec"), mask
    return "folder", directory / "test"


def category_directory(root: Path | str, category: str, *, layout: Layout = "autovi") -> Path:
    """The directory of one category. Raises DatasetError where it is not there."""
    directory = _unzipped(Path(root) / category, layout)
    if _is_category(directory, layout):
        return directory
    return select_categories(root, layout=layout, categories=[category])[category]


def mask_files(directory: Path, folder: str, stem: str, *, layout: Layout = "autovi") -> list[Path]:
    """Mask files of the test image <folder>/<stem> of the category in `directory`, in natural order."""
    rules = RULES[layout]
    truth = directory / rules.truth / folder
    match rules.masks:
        case "named":
            own = [path for path in _files(truth / stem) if path.suffix.lower() == ".png"]
            return own or [path for path in (truth / f"{stem}.png",) if path.is_file()]
        case "marked":
            return [path for path in (truth / f"{stem}{rules.suffix}.png",) if path.is_file()]
        case "none":
            return []


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sorting key of a file name: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _is_category(directory: Path, layout: Layout) -> bool:
    return any((directory / name).is_dir() for name in RULES[layout].marks)


def _unzipped(directory: Path, layout: Layout) -> Path:
    inner = directory / directory.name
    return inner if _is_category(inner, layout) and not _is_category(directory, layout) else directory


def find_images(
    category: str, directory: Path, layout: Layout, *, left_out: LeftOut | None = None
) -> Iterator[FoundImage]:
    """The category's images in the order of the index; `left_out` counts the other files beside them.

    Raises DatasetError where it has normal images in folders of two layouts, so that one would be ignored.
    """
    left_out = LeftOut() if left_out is None else left_out
    rules = RULES[layout]
    own = folders(directory, layout)
    _refuse_ignored_normal(directory, dict.fromkeys((own.train, own.test_good)))
    if own.train == GOOD:
        train, test_good = _last_fifth(_images(directory / GOOD, left_out))
        labels = [folder for folder in _directories(directory) if folder.name not in {*_NOT_LABELS, GOOD}]
        _count_outside(directory, {"ground_truth", GOOD, *(folder.name for folder in labels)}, left_out)
    else:
        train = _images(directory / rules.train, left_out)
        labels = [
            folder for folder in _directories(directory / rules.test) if folder.name not in {rules.good, "ground_truth"}
        ]
        if layout == "visa":
            train, test_good = _visa_split(directory, train, left_out)
        else:
            test_good = _images(directory / rules.test / rules.good, left_out)
            _count_outside(directory / "train", {GOOD}, left_out)
            _count_outside(directory / "validation", (), left_out)
        _count_outside(
            directory / rules.test, {rules.good, "ground_truth", *(folder.name for folder in labels)}, left_out
        )
    by_split: dict[str, dict[str, list[Path]]] = {"train": {GOOD: train}, "test": {GOOD: test_good}}
    by_split["test"] |= {folder.name: _images(folder, left_out) for folder in sorted(labels)}
    for split, by_label in by_split.items():
        for label, paths in by_label.items():
            stems = Counter(path.stem for path in paths)
            for path in paths:
                name = path.stem if stems[path.stem] == 1 else path.name
                masks = mask_files(directory, label, path.stem, layout=layout) if split == "test" else []
                yield FoundImage(category, split, label, path, f"{category}/{split}/{label}/{name}", len(masks))


def _refuse_ignored_normal(directory: Path, read: Collection[str]) -> None:
    """Raise DatasetError where normal images lie in a folder of another layout than those that are `read`."""
    counts = {name: len(_images(directory / name, LeftOut())) for name in sorted(_NORMAL_FOLDERS)}
    there = [name for name, number in counts.items() if number]
    if ignored := [name for name in there if name not in read]:
        told = " and in ".join(f"{name} ({counts[name]} images)" for name in there)
        raise DatasetError(
            f"{directory} has normal images in {told}; those in {' and '.join(ignored)} would be ignored: move them to "
            f"{' or '.join(read)}, or out of {directory}"
        )


def _last_fifth(good: list[Path]) -> tuple[list[Path], list[Path]]:
    """(for training, for the test) of good images that nobody has divided."""
    n_test = max(1, len(good) // 5) if len(good) > 1 else 0
    return good[: len(good) - n_test], good[len(good) - n_test :]


def visa_table(directory: Path) -> Path | None:
    """The table that divides VisA's normal images, or None where there is none."""
    return next((path for up in directory.parents[:2] if (path := up / VISA_SPLIT).is_file()), None)


def _visa_split(directory: Path, normal: list[Path], left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """(for training, for the test) of VisA's normal images. Raises DatasetError for a table that cannot be read."""
    if (table := visa_table(directory)) is None:
        return _last_fifth(normal)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            split = {row["image"]: row["split"] for row in csv.DictReader(file) if row["object"] == directory.name}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DatasetError(
            f"{table} cannot be read as VisA's table with the columns object, split and image: {error}"
        ) from error
    by_name = {Path(image).name: part for image, part in split.items() if "/Normal/" in image}
    if unlisted := sum(path.name not in by_name for path in normal):
        left_out.by_reason[f"not listed in {VISA_SPLIT}"] += unlisted
    train, test = ([path for path in normal if by_name.get(path.name) == part] for part in ("train", "test"))
    return train, test


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
