"""A category in AutoVI's layout from folders of good and defective images and drawn annotations."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data_contracts.errors import DatasetError, ImageError
from pipeline_lib.dataset.annotations.fitting import annotated_masks
from pipeline_lib.dataset.annotations.matching import match_images
from pipeline_lib.dataset.annotations.outlines import AnnotatedImage, Annotations
from pipeline_lib.dataset.image_files import LeftOut, images_in
from pipeline_lib.dataset.images import is_hidden, load_image, orientation
from pipeline_lib.dataset.layout import DEFECTS_CONFIG, GOOD, UNANNOTATED, natural_order

TEST_SHARE = 5  # every fifth part of the good images, the last in natural order, is for the test
MULTIPLE = "multiple"
MAX_NAMES = 255
MAX_FOLDER_BYTES = 200  # of the 255 that file systems take

_NOT_ON_WINDOWS = frozenset(
    {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
)


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
    defect, to `multiple` with several, to `unannotated` (no masks, image metrics only) without, and where one of its
    annotations cannot be used: it is never marked in part. Each outline is a mask file of its own, saturated by its
    whole area. Images that cannot be read are set aside.
    Raises DatasetError for a target that exists, folders without images, more than 255 defect names, names that give
    one folder, and annotations of which none is of one of the images.
    """
    if target.exists():
        raise DatasetError(f"{target} is there already; give another --category or --out, or move it away")
    names = annotations.names()
    if len(names) > MAX_NAMES:
        raise DatasetError(f"{len(names)} defect names, and a mask holds at most {MAX_NAMES}; merge some")
    folders = {name: _folder(name) for name in names}
    for folder, count in Counter(folders.values()).items():
        if count > 1:
            same = ", ".join(repr(name) for name in names if folders[name] == folder)
            raise DatasetError(f"the defect names {same} give one folder, {folder!r}; rename or merge them")
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
    by_stem: dict[str, Path] = {}
    for path in _images(defective, result):
        if path.stem in by_stem:
            result.problems.append(f"{path}: another image has the stem {path.stem}; set aside")
        by_stem.setdefault(path.stem, path)
    matches = match_images(annotations.images, list(by_stem.values()))
    missing = sorted(image.path for image in matches.without_file if image.outlines)
    unread = [text for image in matches.without_file for text in image.unreadable]
    is_any_found = bool(matches.unclear) or any(image.is_annotated for image in matches.by_file.values())
    if not is_any_found and (missing or unread or annotations.problems):
        reasons = [f"annotated are {_some(missing)}"] * bool(missing) + [*annotations.problems, *unread][:5]
        raise DatasetError(
            f"no annotation is of an image in {defective}, which holds {_some(list(by_stem))}: {'; '.join(reasons)}. "
            "Names are compared without their ending, and directories where both name them; is it the directory that "
            "was annotated?"
        )
    result.problems += unread
    for path in by_stem.values():
        if same := matches.unclear.get(path):
            result.problems.append(
                f"{path} is not marked: {len(same)} annotated images may be it, {_some([i.path for i in same])} in "
                f"{_some(sorted({i.where for i in same}))}; import one directory at a time"
            )
        _defective_image(path, matches.by_file.get(path), folders, values, root, result)
    if missing:
        result.problems.append(f"{len(missing)} annotated images are not in {defective}: {_some(missing)}")


def _defective_image(
    path: Path,
    annotated: AnnotatedImage | None,
    folders: dict[str, str],
    values: dict[str, int],
    root: Path,
    result: ImportedCategory,
) -> None:
    """Place one image and its masks, or set it aside."""
    masks: list[tuple[str, np.ndarray]] = []
    try:
        size, turn = load_image(path).size, orientation(path)
    except ImageError as error:
        result.problems.append(f"{error}; set aside")
        return
    if annotated is not None:
        try:
            masks, doubt = annotated_masks(annotated, path, size, turn)
            result.problems += doubt
        except DatasetError as error:
            result.problems.append(str(error))
    kinds = {name for name, _ in masks}
    folder = UNANNOTATED if not kinds else folders[kinds.pop()] if len(kinds) == 1 else MULTIPLE
    _place(path, root / "test" / folder / path.name)
    result.images[f"test/{folder}"] += 1
    for number, (name, mask) in enumerate(masks):
        _write_mask(root / "ground_truth" / folder / path.stem / f"{number:03d}.png", mask, values[name])
        result.channels[name] += 1


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


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _folder(name: str) -> str:
    """A directory's name on all systems: letters, marks and digits of any script, dots, hyphens and underscores."""
    is_plain = [character in "._-" or unicodedata.category(character)[0] in "LMN" for character in name]
    words = "".join(character if plain else " " for character, plain in zip(name, is_plain, strict=True)).split()
    short = "_".join(words).encode()[:MAX_FOLDER_BYTES].decode(errors="ignore")
    plain = short.strip("._") or "defect"
    is_taken = plain.casefold() in {GOOD, MULTIPLE, UNANNOTATED} or is_hidden(plain)
    return f"{plain}_defect" if is_taken or plain.casefold().split(".")[0] in _NOT_ON_WINDOWS else plain
