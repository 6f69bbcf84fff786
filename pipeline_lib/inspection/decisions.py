"""New images scored by a trained model: score, decision, regions, or the reason why an image is refused."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_contracts.errors import FedpatchError, ImageError
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.dataset.image_files import LeftOut, images_below, refuse_missing
from pipeline_lib.dataset.images import StoredImage, read_bytes, read_stored
from pipeline_lib.dataset.layout import natural_order
from pipeline_lib.features.image_batches import ImagePatches, iter_images, iter_patches
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.maps.regions import Region, regions_above
from pipeline_lib.models.patchcore import PatchCore, ScoredImage

logger = logging.getLogger(__name__)
PICTURES = "pictures"
"""Directory of the pictures, below where the results go."""

NEAR = 0.1
"""A decision is close where the score is less than this share of the threshold above or below it."""

LOOK_AGAIN = {name: f"look again: {name}" for name in ("defective", "close", "note")}
ACCEPT, NOT_DECIDED, REFUSED = "accept", "not decided", "refused"
ADVICE = (*LOOK_AGAIN.values(), NOT_DECIDED, ACCEPT, REFUSED)
"""What to do with an image, what is to be looked at first."""

TRAINED_ON = "a training image"
"""Begins the note of an image that the model was made from."""

RESULTS = "of the results"
ASPECT_TOLERANCE = 0.1
SMALLEST_SHARE = 0.5
"""An image smaller than half the smallest training image, on either side, shows less than the bank was made from."""


@dataclass(frozen=True)
class ImageDecision:
    """What is said of one image. A refused one has a reason and no score; pictures are made from the other fields."""

    path: Path
    category: str | None
    score: float | None = None
    threshold: float | None = None
    decision: str | None = None  # good | defective; None: refused, or no threshold
    reason: str = ""  # why it is refused
    note: str = ""  # what to look at, such as an image that is foreign to the model
    regions: list[Region] = field(default_factory=list)
    pixels: np.ndarray | None = None  # uint8 (height, width, 3)
    anomaly_map: np.ndarray | None = None  # float32 (height, width)
    mask: np.ndarray | None = None  # bool (height, width): above the threshold
    scored: ScoredImage | None = None
    patches: ImagePatches | None = None
    reading: ImageReading = BY_TYPE  # how its file became pixels

    @property
    def is_close(self) -> bool:
        """Whether the score is near the threshold."""
        return self.score is not None and is_close(self.score, self.threshold)

    @property
    def advice(self) -> str:
        """What to do with the image, of ADVICE."""
        if self.reason:
            return REFUSED
        if self.decision is None:
            return NOT_DECIDED
        if self.decision == "defective":
            return LOOK_AGAIN["defective"]
        if self.is_close:
            return LOOK_AGAIN["close"]
        return LOOK_AGAIN["note"] if self.note else ACCEPT

    def summary(self) -> dict[str, Any]:
        """path, category, score, threshold, decision; and reason or note where there is one.

        Bytes of a file name that are not UTF-8 are written as \\xe9 is.
        """
        values: dict[str, Any] = {
            "path": _text(str(self.path)),
            "category": self.category,
            "score": self.score,
            "threshold": self.threshold,
            "decision": self.decision,
        }
        remarks = {"reason": _text(self.reason), "note": _text(self.note)}
        return values | {name: text for name, text in remarks.items() if text}


def margin(score: float, threshold: float | None) -> float:
    """Score less threshold as a share of the threshold; minus infinity where there is no threshold."""
    return float("-inf") if threshold is None else (score - threshold) / max(abs(threshold), 1e-12)


def is_close(score: float, threshold: float | None) -> bool:
    """Whether a score is near the threshold, on either side."""
    return abs(margin(score, threshold)) < NEAR


def urgency(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """To sort by: the advice in the order of ADVICE, in each the highest score in terms of the threshold first.

    row: advice, score, threshold and path.
    """
    score = float("-inf") if row["score"] is None else row["score"]
    return ADVICE.index(row["advice"]), -margin(score, row["threshold"]), -score, natural_order(str(row["path"]))


def common_folder(paths: Iterable[str]) -> str:
    """The deepest directory that all images of a call lie in, as their paths name it; empty where they share none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # none at all, or one relative and one absolute
        return ""


def counted(advice: Mapping[str, int]) -> str:
    """How many images of each advice, in words: 13 to look at (9 defective, 4 close), 9 accepted."""
    of_each = [f"{advice[text]} {name}" for name, text in LOOK_AGAIN.items() if advice.get(text)]
    to_look_at = sum(advice.get(text, 0) for text in LOOK_AGAIN.values())
    parts = [f"{to_look_at} to look at" + (f" ({', '.join(of_each)})" if of_each else "")]
    parts += [f"{advice[text]} {text}" for text in (NOT_DECIDED,) if advice.get(text)]
    parts.append(f"{advice.get(ACCEPT, 0)} accepted")
    parts += [f"{advice[text]} {text}" for text in (REFUSED,) if advice.get(text)]
    return ", ".join(parts)


def trained_on(n: int) -> str:
    """How many images of a call the model was made from, in words; empty where none was."""
    if n == 1:
        return "1 image is a training image of the run: its score says nothing of other parts"
    return f"{n} images are training images of the run: their scores say nothing of other parts" if n else ""


def _text(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def find_images(paths: Iterable[Path | str], *, out: Path | None = None, left_out: LeftOut | None = None) -> list[Path]:
    """Image files that are given or lie anywhere below given directories, sorted within each.

    Files that are given by name are kept whatever they are. What lies below `out`, where the results go, is never an
    input; where a given path itself lies there, only the pictures are left out. So are those of earlier results.
    `left_out` counts what is passed over, which is logged where it is not given. Raises FedpatchError for a path that
    is not there, or cannot be listed.
    """
    passed_over = LeftOut() if left_out is None else left_out
    found: list[Path] = []
    for path in map(Path, paths):
        results = _results_of(path, out)
        if results(path):
            passed_over.by_reason[RESULTS] += 1
        elif path.is_dir():
            try:
                found += images_below(path, passed_over, leave=partial(_left, results))
            except OSError as error:
                raise FedpatchError(f"cannot list {path}: {error.strerror or error}") from error
        else:
            refuse_missing(path)
            found.append(path)
    if left_out is None and (line := passed_over.describe()):
        logger.warning("%s", line)
    return list(dict.fromkeys(found))


def _results_of(given: Path, out: Path | None) -> Callable[[Path], bool]:
    """Tells what lies below `out`, links followed, from what is an input below the `given` path."""
    if out is None:
        return lambda path: False
    place = _real(out)
    if _real(given).is_relative_to(place):
        place /= PICTURES
    return lambda path: _real(path).is_relative_to(place)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # takes links that lead in a circle, unlike resolve()


def _left(results: Callable[[Path], bool], entry: os.DirEntry[str]) -> str:
    if not entry.is_symlink() and not entry.is_dir():
        return ""  # it lies where its directory does
    path = Path(entry.path)
    earlier = entry.name == PICTURES and any(path.parent.glob("decisions*.csv"))
    return RESULTS if earlier or results(path) else ""


def decide_image(model: RunModel, path: Path, *, category: str | None = None) -> ImageDecision:
    """Score one image file. Raises FedpatchError where the model itself is at fault, never for the image: whatever else
    goes wrong is the reason why it is refused."""
    if category is not None:
        model.bank_name(category)
    try:
        own = category or model.category_of(path)
    except FedpatchError as error:
        return ImageDecision(path, None, reason=str(error))
    patchcore = model.patchcore(own)
    try:
        return _decide_readable(model, patchcore, path, own)
    except ImageError as error:
        return ImageDecision(path, own, reason=str(error))
    except Exception as error:  # one image is not worth the others
        logger.debug("%s", path, exc_info=True)
        return ImageDecision(path, own, reason=f"it cannot be scored: {type(error).__name__}: {error}")


def _decide_readable(model: RunModel, patchcore: PatchCore, path: Path, own: str) -> ImageDecision:
    reading = model.saved.reading.of(own)
    content = read_bytes(path)
    stored = read_stored(content, name=str(path))
    image = stored.to_rgb(reading)
    if reason := misfit(model, own, image):
        return ImageDecision(path, own, reason=reason)
    sample = {"image": image, "category": own, "path": str(path)}
    (patches,) = iter_patches(patchcore.extractor, iter_images([sample], image_size=patchcore.inference.image_size))
    decision = _decision(model, path, own, image, patchcore.score_extracted(patches))
    known = model.training_image(hashlib.sha256(content).hexdigest())
    learned = (
        f"{TRAINED_ON}: the run learned from it, as {known}; its score says nothing of other parts" if known else ""
    )
    note = "; ".join(text for text in (learned, decision.note, *file_notes(stored, reading)) if text)
    return replace(decision, patches=patches, reading=reading, note=note)


def file_notes(stored: StoredImage, reading: ImageReading) -> Iterator[str]:
    """What a person should know of a file that is read all the same."""
    if stored.pages > 1:
        yield f"the first of {stored.pages} pages"
    if stored.is_constant:
        yield "all pixels are the same: it shows nothing"
    if reading.value_range is not None and (stored.bit_depth > 8) != (reading.value_range > 255):
        yield f"{stored.bit_depth} bits a value, the training images have {'more' if stored.bit_depth == 8 else '8'}"


def misfit(model: RunModel, category: str, image: Image.Image) -> str:
    """Why an image cannot be of this category, from its size alone; empty where it may be."""
    sizes = model.training_sizes(category)
    if sizes is None:
        return ""
    aspect = image.width / image.height
    if not sizes.least_aspect * (1 - ASPECT_TOLERANCE) <= aspect <= sizes.largest_aspect * (1 + ASPECT_TOLERANCE):
        return (
            f"it is {image.width}x{image.height} pixels, {aspect:.2f} times as wide as high; the training images of "
            f"{category} have {sizes.least_aspect:.2f} to {sizes.largest_aspect:.2f}"
        )
    if image.width < SMALLEST_SHARE * sizes.least_width or image.height < SMALLEST_SHARE * sizes.least_height:
        return (
            f"it is {image.width}x{image.height} pixels; the smallest training images of {category} have "
            f"{sizes.least_width}x{sizes.least_height}, and less than half of that shows too little"
        )
    return ""


def _decision(model: RunModel, path: Path, category: str, image: Image.Image, scored: ScoredImage) -> ImageDecision:
    threshold = model.threshold(category)
    anomaly_map = scored.anomaly_map(model.saved.inference.smoothing_sigma)
    if threshold is None:
        return ImageDecision(
            path, category, scored.score, note="the model has no threshold: give --threshold, or train it again",
            pixels=np.array(image), anomaly_map=anomaly_map, scored=scored,
        )  # fmt: skip
    defective = scored.score > threshold
    at_patch = patch_threshold(scored, threshold)
    mask = np.zeros(anomaly_map.shape, bool)
    regions: list[Region] = []
    if defective:
        # resizing and smoothing lower a peak: a defective image still shows where its highest place is
        mask, regions = regions_above(anomaly_map, min(at_patch, float(np.nextafter(anomaly_map.max(), np.float32(0)))))
    foreign = float((scored.grid_map > at_patch).mean())
    note = ""
    if foreign > 0.5:
        note = (
            f"foreign: {100 * foreign:.0f} % of the image is unlike the normal images of {category}; "
            "is it the right part, camera and category?"
        )
    return ImageDecision(
        path, category, scored.score, threshold, "defective" if defective else "good", note=note, regions=regions,
        pixels=np.array(image), anomaly_map=anomaly_map, mask=mask, scored=scored,
    )  # fmt: skip


def patch_threshold(scored: ScoredImage, threshold: float) -> float:
    """The image's threshold in units of its map: they differ where the image score is re-weighted."""
    highest = float(scored.grid_map.max())
    return threshold * highest / scored.score if scored.score > 0 else threshold
