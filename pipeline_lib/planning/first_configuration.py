"""A configuration to begin with, from what lies in a data set: layout, categories, sizes, normal and defective."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import DatasetError, ImageError
from pipeline_lib.dataset.groups.file_names import pattern_of_names
from pipeline_lib.dataset.image_files import loose_images
from pipeline_lib.dataset.images import image_size
from pipeline_lib.dataset.layout import GOOD, FoundImage, detect_layout, find_images, select_categories
from pipeline_lib.dataset.validation import is_unjudged

MAX_AREA_PX = 400 * 400
"""Of the sizes that are proposed: more is slower, and a patch covers 8 pixels of the resized image."""

SIDE_STEP_PX = 32  # the largest stride of the usual backbones
MIN_SIDE_PX = 64
SAMPLES = 24
SHOWN_FOLDERS = 8


@dataclass(frozen=True)
class FirstConfiguration:
    """The text of a YAML file for `fedpatch run`, and what its images are taken for."""

    text: str
    taken: list[str]  # a line a category: which folders are normal, which known defective
    unjudged: list[str]  # folders that count as a kind of defect, and are called as if nobody had judged them


def first_configuration(root: Path) -> FirstConfiguration:
    """The configuration of a data set at `root`. Raises DatasetError where it is none."""
    layout, shown_by = detect_layout(root)
    lines, taken, unjudged = [], [], []
    names = {}
    for category, directory in select_categories(root, layout=layout).items():
        images = list(find_images(category, directory, layout))
        counts = Counter(image.split for image in images)
        if not counts["train"]:
            continue
        names[category] = [image.path.name for image in images]
        width, height = _usual_size([image for image in images if image.split == "train"])
        size = ", ".join(map(str, proposed_size(width, height)))
        lines.append(f"    {json.dumps(category, ensure_ascii=False)}: [{size}]  # most often {width}x{height}")
        taken.append(f"{category}: {_roles(images, directory)}")
        labels = dict.fromkeys(image.label for image in images)
        unjudged += [f"{category}/{label}" for label in labels if is_unjudged(label)]
    if not lines:
        raise DatasetError(
            f"no category in {root} has good training images (layout {layout}, shown by {shown_by}); "
            f"{loose_images(root)}"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", root.resolve().name).strip("._-")[:80] or "own"
    sizes = "\n".join(lines)
    group = r"# group: {pattern: '/(\d+)_'}  # if several show one part: 17_a.jpg, 17_b.jpg; or found, {file: ...}"
    partition = ""
    if (pattern := pattern_of_names(names)) is not None:
        rule = json.dumps({"pattern": pattern}, ensure_ascii=False)
        group = f"group: {rule}  # images of one part, place or tile, as their names seem to say; look whether they do"
        partition = "  partition_groups: true  # a group stays at one client\n"
    comments = "\n".join(f"  # {' '.join(line.split())}" for line in taken)
    text = f"""\
name: {json.dumps(name)}
dataset:
  root: {json.dumps(str(root.resolve()), ensure_ascii=False)}
  layout: {layout}  # shown by {shown_by}
  {group}
{comments}
  # Images that nobody has judged stay outside root: fedpatch score RUN_DIR IMAGES
preprocessing:
  size_by_category:  # [width, height] that images are resized to; larger finds smaller defects, and takes longer
{sizes}
model:
  backbone: efficientnet_lite0  # its weights come with a package, nothing is downloaded
  coreset_percentage: 0.01  # of the patches are kept
federated:
  mode: centralized  # all images are at one place; federated: as if the clients below held them
  num_clients: 3
  partitioning: iid  # or time, dirichlet, category
{partition}seed: 42
"""
    return FirstConfiguration(text, taken, unjudged)


def proposed_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels of the same shape, of at most MAX_AREA_PX and whole steps of the backbones' stride."""
    scale = min(1.0, math.sqrt(MAX_AREA_PX / (width * height)))
    steps = (round(side * scale / SIDE_STEP_PX) for side in (width, height))
    proposed_width, proposed_height = (max(MIN_SIDE_PX, step * SIDE_STEP_PX) for step in steps)
    return proposed_width, proposed_height


def _roles(images: Sequence[FoundImage], directory: Path) -> str:
    """Which folders of a category are normal images and which known defective ones, with their counts."""
    by_role: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for image in images:
        by_role[image.label == GOOD][image.path.parent.relative_to(directory).as_posix()] += 1
    normal = f"{_folders(by_role[True])} normal"
    if len(by_role[True]) == 1:  # of a folder that nobody has divided
        train = sum(image.split == "train" for image in images)
        normal += f" ({train} for training, {by_role[True].total() - train} for the test)"
    return f"{normal}; {_folders(by_role[False])} known defective" if by_role[False] else f"{normal}; none defective"


def _folders(counts: Counter[str]) -> str:
    shown = [f"{name} = {number}" for name, number in counts.items()][:SHOWN_FOLDERS]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more folders:" if more else "")


def _usual_size(images: list[FoundImage]) -> tuple[int, int]:
    """The most frequent (width, height) of some images, evenly spaced. Raises DatasetError where none can be read."""
    sizes: Counter[tuple[int, int]] = Counter()
    problem = ""
    for image in images[:: max(1, len(images) // SAMPLES)]:
        try:
            sizes[image_size(image.path)] += 1
        except ImageError as error:
            problem = str(error)
    if not sizes:
        raise DatasetError(f"no image of {images[0].category} can be read: {problem}")
    return sizes.most_common(1)[0][0]
