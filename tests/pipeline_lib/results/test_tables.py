"""Rows for people: per cent, intervals, dashes for what is undefined, and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import IndexedDataset, Manifest
from data_contracts.results import (
    CategoryMetrics,
    ClientSummary,
    Decision,
    FederationSummary,
    MetricsDocument,
    MetricValues,
)
from data_contracts.settings import BackboneSettings
from pipeline_lib.results.tables import (
    choice_warnings,
    client_rows,
    headline_text,
    markdown_table,
    metric_rows,
    per_cent,
    share_of_bytes,
    table_in_ui,
)
from pipeline_lib.results.warnings import name_warnings, run_warnings


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.97314, None, "97.3"),
        (0.97314, (0.961, 0.98249), "97.3 [96.1, 98.2]"),
        (1.0000000000000135, (1.0, 1.0), "100.0 [100.0, 100.0]"),
        (0.0, None, "0.0"),
        (None, None, "-"),
        (None, (0.1, 0.2), "-"),
    ],
)
def test_per_cent(value: float | None, interval: tuple[float, float] | None, text: str) -> None:
    assert per_cent(value, interval) == text


def test_the_ui_alone_gets_an_escaped_at_sign_for_it_would_make_a_mail_address() -> None:
    rows = [{"experiment": "iid|5", "AUC-sPRO@0.05": 70.1}]
    assert markdown_table(rows) == "| experiment | AUC-sPRO@0.05 |\n| --- | --- |\n| iid\\|5 | 70.1 |"
    assert table_in_ui(rows) == "| experiment | AUC-sPRO\\@0.05 |\n| --- | --- |\n| iid\\|5 | 70.1 |"


def test_a_row_a_category_and_their_mean() -> None:
    bolt = CategoryMetrics(
        image_auroc=0.9, image_ap=0.8, pixel_auroc=0.95, auc_spro={"0.05": 0.7, "0.3": 0.99}, n_good=40, n_defective=19,
        auc_spro_chance={"0.05": 0.58}, unmarked_image_auroc=0.61,
        ci95={"image_auroc": (0.85, 0.94), "auc_spro_0.05": None},
    )  # fmt: skip
    nut = CategoryMetrics(n_good=12, n_defective=20, auc_spro={"0.05": None})
    document = MetricsDocument(
        experiment="x",
        config_hash="0",
        seed=1,
        categories={"nut": nut, "bolt": bolt},
        mean=MetricValues(image_auroc=0.9, n_good=52, n_defective=39),
    )
    rows = metric_rows(document)
    assert [row["category"] for row in rows] == ["nut", "bolt", "mean"]
    assert rows[1] == {
        "category": "bolt",
        "image AUROC": "90.0 [85.0, 94.0]",
        "unmarked AUROC": "61.0",
        "image AP": "80.0",
        "AUC-sPRO@0.05": "70.0",
        "pixel AUROC": "95.0",
        "sPRO by chance": "58.0",
        "good": 40,
        "defective": "19 (few)",
    }
    assert (rows[0]["image AUROC"], rows[0]["AUC-sPRO@0.05"], rows[0]["defective"]) == ("-", "-", "20")
    assert (rows[2]["image AUROC"], rows[2]["AUC-sPRO@0.05"], rows[2]["defective"]) == ("90.0", "-", "39")


def test_of_good_images_alone_the_false_alarms_are_listed_and_no_metric() -> None:
    decision = Decision(threshold=3.0, false_alarms=1, n_good=8, realised_ci95=(0.003, 0.527))
    good = {name: CategoryMetrics(n_good=8, decision=decision) for name in ("nut", "bolt")}
    document = MetricsDocument(experiment="x", config_hash="0", seed=1, categories=good, mean=MetricValues(n_good=16))
    rows = metric_rows(document)
    assert rows[0] == {
        "category": "nut",
        "good called defective": "1 of 8: 12.5 [0.3, 52.7]",
        "good": 8,
        "defective": "0",
    }
    assert rows[2]["good called defective"] == "2 of 16: 12.5"
    assert headline_text(document) == "good called defective 2 of 16: 12.5"
    document.mean = MetricValues(image_auroc=0.9, ci95={"image_auroc": (0.8, 0.95)})
    document.categories["nut"].n_defective = 3
    assert headline_text(document) == "image AUROC 90.0"


def test_clients_that_delivered_failed_and_were_skipped() -> None:
    federation = FederationSummary(
        mode="federated",
        clients={
            "a": ClientSummary(
                train_images=10, patches=25_000, coreset_rows=250, upload_bytes=1_536_000, raw_image_bytes=1_024_000,
                covering_radius=1.23456,
            ),
            "b": ClientSummary(train_images=1, patches=9, coreset_rows=1, upload_bytes=9, raw_image_bytes=0),
        },
        failed_clients={"c": "OSError: disk"},
        skipped_clients=["d"],
    )  # fmt: skip
    rows = client_rows(federation)
    assert rows[0] == {
        "client": "a",
        "state": "delivered",
        "images": 10,
        "patches": 25_000,
        "rows sent": 250,
        "upload MB": 1.54,
        "share of image bytes": "150 %",
        "covering radius": 1.235,
    }
    assert rows[1]["share of image bytes"] == "-"
    assert [(row["client"], row["state"]) for row in rows[2:]] == [
        ("c", "failed: OSError: disk"),
        ("d", "skipped: no images"),
    ]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert rows[2]["images"] is None


def backbone(**values: Any) -> BackboneSettings:
    return BackboneSettings(
        backbone="resnet18", layers=("layer2",), weights_source=values.get("source", "package x"), weights_sha256="0",
        weights_path=Path("w"), seed=0, mean=(0, 0, 0), std=(1, 1, 1), neighborhood_size=3,
    )  # fmt: skip


def indexed(**values: Any) -> IndexedDataset:
    table = Manifest(kind="dataset_index", path="x", sha256="0" * 64, size_bytes=1, rows=1)
    defaults: dict[str, Any] = {
        "index": table,
        "categories": ("bolt", "nut"),
        "truth_sha256": {},
        "test_images": {"bolt": table, "nut": table},
        "n_set_aside": 0,
    }
    return IndexedDataset(**{**defaults, **values})


def test_nothing_wrong_is_no_warning() -> None:
    assert run_warnings(indexed(), backbone(), {}, []) == []


def test_everything_that_a_reader_must_know_is_said() -> None:
    only_bolt = {"bolt": indexed().index}
    warnings = run_warnings(
        indexed(n_set_aside=3, test_images=only_bolt), backbone(source="random"), {"a": "OSError: disk"}, ["b"]
    )
    assert warnings == [
        "resnet18 has random weights: the figures say nothing about a trained backbone",
        "3 images cannot be read and were set aside; validation.txt lists them",
        "nut has no readable test images and is not measured",
        "client a failed and is not in the bank: OSError: disk",
        "client b has no images and was skipped; a disk that is not mounted looks like that",
    ]


@pytest.mark.parametrize(
    ("strategy", "banks", "n"),
    [
        ("own:mine", ["bolt"], 1),
        ("diversity_preserving", ["bolt"], 1),
        ("own:mine", [], 0),
        ("federated_coreset", ["bolt"], 0),
    ],
)
def test_a_strategy_that_had_nothing_to_decide_is_said(strategy: str, banks: list[str], n: int) -> None:
    config = ExperimentConfig.model_validate({"aggregation": {"strategy": strategy}})
    warnings = choice_warnings(config, FederationSummary(mode="federated", banks_without_choice=banks))
    start = f"aggregation.strategy: {strategy} had nothing to decide for bolt: every uploaded row is kept"
    assert [warning.startswith(start) for warning in warnings] == [True] * n


def test_misspelt_names_are_named_and_those_of_a_narrowed_run_are_not() -> None:
    bolt = CategoryMetrics(n_good=4, n_defective=2, by_defect={"dent": MetricValues(n_good=4, n_defective=2)})
    measured = MetricsDocument(
        experiment="x", config_hash="0", seed=1, categories={"bolt": bolt}, mean=MetricValues(n_good=4, n_defective=2)
    )
    values: dict[str, Any] = {
        "federated": {"partitioning": "category", "client_assignments": {"a": ["bolt", "nutt"], "b": ["all"]}},
        "evaluation": {"defect_groups": {"dent": "structural", "scrach": "structural"}},
    }
    assert name_warnings(ExperimentConfig.model_validate(values), ("bolt", "nut"), measured) == [
        "federated.client_assignments names nutt, of which there are no images; the categories are bolt, nut",
        "evaluation.defect_groups names scrach, which no test image has; defects and folders are dent",
    ]
    narrowed = {**values, "dataset": {"categories": ["bolt"]}, "evaluation": {}}
    assert name_warnings(ExperimentConfig.model_validate(narrowed), ("bolt",), measured) == []


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "-"), (0.0, "0 %"), (0.0032, "0.32 %"), (0.00318, "0.32 %"), (0.0449, "4.5 %"), (0.0999, "10 %"),
     (0.1264, "13 %"), (1.5, "150 %"), (12.34, "1234 %")],
)  # fmt: skip
def test_a_share_of_bytes_has_digits_however_small_it_is(share: float | None, shown: str) -> None:
    assert share_of_bytes(share) == shown
