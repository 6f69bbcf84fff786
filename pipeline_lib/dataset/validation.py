"""Checks of a data set before it is used. Nothing raises for bad images or masks: they become findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.config import Layout, PreprocessingConfig
from data_contracts.defects import AUTOVI_COUNTS
from data_contracts.errors import DatasetError
from data_contracts.validation import SEVERITIES, Finding, FindingCode, Severity, ValidationReport
from pipeline_lib.dataset.ground_truth import DefectWeights, category_defects
from pipeline_lib.dataset.groups.findings import copy_findings
from pipeline_lib.dataset.layout import GOOD, RULES, Folders, find_categories, folders
from pipeline_lib.dataset.mask_validation import MaskCheck
from pipeline_lib.dataset.pixel_findings import pixel_findings
from pipeline_lib.dataset.reading import decide_reading, without_brighter

FEW_TRAIN_IMAGES = 10
THIN_CLASS_IMAGES = 20
NAMES_OF_GOOD = frozenset({"good", "ok", "io", "normal"})
"""Folder names, in lower case, under which people keep good images."""
NAMES_OF_UNJUDGED = frozenset(
    {
        "new", "newimages", "newphotos", "today", "yesterday", "unknown", "unsorted", "unlabelled", "unlabeled",
        "unjudged", "unclassified", "undecided", "unclear", "unchecked", "notchecked", "tocheck", "tobechecked",
        "tojudge", "toreview", "tosort", "inbox", "incoming", "input", "queue", "pending", "todo", "all", "images",
        "pictures", "photos",
    }
)  # fmt: skip
"""Folder names, their letters in lower case, under which people keep images that nobody has judged."""
ASPECT_TOLERANCE = 1.25
_SHOWN_OF_ONE_KIND = 10


def validate_dataset(
    index: pd.DataFrame,
    root: Path | str,
    *,
    layout: Layout = "autovi",
    defect_weights: DefectWeights | None = None,
    categories: Sequence[str] | None = None,
    preprocessing: PreprocessingConfig | None = None,
    thumbnails: Mapping[str, np.ndarray] | None = None,
    groups: pd.DataFrame | None = None,
) -> ValidationReport:
    """Check the images of `index` (from `index_dataset` of the same root and layout) and their masks on disk.

    `categories` are those that should be in the index; all that lie below `root` unless given. With `thumbnails`
    (`groups.thumbnails`) near copies are looked for; `groups`: IMAGE_GROUPS, with dataset.group.
    To check a data set that has a category without training images, index it with `require_train="none"`.
    Raises DatasetError only where `root` is not a directory.
    """
    root = Path(root)
    index = index.assign(stem=[Path(path).stem for path in index["path"]])
    preprocessing = preprocessing or PreprocessingConfig()
    train = index[index["split"] == "train"]  # without one, a category has no range
    index = without_brighter(index, decide_reading(train, preprocessing, mixed="kept").value_ranges)
    decoded, readable = index[index["width"] > 0], index[index["problem"] == ""]
    directories = find_categories(root, layout=layout)
    findings: list[Finding] = []
    mask_channels: dict[str, dict[str, int]] = {}
    for category in sorted({*index["category"], *(directories if categories is None else categories)}):
        rows = index[index["category"] == category]
        good_rows = readable[readable["category"] == category]
        findings += _set_aside(category, rows)
        findings += _equal_stems(category, rows)
        findings += _counts(category, good_rows, layout, folders(directories.get(category, root / category), layout))
        findings += _aspect_ratio(category, good_rows, preprocessing)
        findings += pixel_findings(category, decoded[decoded["category"] == category], preprocessing)
        if RULES[layout].masks != "none" and category in directories:
            masks = MaskCheck(root, category, directories[category], layout, defect_weights or {})
            findings += masks.check(rows)
            mask_channels[category] = dict(masks.usable)
    findings += _duplicates(readable)
    if thumbnails is not None:
        findings += copy_findings(readable, thumbnails, groups)
    findings += _unknown_weights(defect_weights, mask_channels, root, directories, layout)
    return ValidationReport(
        root=str(root),
        layout=layout,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        counts=_count_table(readable),
        mask_channels=mask_channels,
    )


def render_validation_text(report: ValidationReport) -> str:
    """The report as plain text: what there is, then what is wrong, where, and what to do about it."""
    lines = [f"Data set {report.root} (layout {report.layout})", ""]
    for category, by_split in report.counts.items():
        test = by_split.get("test", {})
        defects = ", ".join(f"{label} {n}" for label, n in test.items() if label != GOOD) or "none"
        channels = sum(report.mask_channels.get(category, {}).values())
        lines.append(
            f"  {category}: {sum(by_split.get('train', {}).values())} train, {test.get(GOOD, 0)} test good, "
            f"{sum(n for label, n in test.items() if label != GOOD)} defective ({defects}); {channels} mask channels"
        )
    totals = ", ".join(f"{report.count(severity)} {severity}s" for severity in SEVERITIES)
    lines += ["", f"{totals}."]
    kinds = Counter((finding.severity, finding.code) for finding in report.findings)
    for (severity, code), number in kinds.items():
        of_kind = [finding for finding in report.findings if (finding.severity, finding.code) == (severity, code)]
        lines += ["", f"{severity.upper()} {code} ({number})"]
        for finding in of_kind[:_SHOWN_OF_ONE_KIND]:
            where = finding.path or finding.category
            lines.append(f"  {where}: {finding.message}" if where else f"  {finding.message}")
        if number > _SHOWN_OF_ONE_KIND:
            lines.append(f"  ... and {number - _SHOWN_OF_ONE_KIND} more")
        lines += [f"  -> {advice}" for advice in dict.fromkeys(finding.advice for finding in of_kind) if advice]
    return "\n".join(lines) + "\n"


def is_unjudged(label: str) -> bool:
    """Whether a test folder's name says that nobody has judged its images, not which defect they have."""
    return re.sub(r"[\W\d_]", "", label.casefold()) in NAMES_OF_UNJUDGED


# --- images ----------------------------------------------------------------------------------------------------------


def _set_aside(category: str, rows: pd.DataFrame) -> Iterator[Finding]:
    columns = ["path", "problem", "width"]
    for path, problem, width in rows.loc[rows["problem"] != "", columns].itertuples(index=False):
        yield Finding(
            severity="error",
            code="too_bright" if width else "unreadable_image",
            category=category,
            path=str(path),
            message=str(problem),
            advice="Replace or remove the file; until then it is set aside, or dataset.on_bad_image: fail stops.",
        )


def _equal_stems(category: str, rows: pd.DataFrame) -> Iterator[Finding]:
    names = pd.Series([path.rpartition(".")[0] for path in rows["path"]], rows.index, dtype=str)
    for _, paths in rows["path"][names.duplicated(keep=False)].groupby(names):
        first, *others = paths
        yield Finding(
            severity="error",
            code="equal_stems",
            category=category,
            path=str(first),
            message=f"differs from {', '.join(others)} in the ending alone",
            advice="Masks and maps are found by the name without its ending: rename or remove all but one image.",
        )


def _counts(category: str, rows: pd.DataFrame, layout: Layout, own: Folders) -> Iterator[Finding]:
    train = int((rows["split"] == "train").sum())
    test = Counter(rows.loc[rows["split"] == "test", "label"])

    def finding(severity: Severity, code: FindingCode, message: str, advice: str) -> Finding:
        return Finding(severity=severity, code=code, category=category, message=message, advice=advice)

    if not train:
        yield finding("error", "empty_category", "no readable training image", f"Add good images to {own.train}.")
    elif train < FEW_TRAIN_IMAGES:
        yield finding(
            "warning",
            "few_images",
            f"only {train} training images; a memory bank needs {FEW_TRAIN_IMAGES} or more to know what is normal",
            "Take more images of good parts.",
        )
    for label in sorted(test):
        if label != GOOD and label.casefold() in NAMES_OF_GOOD:
            yield finding(
                "warning",
                "good_by_another_name",
                f"{own.defect.replace('<defect>', label)} counts as a kind of defect: good images lie in "
                f"{own.test_good}",
                f"Rename the folder {GOOD} if its images are good.",
            )
    for label in sorted(filter(is_unjudged, test)):
        yield finding(
            "warning",
            "perhaps_unjudged",
            f"{label} sounds as if nobody had judged its {test[label]} images; they count as known defective",
            "Not judged yet: move the folder out of the data set and score it (fedpatch score RUN_DIR IMAGES); all of "
            "them defective: name the folder after the defect.",
        )
    if not test[GOOD]:
        yield finding(
            "warning",
            "empty_category",
            "no good test image: no image metric is defined",
            f"Add good images to {own.test_good}.",
        )
    if test.total() == test[GOOD]:
        yield finding(
            "warning",
            "empty_category",
            "no defective test image: fine for judging new images, whose threshold comes from the normal ones; what a "
            "run would miss stays unknown, and no metric is defined",
            f"To measure it, add known defective images to {own.defect}.",
        )
    for label, number in sorted(test.items()):
        if label != GOOD and number < THIN_CLASS_IMAGES:
            yield finding(
                "note",
                "thin_class",
                f"only {number} test images in {label} (fewer than {THIN_CLASS_IMAGES}): its figures are uncertain",
                "Read the confidence intervals with it.",
            )
    if layout == "autovi" and (published := AUTOVI_COUNTS.get(category)):
        expected = {"train/good": published["train"], "test/good": published["good"]}
        expected |= {f"test/{label}": number for label, number in published["defects"].items()}
        got = {"train/good": train} | {f"test/{label}": number for label, number in sorted(test.items())}
        differing = [
            f"{folder} {got.get(folder, 0)} (AutoVI 1.0.0 has {expected.get(folder, 0)})"
            for folder in dict.fromkeys([*expected, *got])
            if got.get(folder, 0) != expected.get(folder, 0)
        ]
        if differing:
            yield finding(
                "note",
                "count_differs",
                "; ".join(differing),
                "Expected with dataset.max_images or a data set of your own; else unpack the archive again.",
            )


def _aspect_ratio(category: str, rows: pd.DataFrame, preprocessing: PreprocessingConfig) -> Iterator[Finding]:
    width, height = preprocessing.size(category)
    outside = _stretch(rows, width, height) > ASPECT_TOLERANCE
    if outside.any():
        usual = _usual_size(rows)
        left = int((_stretch(rows, *usual) > ASPECT_TOLERANCE).sum())
        mixed = left > outside.sum() / 2  # no other size mends most of it
        shapes = rows["width"] / rows["height"]
        advice = "Set preprocessing.size_by_category.<category>: [width, height] to the shape of the images"
        if left and not mixed:
            advice += f", {usual[0]}x{usual[1]}: {left} would still differ"
        if mixed:
            advice = (
                "Shapes are mixed and no one size fits: leave it so, or make parts of one shape a category of their own"
            )
        yield Finding(
            severity="warning",
            code="aspect_ratio",
            category=category,
            message=f"{int(outside.sum())} of {len(rows)} images differ by more than 25 % in aspect from the "
            f"{width}x{height} that they are resized to (width by height {shapes.min():.2g} to {shapes.max():.2g}, "
            f"training images most often {usual[0]}x{usual[1]}), so they are distorted",
            advice=f"{advice}.",
        )


def _stretch(rows: pd.DataFrame, width: int, height: int) -> pd.Series:
    """By how much the images' proportions differ from those of a size, from 1 on."""
    ratio = (rows["width"] / rows["height"]) / (width / height)
    return ratio.where(ratio >= 1, 1 / ratio)


def _usual_size(rows: pd.DataFrame) -> tuple[int, int]:
    """The most frequent (width, height) of the training images, which `fedpatch init` goes by; of all without any."""
    chosen = rows[rows["split"] == "train"] if (rows["split"] == "train").any() else rows
    (size, _), *_ = Counter(zip(chosen["width"], chosen["height"], strict=True)).most_common(1)
    return int(size[0]), int(size[1])


def _duplicates(rows: pd.DataFrame) -> Iterator[Finding]:
    """Pictures that are there more than once, by their pixels; constant images are a finding of their own."""
    rows = rows[rows["is_constant"] == 0]
    repeated = rows[rows.duplicated("pixels_sha256", keep=False)]
    for _, group in repeated.groupby("pixels_sha256", sort=False):
        places = set(zip(group["category"], group["split"], group["label"], strict=True))
        paths = [str(path) for path in group["path"]]
        what = "file" if len(set(group["sha256"])) == 1 else "picture, stored another way,"
        others = ", ".join(paths[1:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
        if len({split for _, split, _ in places}) > 1:
            severity: Severity = "warning"
            advice = "Remove it from one split: a test image that was trained on makes the figures too good."
        elif len(set(group["label_index"])) > 1:
            severity = "warning"
            advice = "Decide whether it is good or defective, and remove the other copy."
        else:
            severity = "note"
            advice = "Remove the copies, unless they are meant."
        yield Finding(
            severity=severity,
            code="duplicate_across_splits",
            category=str(group["category"].iloc[0]),
            path=paths[0],
            message=f"the same {what} also lies at {others}" + ("" if len(places) > 1 else " (same folder)"),
            advice=advice,
        )


def _unknown_weights(
    weights: DefectWeights | None,
    mask_channels: dict[str, dict[str, int]],
    root: Path,
    directories: dict[str, Path],
    layout: Layout,
) -> Iterator[Finding]:
    if not weights or isinstance(weights, str):
        return
    known = {name for by_defect in mask_channels.values() for name in by_defect}
    for category in directories:
        try:
            known |= {entry.defect_name for entry in category_defects(root, category, layout=layout)}
        except DatasetError:
            continue  # reported as no_defects_config
    for name in weights:
        if name not in known:
            yield Finding(
                severity="warning",
                code="defect_weight_unknown",
                message=f"evaluation.defect_weights names {name!r}, which is no defect of this data set",
                advice=f"Use one of: {', '.join(sorted(known)) or 'none'}.",
            )


def _count_table(rows: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    table: dict[str, dict[str, dict[str, int]]] = {}
    for category, split, label in zip(rows["category"], rows["split"], rows["label"], strict=True):
        by_label = table.setdefault(category, {}).setdefault(split, {})
        by_label[label] = by_label.get(label, 0) + 1
    return table
