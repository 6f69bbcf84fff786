"""A category in AutoVI's layout from folders of good and defective images and drawn annotations."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data_contracts.errors import DatasetError, ImageError
from pipeline_lib.dataset.annotations import Annotations
from pipeline_lib.dataset.image_files import LeftOut, images_in
from pipeline_lib.dataset.images import load_image
from pipeline_lib.dataset.layout import DEFECTS_CONFIG, GOOD, UNANNOTATED, natural_order

TEST_SHARE = 5  # every fifth part of the good images, the last in natural order, is for the test
MULTIPLE = "multiple"
MAX_NAMES = 255


@dataclass
class ImportedCategory:
    """What was written, and what was set aside with the reason."""

    directory: Path
    images: Counter[str] = field(default_factory=Counter)  # by split/folder
    channels: Counter[str] = field(default_factory=Counter)  # masks by defect name
    problems: list[str] = field(default_factory=list)


def import_category(good: Path, defective: Path | None, annotations: Annotations, target: Path) -> ImportedCategory:
    """Write <target>/{train,test,ground_truth} and defects_config.json; images are linked, or copied where that fails.

    The last fifth of the good images in natural order goes to the test. A defective image goes to the folder of its
    defect, to `multiple` with several, to `unannotated` (no masks, image metrics only) without. Each outline is a mask
    file of its own, saturated by its whole area. Images that cannot be read are set aside.
    Raises DatasetError for a target that exists, folders without images, and more than 255 defect names.
    """
    if target.exists():
        raise DatasetError(f"{target} is there already; give another --category or --out, or move it away")
    names = sorted({outline.name for outlines in annotations.by_stem.values() for outline in outlines})
    if len(names) > MAX_NAMES:
        raise DatasetError(f"{len(names)} defect names, and a mask holds at most {MAX_NAMES}; merge some")
    folders = {name: _folder(name) for name in names}
    if clash := [name for name, count in Counter(folders.values()).items() if count > 1]:
        raise DatasetError(f"defect names that differ in special characters alone: {', '.join(clash)}; rename some")
    unfinished = target.with_name(f".{target.name}.importing")
    shutil.rmtree(unfinished, ignore_errors=True)
    result = ImportedCategory(target, problems=list(annotations.problems))
    try:
        _good_images(good, unfinished, result)
        if defective is not None:
            _defective_images(defective, annotations, folders, unfinished, result)
        entries = [
            {"defect_name": name, "pixel_value": value, "saturation_threshold": 1.0, "relative_saturation": True}
            for value, name in enumerate(names, start=1)
        ]
        (unfinished / "test").mkdir(exist_ok=True)
        (unfinished / DEFECTS_CONFIG).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


def _good_images(good: Path, root: Path, result: ImportedCategory) -> None:
    paths = _images(good, result)
    n_test = len(paths) // TEST_SHARE or (1 if len(paths) > 1 else 0)
    for number, path in enumerate(paths):
        split = "test" if number >= len(paths) - n_test else "train"
        _place(path, root / split / GOOD / path.name)
        result.images[f"{split}/{GOOD}"] += 1


def _defective_images(
    defective: Path, annotations: Annotations, folders: dict[str, str], root: Path, result: ImportedCategory
) -> None:
    values = {name: value for value, name in enumerate(folders, start=1)}
    seen: set[str] = set()
    for path in _images(defective, result):
        if path.stem in seen:
            result.problems.append(f"{path}: another image has the stem {path.stem}; set aside")
            continue
        seen.add(path.stem)
        try:
            width, height = load_image(path).size
        except ImageError as error:
            result.problems.append(f"{error}; set aside")
            continue
        outlines = annotations.by_stem.get(path.stem, [])
        kinds = {outline.name for outline in outlines}
        folder = UNANNOTATED if not kinds else folders[kinds.pop()] if len(kinds) == 1 else MULTIPLE
        _place(path, root / "test" / folder / path.name)
        result.images[f"test/{folder}"] += 1
        for number, outline in enumerate(outlines):
            mask = outline.mask(width, height)
            if not mask.any():
                result.problems.append(f"{path}: {outline.name} lies outside the image of {width}x{height} pixels")
                continue
            _write_mask(root / "ground_truth" / folder / path.stem / f"{number:03d}.png", mask, values[outline.name])
            result.channels[outline.name] += 1
    missing = sorted(set(annotations.by_stem) - seen)
    if missing:
        result.problems.append(f"{len(missing)} annotated images are not in {defective}: {', '.join(missing[:5])}")


def _write_mask(path: Path, mask: np.ndarray, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(path)


def _images(directory: Path, result: ImportedCategory) -> list[Path]:
    if not directory.is_dir():
        raise DatasetError(f"there is no directory {directory}")
    left_out = LeftOut()
    paths = images_in(directory, left_out)
    line = left_out.describe()
    if not paths:
        raise DatasetError(f"{directory} holds no images{f'; {line}' if line else ''}")
    if line:
        result.problems.append(f"{directory}: {line}")
    return sorted(paths, key=lambda path: natural_order(path.name))


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _folder(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "defect"
    return f"{plain}_defect" if plain in (GOOD, MULTIPLE, UNANNOTATED) else plain
