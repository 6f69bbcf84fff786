"""Measuring a category: maps and scores against ground truth, on all of test and on its two halves.

The same code measures a run's own maps and anyone's maps from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from data_contracts.config import GroupRule, Layout, PreprocessingConfig
from data_contracts.errors import ConfigError, DatasetError, ImageError
from data_contracts.manifests import Cells
from data_contracts.results import SUBSETS, CategoryMetrics, MetricsDocument
from data_contracts.settings import EvaluationSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.dataset.ground_truth import DefectChannel, MaskError, category_defects, read_mask_channels
from pipeline_lib.dataset.groups.assignment import named_groups
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.dataset.layout import resolved_layout
from pipeline_lib.dataset.reading import decide_reading, without_brighter
from pipeline_lib.maps.map_files import find_map, read_map, refuse_other_shape, resize_map
from pipeline_lib.maps.saved_maps import read_scores, smooth_map
from pipeline_lib.metrics.bootstrap import ImageSample
from pipeline_lib.metrics.category import compute_metrics, halves, mean_metrics, metrics_table
from pipeline_lib.metrics.kept_images import kept_images
from pipeline_lib.metrics.spro.records import EvaluationImage

LoadMap = Callable[[], np.ndarray]
FEW_GROUPS = 10


@dataclass(frozen=True)
class CategoryEvaluation:
    """Metrics of one category by subset of the test set, as a table, and the curves of all of test."""

    category: str
    metrics: dict[str, CategoryMetrics]  # all | development | report
    table: pd.DataFrame  # schema METRICS_TABLE
    curves: pd.DataFrame  # schema CURVES
    warnings: list[str]
    sample: ImageSample  # of all of test


def stored_maps(
    rows: pd.DataFrame, maps: np.ndarray, scores: pd.DataFrame, sigma_px: float, cells: Cells | None = None
) -> tuple[dict[str, LoadMap], dict[str, float]]:
    """Loaders and scores for `evaluate_category` from maps on the patch grid (image, height, width), in rows' order.

    cells: where those of the grid look; in the middle of their shares of the image unless given.
    """

    def loader(position: int, height: int, width: int) -> LoadMap:
        return lambda: smooth_map(resize_map(maps[position], height, width, cells), sigma_px)

    loaders = {
        row["image_id"]: loader(position, row["height"], row["width"])
        for position, row in enumerate(rows.to_dict("records"))
    }
    return loaders, dict(zip(scores.image_id, scores.score.astype(float), strict=True))


def evaluation_images(
    rows: pd.DataFrame,
    root: Path,
    loaders: Mapping[str, LoadMap],
    scores: Mapping[str, float],
    settings: EvaluationSettings,
    *,
    on_bad_image: str = "skip",
    group_of: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[EvaluationImage], list[str]]:
    """The test images of one category with the means to load map and masks; arguments as in `evaluate_category`.

    The list beside them fills with the masks that do not fit, as the images' masks are loaded.
    """
    category = str(rows.category.iloc[0])
    layout = resolved_layout(settings.layout, root)
    defects = category_defects(root, category, layout=layout)
    warnings: list[str] = []

    def channels_of(row: Mapping[Any, Any]) -> list[DefectChannel]:
        try:
            return read_mask_channels(
                root,
                category,
                row["label"],
                Path(row["path"]).stem,
                layout=layout,
                width=row["width"],
                height=row["height"],
                orientation=row["orientation"],
                defects=defects,
                defect_weights=settings.defect_weights,
            )
        except MaskError as error:
            if on_bad_image == "fail":
                raise
            message = f"{error}; left out of the pixel metrics"
            if message not in warnings:
                warnings.append(message)
            return []

    images = [
        EvaluationImage(
            image_id=row["image_id"],
            category=category,
            folder=row["label"],
            label_index=row["label_index"],
            sha256=row["sha256"],
            score=scores[row["image_id"]],
            load_map=loaders[row["image_id"]],
            group=group_of.get(row["image_id"]),
            load_channels=lambda row=row: channels_of(row),  # type: ignore[misc]
        )
        for row in rows.to_dict("records")
    ]
    return images, warnings


def evaluate_category(
    rows: pd.DataFrame,
    root: Path,
    loaders: Mapping[str, LoadMap],
    scores: Mapping[str, float],
    settings: EvaluationSettings,
    *,
    on_bad_image: str = "skip",
    group_of: Mapping[str, str] = MappingProxyType({}),
) -> CategoryEvaluation:
    """Measure one category.

    rows: its test images (dataset index); loaders and scores: image_id -> map at the image's own size, image score;
    group_of: image_id -> group of the images that do not stand alone, which the halves do not part.
    A mask that does not fit is listed and its image left out of the pixel metrics, unless `on_bad_image` is fail.
    """
    category = str(rows.category.iloc[0])
    images, warnings = evaluation_images(
        rows, root, loaders, scores, settings, on_bad_image=on_bad_image, group_of=group_of
    )
    images = kept_images(images)
    development, report = halves(images)
    metrics: dict[str, CategoryMetrics] = {}
    tables = []
    curves = pd.DataFrame()
    for subset, chosen in zip(SUBSETS, (images, development, report), strict=True):
        result = compute_metrics(
            chosen,
            fpr_limits=settings.fpr_limits,
            bootstrap=settings.bootstrap,
            rng=stage_rng(settings.seed, "bootstrap", category, subset),
            defect_groups=settings.defect_groups,
        )
        metrics[subset] = result.metrics
        tables.append(metrics_table({category: result.metrics}, subset=subset))
        if subset == "all":
            curves, sample = result.curves, result.sample
            warnings += _few_groups(category, sample)
            warnings += _without_mask(category, result.unmasked, settings.layout)
    return CategoryEvaluation(category, metrics, pd.concat(tables, ignore_index=True), curves, warnings, sample)


def _without_mask(category: str, image_ids: Sequence[str], layout: Layout) -> list[str]:
    if layout == "folder" and image_ids:
        return [f"{category} has no masks, as its layout (folder) has none: image metrics alone"]
    return [f"{image_id} has no usable mask: left out of the pixel metrics" for image_id in image_ids]


def _few_groups(category: str, sample: ImageSample) -> list[str]:
    if sample.group_index is None:
        return []
    return [
        f"the {label} test images of {category} are of {n} groups: below {FEW_GROUPS}, intervals are rough and rather "
        "too narrow"
        for label, n in zip(("good", "defective"), sample.independent, strict=True)
        if 0 < n < FEW_GROUPS
    ]


def metrics_document(
    categories: Mapping[str, CategoryMetrics], *, experiment: str, config_hash: str, seed: int, subset: str = "all"
) -> MetricsDocument:
    """The document of one subset, with the mean over categories; federation and timings are filled in by the caller."""
    return MetricsDocument(
        experiment=experiment,
        config_hash=config_hash,
        seed=seed,
        subset=subset,
        categories=dict(categories),
        mean=mean_metrics(categories.values()),
    )


def evaluate_map_files(
    root: Path,
    maps_root: Path,
    settings: EvaluationSettings,
    *,
    categories: tuple[str, ...] | None = None,
    stretch_maps: bool = False,
    preprocessing: PreprocessingConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    group: GroupRule | None = None,
) -> list[CategoryEvaluation]:
    """Measure anyone's anomaly maps, <maps_root>/<category>/test/<folder>/<stem>.png|.tiff|.tif|.npy.

    All categories that have maps unless named; the image score is that of <maps_root>/<category>/scores.json where
    there is one, else the map's maximum. Raises DatasetError where there is nothing to measure, ImageError naming
    every missing map of a category (up to three), and for a map with other proportions than its image's, which
    `stretch_maps` stretches to it.
    Images that a run with this `preprocessing` sets aside need no map; a warning names each. `group` is that of a run,
    whose halves are then these; ConfigError for found, which goes by a run's training images too.
    """
    if not maps_root.is_dir():
        raise DatasetError(f"there is no directory of maps {maps_root}")
    if categories is None:
        categories = tuple(sorted(p.name for p in maps_root.iterdir() if (p / "test").is_dir()))
        if not categories:
            raise DatasetError(
                f"{maps_root} holds no maps: expected <category>/test/<folder>/<stem>.png, .tiff or .npy"
            )
    layout = resolved_layout(settings.layout, root)
    index = _index_test(root, layout, categories, preprocessing or PreprocessingConfig())
    if group == "found":
        raise ConfigError("dataset.group: found is for runs; name the groups of maps by a pattern or a file")
    group_of = named_groups(index, group) or {}
    results = []
    for category in categories:
        rows = category_test_table(index, category)
        result = _evaluate_files(rows, category, root, maps_root, settings, stretch_maps, group_of)
        aside = index[(index.category == category) & (index.problem != "")]
        result.warnings.extend(f"{row['path']}: {row['problem']}; left out" for row in aside.to_dict("records"))
        results.append(result)
        progress(len(results), len(categories))
    return results


def _index_test(
    root: Path, layout: Layout, categories: tuple[str, ...], preprocessing: PreprocessingConfig
) -> pd.DataFrame:
    """The index of the test images, with a problem where one is brighter than training images allow."""
    orientation = preprocessing.orientation
    index = index_dataset(root, layout=layout, categories=categories, splits=("test",), orientation=orientation)
    deep = sorted(set(index.category[index.bit_depth > 8]))
    if not deep:
        return index
    train = index_dataset(root, layout=layout, categories=deep, splits=("train",), require_train="none")
    return without_brighter(index, decide_reading(train, preprocessing, mixed="kept").value_ranges)


def _evaluate_files(
    rows: pd.DataFrame,
    category: str,
    root: Path,
    maps_root: Path,
    settings: EvaluationSettings,
    stretch_maps: bool,
    group_of: Mapping[str, str],
) -> CategoryEvaluation:
    if rows.empty:
        raise DatasetError(f"{category} has no readable test images")
    loaders: dict[str, LoadMap] = {}
    scores: dict[str, float] = {}
    missing: list[str] = []
    given = read_scores(maps_root, category)
    for row in rows.to_dict("records"):
        try:
            path = find_map(maps_root, category, row["label"], Path(row["path"]).stem)
        except ImageError as error:
            missing.append(str(error))
            continue

        def load(path: Path = path, height: int = row["height"], width: int = row["width"]) -> np.ndarray:
            values = read_map(path)
            if not stretch_maps:
                refuse_other_shape(values, height, width, name=str(path))
            return smooth_map(resize_map(values, height, width), settings.smoothing_sigma)

        loaders[row["image_id"]] = load
        key = f"{row['label']}/{Path(row['path']).stem}"
        if given is not None and key not in given:
            raise ImageError(f"{maps_root / category / 'scores.json'} has no score for {key}")
        scores[row["image_id"]] = float(load().max()) if given is None else given[key]
    if missing:
        raise ImageError(f"{len(missing)} of {len(rows)} maps of {category} are missing: {'; '.join(missing[:3])}")
    return evaluate_category(rows, root, loaders, scores, settings, group_of=group_of)
