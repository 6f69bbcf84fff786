"""The metrics of a category: splits, means, tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data_contracts.results import CategoryMetrics, MetricValues
from data_contracts.tables import CURVES, METRICS_TABLE
from pipeline_lib.dataset.ground_truth import DefectChannel
from pipeline_lib.metrics.bootstrap import ImageSample, resampled_auc_spro
from pipeline_lib.metrics.category import (
    CategoryResult,
    compute_metrics,
    halves,
    mean_interval,
    mean_metrics,
    metrics_table,
)
from pipeline_lib.metrics.spro.bootstrap_counts import SPLIT_GRID_SCORES
from pipeline_lib.metrics.spro.evaluate import evaluate_pixels
from pipeline_lib.metrics.spro.records import WHOLE, EvaluationImage
from tests.reference_spro import reference_area, reference_curve, reference_pixel_auroc

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
GROUPS = {"scratch": "structural", "missing": "logical", "folder_only": "logical", "unmasked": "logical"}
FOLDERS = ["good", "scratches", "mixed", "folder_only", "good"]


def make_images(*, masks: bool = True, n: int = 20, category: str = "cat") -> list[EvaluationImage]:
    rng = np.random.default_rng(0)
    images = []
    for i in range(n):
        folder = FOLDERS[i % len(FOLDERS)]
        score_map = rng.gamma(4.0, size=(16, 12))
        names = {"scratches": ["scratch"], "mixed": ["scratch", "missing"], "folder_only": ["odd"]}.get(folder, [])
        channels = []
        for k, name in enumerate(names):
            mask = np.zeros(score_map.shape, bool)
            mask[2 + 4 * k : 8 + 4 * k, 1:7] = True
            score_map[mask] += rng.uniform(0, 8)
            channels.append(DefectChannel(name, mask, 12, weight=2.0 if name == "missing" else 1.0))
        frozen, own = score_map.astype(np.float32), channels if masks else []
        images.append(
            EvaluationImage(
                f"{category}/test/{folder}/{i}",
                category,
                folder,
                int(folder != "good"),
                f"{i % 16:x}0",
                float(frozen.max()),
                lambda frozen=frozen: frozen,  # type: ignore[misc]
                lambda own=own: own,  # type: ignore[misc]
            )
        )
    return images


def compute(images: list[EvaluationImage], *, bootstrap: int = 50) -> CategoryResult:
    return compute_metrics(
        images, fpr_limits=LIMITS, bootstrap=bootstrap, rng=np.random.default_rng(0), defect_groups=GROUPS
    )


def test_every_split_equals_its_reference() -> None:
    images = make_images()
    metrics = compute(images).metrics
    maps, channels = [i.load_map() for i in images], [i.load_channels() for i in images]
    group_of = {"scratch": "structural", "missing": "logical", "odd": "logical"}
    splits = [
        (metrics.by_defect, {"scratch", "missing", "odd"}, lambda i, c: c.defect_name),
        (metrics.by_folder, {"scratches", "mixed", "folder_only"}, lambda i, c: images[i].folder),
        (metrics.by_group, {"structural", "logical"}, lambda i, c: group_of[c.defect_name]),
    ]
    for split, names, label in splits:
        assert set(split) == names
        for name, values in split.items():

            def select(i: int, c: DefectChannel, name: str = name, label=label) -> bool:  # type: ignore[no-untyped-def]
                return bool(label(i, c) == name)

            curve = reference_curve(maps, channels, select=select)
            assert list(values.auc_spro) == ["0.01", "0.05", "0.1", "0.3", "1.0"]
            for limit, value in values.auc_spro.items():
                assert value == pytest.approx(reference_area(curve, float(limit)), abs=1e-9)
            expected = reference_pixel_auroc(maps, channels, select=select)
            assert values.pixel_auroc == pytest.approx(expected, abs=1e-9)
            good = [i.score for i in images if not i.label_index]
            bad = [image.score for i, image in enumerate(images) if any(select(i, channel) for channel in channels[i])]
            assert (values.n_good, values.n_defective) == (len(good), len(bad))
            assert values.image_auroc == pytest.approx(np.mean([b > g for b in bad for g in good]), abs=1e-12)
    whole = reference_curve(maps, channels)
    weighted = reference_curve(maps, channels, weighted=True)
    assert metrics.auc_spro["0.3"] == pytest.approx(reference_area(whole, 0.3), abs=1e-9)
    assert metrics.auc_spro_weighted is not None
    assert metrics.auc_spro_weighted["0.3"] == pytest.approx(reference_area(weighted, 0.3), abs=1e-9)
    assert metrics.auc_spro_weighted["0.3"] != metrics.auc_spro["0.3"]
    assert set(metrics.ci95) == {"image_auroc", "auc_spro_0.05"}
    assert set(metrics.tpr_at_tnr) == {"0.99", "0.95", "0.9"}
    json.loads(metrics.model_dump_json())


def test_without_masks_only_image_metrics_are_there() -> None:
    images = make_images(masks=False)
    result = compute(images)
    with_masks = compute(make_images()).metrics
    metrics = result.metrics
    assert metrics.image_auroc == with_masks.image_auroc
    assert metrics.auc_spro == dict.fromkeys(["0.01", "0.05", "0.1", "0.3", "1.0"])
    assert metrics.pixel_auroc is None
    assert metrics.by_defect == {}
    assert set(metrics.by_folder) == {"scratches", "mixed", "folder_only"}
    assert metrics.by_folder["mixed"].image_auroc == with_masks.by_folder["mixed"].image_auroc
    assert set(metrics.by_group) == {"logical"}
    assert metrics.ci95["auc_spro_0.05"] is None
    assert metrics.ci95["image_auroc"] is not None
    assert set(result.curves["curve"]) == {"roc", "precision_recall"}


def test_good_images_alone_and_none_at_all() -> None:
    good = [image for image in make_images() if not image.label_index]
    metrics = compute(good).metrics
    assert (metrics.image_auroc, metrics.auc_spro["0.05"], metrics.n_good) == (None, None, len(good))
    empty = compute([])
    assert (empty.metrics.n_good, empty.metrics.n_defective, len(empty.curves)) == (0, 0, 0)
    pa.Table.from_pandas(empty.curves, schema=CURVES, preserve_index=False)


def test_several_categories_are_refused() -> None:
    with pytest.raises(ValueError, match="one category at a time, got a, b"):
        compute([*make_images(category="a"), *make_images(category="b")])


def test_tables_fit_their_schemas() -> None:
    result = compute(make_images())
    curves = pa.Table.from_pandas(result.curves, schema=CURVES, preserve_index=False).to_pandas()
    assert set(curves["curve"]) == {"spro_fpr", "roc", "precision_recall"}
    unmasked = compute(make_images(masks=False, category="other")).metrics
    mean = mean_metrics([result.metrics, unmasked])
    frame = metrics_table({"cat": result.metrics, "other": unmasked}, mean, subset="report")
    table = pa.Table.from_pandas(frame, schema=METRICS_TABLE, preserve_index=False)
    rows = table.to_pandas()
    assert set(rows["scope"]) == {"category", "defect", "folder", "group", "mean"}
    assert set(rows["subset"]) == {"report"}
    assert not rows.duplicated(["scope", "category", "group", "metric", "fpr_limit"]).any()
    row = rows.query("scope == 'category' and category == 'cat' and metric == 'auc_spro' and fpr_limit == 0.05").iloc[0]
    assert (row["ci_low"], row["ci_high"]) == result.metrics.ci95["auc_spro_0.05"]
    assert row["value"] == result.metrics.auc_spro["0.05"]
    other = rows.query("scope == 'category' and category == 'other' and metric == 'pixel_auroc'").iloc[0]
    assert pd.isna(other["value"])
    assert pd.isna(rows.query("metric == 'auc_spro' and fpr_limit == 0.1")["ci_low"]).all()
    assert table.column("value").null_count > 0
    assert len(metrics_table({})) == 0
    pa.Table.from_pandas(metrics_table({}), schema=METRICS_TABLE, preserve_index=False)


def test_the_mean_is_over_what_is_defined() -> None:
    a = CategoryMetrics(image_auroc=0.5, auc_spro={"0.05": 0.2, "1.0": None}, n_good=3, n_defective=1)
    b = CategoryMetrics(image_auroc=0.75, auc_spro={"0.05": None, "1.0": None}, n_good=2, n_defective=2)
    assert mean_metrics([a, b]) == MetricValues(
        image_auroc=0.625, auc_spro={"0.05": 0.2, "1.0": None}, n_good=5, n_defective=3
    )
    assert mean_metrics([]) == MetricValues()


def test_halves_go_by_the_first_digit() -> None:
    images = make_images()
    development, report = halves(images)
    assert {image.sha256[0] for image in development} == set("02468ace")
    assert {image.sha256[0] for image in report} == set("13579bdf")
    assert len(development) + len(report) == len(images)


# --- intervals of splits and means -----------------------------------------------------------------------------------


def test_the_counts_of_every_split_give_its_area() -> None:
    """Also of a defect whose images carry another one too."""
    images = make_images(n=40)
    found = evaluate_pixels(
        images,
        fpr_limits=LIMITS,
        subsets_of=lambda image, channel: [("defect", channel.defect_name), ("folder", image.folder)],
        grid_scores=1000,
    )
    labels = np.array([image.label_index for image in images])
    ids, scores = tuple(image.image_id for image in images), np.array([image.score for image in images])
    assert set(found.counts) == set(found.by_subset)
    for subset, counts in found.counts.items():
        sample = ImageSample(ids, labels, scores, counts)
        for limit in LIMITS:
            area = resampled_auc_spro(sample, np.ones((1, len(images))), fpr_limit=limit)
            assert area is not None
            tolerance = 0.5 / (1000 if subset == WHOLE else SPLIT_GRID_SCORES)
            assert area[0] == pytest.approx(found.by_subset[subset].auc_spro[limit], abs=tolerance), subset


def test_splits_have_intervals_around_their_values_and_leave_the_wholes_alone() -> None:
    metrics = compute(make_images(n=40), bootstrap=200).metrics
    for split in (metrics.by_defect, metrics.by_folder, metrics.by_group):
        for values in split.values():
            interval, value = values.ci95["auc_spro_0.05"], values.auc_spro["0.05"]
            assert interval is not None
            assert value is not None
            assert interval[0] - 0.01 <= value <= interval[1] + 0.01
            assert interval[0] < interval[1]
    assert metrics.by_defect["scratch"].ci95 != metrics.by_folder["scratches"].ci95
    assert metrics.by_defect["odd"] == metrics.by_folder["folder_only"]  # the same images and channels
    table = metrics_table({"cat": metrics})
    rows = table[(table.scope == "defect") & (table.metric == "auc_spro") & (table.fpr_limit == 0.05)]
    assert rows.ci_low.notna().all()


def test_the_interval_of_a_mean_is_near_that_of_means_of_independent_draws() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.beta(a, b, 20_000) for a, b in ((80, 20), (30, 10), (12, 6))]
    found = []
    for values in draws:
        low, high = np.percentile(values, [2.5, 97.5])
        found.append((float(values.mean()), (float(low), float(high))))
    expected = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
    assert mean_interval(found) == pytest.approx(tuple(expected), abs=0.005)
    assert mean_interval(found[:1]) == pytest.approx(found[0][1])


def test_a_mean_without_all_intervals_has_none() -> None:
    assert mean_interval([]) is None
    assert mean_interval([(0.5, (0.4, 0.6)), (0.7, None)]) is None
    several = [compute(make_images(category=name)).metrics for name in ("a", "b")]
    mean = mean_metrics(several)
    assert mean.auc_spro["0.05"] is not None
    for key, value in (("image_auroc", mean.image_auroc), ("auc_spro_0.05", mean.auc_spro["0.05"])):
        interval = mean.ci95[key]
        assert interval is not None
        assert value is not None
        assert interval[0] <= value <= interval[1]
    assert mean_metrics([compute(make_images(), bootstrap=0).metrics]).ci95 == {}
