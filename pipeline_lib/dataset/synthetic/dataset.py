"""A whole made-up data set on disk, in AutoVI's layout."""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_contracts.defects import AUTOVI_CATEGORIES, AUTOVI_COUNTS, AUTOVI_SMALL_CATEGORIES
from data_contracts.errors import ConfigError, DatasetError
from pipeline_lib.dataset.synthetic.canvas import Canvas, Look
from pipeline_lib.dataset.synthetic.defects import SOLID, Fault, change_mask, choose_faults, draw_foreign, entries
from pipeline_lib.dataset.synthetic.photograph import background, dirt, glare, photograph
from pipeline_lib.dataset.synthetic.scenes import BACKGROUNDS, SCENES

logger = logging.getLogger(__name__)

SMALL_SIZE, LARGE_SIZE = (400, 400), (1000, 750)  # width, height in pixels at scale 1
RARE = 5  # AutoVI folders with at most this many pictures may get one only
MIN_SCALE, MAX_SCALE = 0.08, 4.0  # 32 pixels are the least that the backbones take

Counts = dict[tuple[str, str], int]  # (split, folder) -> pictures


def synthesize_dataset(
    out: Path | str,
    *,
    categories: Iterable[str] | None = None,
    images: int | None = None,
    scale: float = 1.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw AutoVI-like categories below `out` and return it.

    `images` is the number of training images of each category (AutoVI's own counts unless given), `scale` multiplies
    the native sizes (400x400 and 1000x750), `progress` is called with (pictures done, pictures in all). A picture
    depends on (seed, category, split, folder, number), the counts of its folder and the scale alone; file numbers are
    in the order of time, over which the light drifts. A defect channel marks the pixels that the defect alone changes.
    A category is drawn under a hidden name and renamed when it is whole; what an interrupted call left is drawn anew.

    Raises ConfigError for a category, count, scale or seed that is not accepted, and DatasetError when a category's
    directory is there already.
    """
    out = Path(out)
    chosen = _checked(categories, images, scale, seed)
    for category in chosen:
        if (out / category).exists():
            raise DatasetError(f"{out / category} is there already; delete it or choose another directory")
    plans = {category: picture_counts(category, images) for category in chosen}
    total, done = sum(sum(plan.values()) for plan in plans.values()), 0
    for category, plan in plans.items():
        config = entries(category, scale)
        unfinished = out / f".{category}.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        for (split, folder), count in plan.items():
            (unfinished / split / folder).mkdir(parents=True)
            for number in range(count):
                picture, channels = draw_picture(category, split, folder, number, count, scale=scale, seed=seed)
                _write_picture(unfinished, split, folder, number, picture, channels, config=config)
                done += 1
                if progress is not None:
                    progress(done, total)
        (unfinished / "defects_config.json").write_text(json.dumps(config, indent=2) + "\n")
        unfinished.rename(out / category)
    logger.info("drew %d pictures of %d categories in %s", total, len(plans), out)
    return out


def picture_counts(category: str, images: int | None) -> Counts:
    """Pictures of each (split, folder).

    With `images`, that many good ones to train and to test, and half as many defective ones, shared in AutoVI's
    proportions with at least two in each folder (one where AutoVI has five or fewer).
    """
    own = AUTOVI_COUNTS[category]
    if images is None:
        counts = {("train", "good"): own["train"], ("test", "good"): own["good"]}
        return counts | {("test", folder): count for folder, count in own["defects"].items()}
    least = {folder: 1 if count <= RARE else 2 for folder, count in own["defects"].items()}
    spare = max(0, images // 2 - sum(least.values()))
    total = sum(own["defects"].values())
    extra = {folder: spare * count // total for folder, count in own["defects"].items()}
    most = max(own["defects"], key=own["defects"].__getitem__)
    extra[most] += spare - sum(extra.values())
    counts = {("train", "good"): images, ("test", "good"): images}
    return counts | {("test", folder): least[folder] + extra[folder] for folder in least}


def draw_picture(
    category: str, split: str, folder: str, number: int, count: int, *, scale: float, seed: int
) -> tuple[Image.Image, list[tuple[Fault, np.ndarray]]]:
    """One picture (RGB) and its defect channels: the fault and a bool mask (height, width)."""
    width, height = SMALL_SIZE if category in AUTOVI_SMALL_CATEGORIES else LARGE_SIZE
    size = (round(width * scale), round(height * scale))
    key = (seed, *(zlib.crc32(name.encode()) for name in (category, split, folder)), number)
    look = Look(key, time=(number + 0.5) / count)
    faults = choose_faults(category, folder, look)
    base = background(look, (seed,), category, size, BACKGROUNDS[category])
    picture = _draw(category, base, look, faults)
    channels: list[tuple[Fault, np.ndarray]] = []
    if faults:
        clean = _draw(category, base, look, [])
        for fault in faults:
            alone = picture if len(faults) == 1 else _draw(category, base, look, [fault])
            channels.append((fault, change_mask(clean, alone, solid=fault.defect_name in SOLID)))
    return photograph(picture, look), channels


def _draw(category: str, base: Image.Image, look: Look, faults: list[Fault]) -> Image.Image:
    """The part on its surface, before light, blur and noise; two calls differ by the faults alone."""
    shift = (look.near("shift/x", 0.0, 0.008), look.near("shift/y", 0.0, 0.008))
    canvas = Canvas(base, shift=shift, angle_deg=look.near("turn", 0.0, 1.0))
    SCENES[category](canvas, look, {fault.part for fault in faults})
    dirt(canvas, look)
    for fault in faults:
        draw_foreign(canvas, look, fault)
    glare(canvas, look)
    return canvas.picture()


def _write_picture(
    directory: Path,
    split: str,
    folder: str,
    number: int,
    picture: Image.Image,
    channels: list[tuple[Fault, np.ndarray]],
    *,
    config: list[dict[str, Any]],
) -> None:
    picture.save(directory / split / folder / f"{number:04d}.png", compress_level=3)
    if not channels:
        return
    masks = directory / "ground_truth" / folder / f"{number:04d}"
    masks.mkdir(parents=True)
    values = {entry["defect_name"]: entry["pixel_value"] for entry in config}
    for channel, (fault, mask) in enumerate(channels):
        grey = np.where(mask, values[fault.defect_name], 0).astype(np.uint8)
        Image.fromarray(grey).save(masks / f"{channel:04d}.png", compress_level=3)


def _checked(categories: Iterable[str] | None, images: int | None, scale: float, seed: int) -> tuple[str, ...]:
    chosen = AUTOVI_CATEGORIES if categories is None else tuple(dict.fromkeys(categories))
    unknown = [category for category in chosen if category not in AUTOVI_CATEGORIES]
    if unknown or not chosen:
        raise ConfigError(f"categories is {list(chosen)}; it accepts {', '.join(AUTOVI_CATEGORIES)}")
    if images is not None and images < 2:
        raise ConfigError(f"images is {images}; at least 2 training images a category are needed")
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise ConfigError(f"scale is {scale}; it accepts {MIN_SCALE} to {MAX_SCALE}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it accepts 0 and above")
    return chosen
