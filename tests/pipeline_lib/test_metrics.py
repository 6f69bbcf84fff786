"""The metrics of a category: splits, means, tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data_contracts.results import CategoryMetrics, MetricValues
from data_contracts.tables import CURVES, METRICS
from pipeline_lib.ground_truth import DefectChannel
from pipeline_lib.metrics import CategoryResult, compute_metrics, halves, mean_metrics, metrics_table
from pipeline_lib.spro import EvaluationImage
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
    table = pa.Table.from_pandas(frame, schema=METRICS, preserve_index=False)
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
    pa.Table.from_pandas(metrics_table({}), schema=METRICS, preserve_index=False)


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
