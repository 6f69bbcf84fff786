"""Checks of a category's masks before they are used; what is wrong becomes a finding."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.config import Layout
from data_contracts.defects import DefectEntry
from data_contracts.errors import ConfigError, DatasetError
from data_contracts.validation import Finding, FindingCode, Severity
from pipeline_lib.dataset.ground_truth import (
    SOFT_WHITE,
    DefectChannel,
    DefectWeights,
    MaskError,
    category_defects,
    channels_by_value,
    defect_weight,
    marked,
    mask_components,
    read_mask_values,
)
from pipeline_lib.dataset.images import UPRIGHT, is_hidden, is_image_file, swaps_sides
from pipeline_lib.dataset.layout import DEFECTS_CONFIG, RULES, UNANNOTATED, mask_files


class MaskCheck:
    """The mask checks of one category; `usable` counts its good channels by defect name."""

    def __init__(self, root: Path, category: str, directory: Path, layout: Layout, weights: DefectWeights) -> None:
        self.root, self.category, self.directory, self.layout = root, category, directory, layout
        self.rules = RULES[layout]
        self.is_marked = self.rules.masks == "marked"
        self.weights = weights
        self.usable: Counter[str] = Counter()
        self.fits_both: list[Path] = []
        self.above_area: dict[str, list[str]] = {}
        self.unannotated: list[str] = []
        self.defects: list[DefectEntry] | None = None

    def check(self, rows: pd.DataFrame) -> list[Finding]:
        defective = rows[(rows["split"] == "test") & (rows["label_index"] == 1)]
        findings = [] if defective.empty else list(self._config())
        columns = ("path", "label", "stem", "width", "height", "orientation")
        for path, label, stem, width, height, orientation in zip(
            *(defective[name].tolist() for name in columns), strict=True
        ):
            findings += self._image(path, label, stem, width, height, orientation)
        if self.fits_both:
            findings.append(
                self._finding(
                    "warning",
                    "mask_orientation",
                    self.fits_both[0],
                    f"{len(self.fits_both)} masks, this one first, say no orientation and fit their image as it is "
                    "stored and as its orientation turns it; they are taken as drawn on the turned one",
                    "Look at one in the contact sheet of fedpatch dataset preview; where they lie wrong, save the "
                    "images without an orientation.",
                )
            )
        if self.unannotated:
            findings.append(
                self._finding(
                    "note",
                    "unannotated",
                    self.unannotated[0],
                    f"{len(self.unannotated)} defective images of test/{UNANNOTATED}, this one first, have no masks: "
                    "they are scored and count as defective in the image metrics; their pixels are not measured",
                    "Nothing has to be done; draw their masks where pixels should be measured too.",
                )
            )
        findings += self._orphans()
        for defect_name, paths in self.above_area.items():
            findings.append(
                self._finding(
                    "note",
                    "saturation_above_area",
                    paths[0],
                    f"saturation_threshold of {defect_name} is above the area of {len(paths)} of its "
                    f"{self.usable[defect_name]} channels, this one first; their whole area is asked for",
                    "Lower the threshold if a part of such a defect should be enough.",
                )
            )
        return findings

    def _config(self) -> Iterator[Finding]:
        path = self.directory / DEFECTS_CONFIG
        try:
            self.defects = category_defects(self.root, self.category, layout=self.layout)
        except DatasetError as error:
            yield self._finding(
                "error",
                "no_defects_config",
                path,
                str(error),
                "Write a JSON list of entries with defect_name, pixel_value, saturation_threshold and "
                "relative_saturation; without it the masks cannot be measured.",
            )
            return
        for entry in self.defects:
            if entry.relative_saturation and entry.saturation_threshold > 1:
                yield self._finding(
                    "warning",
                    "saturation_above_area",
                    path,
                    f"relative saturation_threshold of {entry.defect_name} is {entry.saturation_threshold:g}, above 1",
                    "Give a share of the area, at most 1, or set relative_saturation to false.",
                )
            if isinstance(self.weights, str):
                try:
                    defect_weight(entry, self.weights)
                except ConfigError as error:
                    yield self._finding("error", "defect_weight_unknown", path, str(error), "")

    def _image(self, path: str, label: str, stem: str, width: int, height: int, orientation: int) -> Iterator[Finding]:
        masks = mask_files(self.directory, label, stem, layout=self.layout)
        if not masks and label == UNANNOTATED:
            self.unannotated.append(path)
        elif not masks:
            yield self._missing(path, label, stem)
        channels_seen: dict[bytes, Path] = {}
        for mask in masks if width else []:
            try:
                values = read_mask_values(mask, width=width, height=height, orientation=orientation)
                if orientation != UPRIGHT and (width == height or not swaps_sides(orientation)):
                    self.fits_both.append(mask)
                if self.is_marked:
                    channels = mask_components(marked(values), label, name=str(mask))
                elif self.defects is None:
                    continue
                else:
                    channels = channels_by_value(values, self.defects, name=str(mask))
            except MaskError as error:
                yield self._finding("error", error.code, mask, str(error), "Correct the mask file.")
                continue
            yield from self._content(mask, values)
            for channel in channels:
                yield from self._channel(mask, channel)
                content = hashlib.sha256(channel.defect_name.encode() + channel.mask.tobytes()).digest()
                if (other := channels_seen.setdefault(content, mask)) != mask:
                    yield self._finding(
                        "warning",
                        "mask_twice",
                        mask,
                        f"marks {channel.defect_name} where {other.name} marks it already; the defect counts twice",
                        "Remove one of the two files.",
                    )

    def _missing(self, path: str, label: str, stem: str) -> Finding:
        folder = self.directory / self.rules.truth / label
        expected = f"{stem}{self.rules.suffix}.png" if self.is_marked else f"{stem}/*.png"
        similar = sorted(p.name for p in folder.glob(f"{glob.escape(stem)}*") if p.stem in (stem, f"{stem}_mask"))
        hint = f"; there is {', '.join(similar)}: rename it, or convert it to PNG" if similar else ""
        return self._finding(
            "error",
            "missing_mask",
            path,
            f"defective, but {self.rules.truth}/{label}/{expected} is not there{hint}",
            f"Draw the mask, or move the image to test/{UNANNOTATED}: until then its pixels cannot be measured.",
        )

    def _content(self, mask: Path, values: np.ndarray) -> Iterator[Finding]:
        """What a mask says that hardly anybody means."""
        is_marked = marked(values) if self.is_marked else values > 0
        share = float(is_marked.mean())
        border = np.concatenate([is_marked[0], is_marked[-1], is_marked[:, 0], is_marked[:, -1]])
        if share > 0.5 or border.all():
            where = f"{100 * share:.0f} % of the image" + (" and all four borders" if border.all() else "")
            yield self._finding(
                "warning",
                "mask_inverted",
                mask,
                f"marks {where}",
                "If black is the defect, invert the mask: what is not 0 counts as defective.",
            )
        between = int(((values > 0) & (values < values.max())).sum())
        if self.is_marked and between and values.max() >= SOFT_WHITE:
            yield self._finding(
                "note",
                "mask_soft",
                mask,
                f"{between} pixels lie between black and white; those of half of white or more are marked "
                f"({int(is_marked.sum())} of the {int((values > 0).sum())} that are not 0)",
                "Save masks without smoothing, in 0 and 255, to decide it yourself.",
            )

    def _channel(self, mask: Path, channel: DefectChannel) -> Iterator[Finding]:
        self.usable[channel.defect_name] += 1
        area_px = int(channel.mask.sum())
        if channel.saturation_was_zero:
            yield self._finding(
                "warning",
                "saturation_zero",
                mask,
                f"the saturation area of {channel.defect_name} comes out as 0 of {area_px} pixels; 1 is used",
                "Raise the threshold, or enlarge or remove the speck.",
            )
        absolute = {e.defect_name: e.saturation_threshold for e in self.defects or () if not e.relative_saturation}
        if absolute.get(channel.defect_name, 0) > area_px:
            self.above_area.setdefault(channel.defect_name, []).append(self._relative(mask))

    def _orphans(self) -> Iterator[Finding]:
        ground_truth = self.directory / self.rules.truth
        for folder in sorted(ground_truth.iterdir()) if ground_truth.is_dir() else []:
            if not folder.is_dir() or is_hidden(folder.name):
                continue
            images = self.directory / self.rules.test / folder.name
            stems = {path.stem for path in images.iterdir() if is_image_file(path)} if images.is_dir() else set()
            for mask in sorted(folder.iterdir()):
                stem = mask.name if mask.is_dir() else mask.stem.removesuffix(self.rules.suffix)
                if not is_hidden(mask.name) and stem not in stems:
                    yield self._finding(
                        "warning",
                        "orphaned_mask",
                        mask,
                        f"belongs to no image: {self.rules.test}/{folder.name} holds no {stem}",
                        "Rename it as its image is named, or remove it.",
                    )

    def _relative(self, path: Path | str) -> str:
        return path.relative_to(self.root).as_posix() if isinstance(path, Path) else path

    def _finding(self, severity: Severity, code: FindingCode, path: Path | str, message: str, advice: str) -> Finding:
        return Finding(
            severity=severity,
            code=code,
            category=self.category,
            path=self._relative(path),
            message=message,
            advice=advice,
        )
