"""Schemas of the Parquet tables. Each artifact kind has one schema, one writer and one reader."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

DATASET_INDEX = pa.schema(
    [
        ("image_id", pa.string()),  # <category>/<split>/<label>/<stem>, unique
        ("category", pa.string()),
        ("split", pa.string()),  # train | test
        ("label", pa.string()),  # good, or the defect folder
        ("label_index", pa.int64()),  # 0 good, 1 defective
        ("path", pa.string()),  # relative to the data set's root, forward slashes
        ("width", pa.int64()),  # pixels; 0 where the file cannot be read
        ("height", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("n_mask_channels", pa.int64()),
        ("problem", pa.string()),  # empty, or why the image is set aside
        ("bit_depth", pa.int64()),  # 8, or what a deeper file says; this and what follows is not in earlier indexes
        ("max_value", pa.int64()),  # the largest of any channel
        ("is_constant", pa.int64()),  # 1: all pixels are the same
        ("is_grey", pa.int64()),
        ("orientation", pa.int64()),  # 1, or the turn (EXIF's 2 to 8) that was applied
        ("pages", pa.int64()),  # of which the first is read
        ("pixels_sha256", pa.string()),  # of the upright pixels
    ]
)

PARTITION = pa.schema([("image_id", pa.string()), ("client_id", pa.string())])

IMAGE_GROUPS = pa.schema(
    [
        ("image_id", pa.string()),
        ("group", pa.string()),  # <category>/<name>; images that are not in the table stand alone
    ]
)

CLIENT_IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("category", pa.string()),
        ("path", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)

PATCH_FEATURES = pa.schema(
    [
        ("image_id", pa.string()),
        ("category", pa.string()),
        ("image_sha256", pa.string()),
        ("image_bytes", pa.int64()),
        ("grid_height", pa.int64()),
        ("grid_width", pa.int64()),
        ("dim", pa.int64()),
        ("cells", pa.list_(pa.float64())),  # where the patches look: offset y and x, cells across y and x (`Cells`)
        ("path", pa.string()),  # of the image's features in the store
        ("sha256", pa.string()),
        ("size_bytes", pa.int64()),
    ]
)

IMAGE_SCORES = pa.schema(
    [
        ("image_id", pa.string()),
        ("category", pa.string()),
        ("label", pa.string()),
        ("label_index", pa.int64()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("score", pa.float64()),
    ]
)

CALIBRATION_SCORES = pa.schema(
    [
        ("client_id", pa.string()),
        ("category", pa.string()),
        ("block", pa.int64()),  # images of one block were scored without each other's rows
        ("score", pa.float64()),  # of a normal training image; which one stays with the client
    ]
)


def calibration_schema(columns: Iterable[str]) -> pa.Schema:
    """CALIBRATION_SCORES; where there are groups, with the number of an image's group (-1: it stands alone)."""
    return CALIBRATION_SCORES.append(pa.field("group", pa.int64())) if "group" in columns else CALIBRATION_SCORES


BANK_PROVENANCE = pa.schema(
    [
        ("bank_row", pa.int64()),
        ("image_id", pa.string()),
        ("patch_index", pa.int64()),  # of that image, row-major
    ]
)

DECISIONS = pa.schema(
    [
        ("path", pa.string()),
        ("category", pa.string()),
        ("score", pa.float64()),  # null where the image is refused
        ("threshold", pa.float64()),
        ("decision", pa.string()),  # good | defective; null where refused or without threshold
        ("reason", pa.string()),  # why it is refused
        ("note", pa.string()),
        ("n_regions", pa.int64()),
        ("area_px", pa.int64()),  # above the threshold
        ("regions", pa.string()),  # JSON: area_px, box and peak of each
        ("nearest_normal", pa.string()),  # JSON: with --explain
        ("picture", pa.string()),  # relative to the output directory
        ("explained", pa.string()),  # picture of the most similar normal patches; not in earlier tables
        # look again: defective | close | note; accept; not decided; refused; not in earlier tables
        ("advice", pa.string()),
    ]
)

METRICS_TABLE = pa.schema(
    [
        ("subset", pa.string()),  # all | development | report (halves of the test set)
        ("scope", pa.string()),  # category | defect | folder | group | mean
        ("category", pa.string()),  # empty for scope mean
        ("group", pa.string()),  # the defect, folder or group; empty for scope category and mean
        ("metric", pa.string()),
        ("fpr_limit", pa.float64()),  # null where the metric has none
        ("value", pa.float64()),  # null where undefined
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n_good", pa.int64()),
        ("n_defective", pa.int64()),
    ]
)

CURVES = pa.schema(
    [
        ("category", pa.string()),
        ("curve", pa.string()),  # spro_fpr | roc | precision_recall
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
