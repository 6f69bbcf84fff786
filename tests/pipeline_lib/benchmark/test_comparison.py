"""Experiments compared with a baseline and in named pairs: one family of tests, the draws of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from data_contracts.results import IMAGE_AUROC, FederationSummary, MetricsDocument, MetricValues
from pipeline_lib.benchmark.comparison import ExperimentRuns, against_baselines, compare, named_pairs
from pipeline_lib.benchmark.differences import holm, paired_difference
from pipeline_lib.benchmark.paired import resampled_metrics
from pipeline_lib.benchmark.tables import comparison_table, pair_table
from pipeline_lib.metrics.bootstrap import ImageSample, percentile_interval

BASELINES = {"centralized": "centralized", "a": "centralized", "b": "centralized"}
LIFTS = {"centralized": 1.5, "a": 0.9, "b": 0.6}


def runs(name: str, lift: float, seeds: tuple[int, ...] = (0, 1)) -> ExperimentRuns:
    labels = np.repeat([0, 1], 40)
    resampled, documents = {}, {}
    for seed in seeds:
        scores = np.random.default_rng(seed).normal(size=80) + lift * labels
        sample = ImageSample(tuple(f"i{i:03d}" for i in range(80)), labels, scores, None)
        resampled[seed] = resampled_metrics([("x", [sample])], resamples=200, seed=5)
        own = {metric: values["x"][0] for metric, values in resampled[seed].by_category.items() if "x" in values}
        documents[seed] = MetricsDocument(
            experiment=name,
            config_hash="0",
            seed=seed,
            mean=MetricValues(image_auroc=own["image_auroc"], image_ap=own["image_ap"]),
            federation=FederationSummary(bank_rows=7),
        )
    return ExperimentRuns(documents, resampled)


@pytest.fixture(scope="module")
def finished() -> dict[str, ExperimentRuns]:
    return {name: runs(name, lift) for name, lift in LIFTS.items()}


def test_a_named_pair_has_the_paired_interval_and_the_draws_of_the_rest(finished: dict[str, ExperimentRuns]) -> None:
    rows = compare(finished, BASELINES, [("b", "a")])
    (row,) = [r for r in named_pairs(rows) if r["metric"] == "image_auroc"]
    assert (row["experiment"], row["baseline"], row["bank_rows"], row["seeds"]) == ("b", "a", 7, 2)
    own, other = finished["b"].resampled, finished["a"].resampled
    expected = paired_difference(own, other, "image_auroc")
    assert expected is not None
    assert expected.interval is not None
    assert row["ci95"] == [round(100 * edge, 4) for edge in expected.interval]
    assert row["p_value"] == expected.p_value
    deltas = {r["experiment"]: r["delta_points"] for r in against_baselines(rows) if r["metric"] == "image_auroc"}
    assert row["delta_points"] == pytest.approx(deltas["b"] - deltas["a"], abs=2e-4)


def test_the_correction_counts_named_pairs_with_the_others(finished: dict[str, ExperimentRuns]) -> None:
    alone = compare(finished, BASELINES)
    rows = compare(finished, BASELINES, [("b", "a"), ("a", "b")])
    for metric in ("image_auroc", "image_ap"):
        family = {(r["experiment"], r["baseline"]): r for r in rows if r["metric"] == metric}
        expected = holm({"/".join(pair): r["p_value"] for pair, r in family.items()})
        assert {"/".join(pair): r["p_holm"] for pair, r in family.items()} == expected
        assert sum(p is not None for p in expected.values()) == 4
    corrected = {(r["experiment"], r["metric"]): r["p_holm"] for r in against_baselines(rows)}
    assert corrected["a", "image_auroc"] > next(
        r["p_holm"] for r in alone if (r["experiment"], r["metric"]) == ("a", "image_auroc")
    )
    assert [r["verdict"] for r in rows if r["metric"] == "auc_spro_0.05"][1:] == ["not tested"] * 4  # no masks


def test_a_pair_of_which_one_failed(finished: dict[str, ExperimentRuns]) -> None:
    left = {name: own for name, own in finished.items() if name != "a"}
    rows = compare(left, BASELINES, [("b", "a"), ("a", "b")])
    (row,) = [r for r in named_pairs(rows) if r["metric"] == "image_auroc"]
    assert (row["experiment"], row["delta_points"], row["verdict"]) == ("b", None, "not tested")


def test_tables_hold_pairs_apart(finished: dict[str, ExperimentRuns]) -> None:
    rows = compare(finished, BASELINES, [("b", "a")])
    assert [(line["experiment"], line["against"]) for line in comparison_table(rows, {})] == [*BASELINES.items()]
    (line,) = pair_table(rows)
    assert (line["experiment"], line["against"], line["AUC-sPRO@0.05"]) == ("b", "a", None)
    assert line["image AUROC"].startswith("-")
    assert pair_table(against_baselines(rows)) == []


def test_a_table_says_how_many_seeds_stand_behind_a_row_where_it_is_not_the_same_for_all(
    finished: dict[str, ExperimentRuns],
) -> None:
    rows = compare(finished, BASELINES)
    assert all("seeds" not in line for line in comparison_table(rows, {}))
    fewer = [{**row, "seeds": 2 if row["experiment"] == "b" else 3} for row in rows]
    shown = {line["experiment"]: line["seeds"] for line in comparison_table(fewer, {})}
    assert shown == {name: 2 if name == "b" else 3 for name in BASELINES}


def test_one_seed_is_not_tested_and_the_rows_say_so() -> None:
    alone = {name: runs(name, lift, seeds=(0,)) for name, lift in LIFTS.items()}
    rows = [r for r in compare(alone, BASELINES, [("b", "a")]) if r["metric"] == "image_auroc"]
    for row in rows[1:]:
        assert (row["verdict"], row["not_tested"]) == ("not tested", "one seed: not tested")
        assert row["ci95"] is row["p_value"] is row["p_holm"] is None
        low, high = row["ci95_images"]
        assert low < row["delta_points"] < high < 0  # as far as the images go it is clear
    assert (rows[0]["verdict"], rows[0]["not_tested"]) == ("baseline", None)
    (line,) = pair_table(rows)
    assert line["image AUROC"] == f"{rows[-1]['delta_points']:+.1f}"
    assert {line["seeds"] for line in comparison_table(rows, {})} == {1}


def test_a_value_with_several_seeds_has_a_wider_interval_than_each_and_with_one_its_own() -> None:
    three = runs("a", 1.0, seeds=(0, 1, 2))
    one = runs("a", 1.0, seeds=(0,))
    inside, alone = three.interval(IMAGE_AUROC), one.interval(IMAGE_AUROC)
    assert inside is not None
    assert alone is not None
    drawn = one.resampled[0].mean("image_auroc")
    assert drawn is not None
    assert alone == percentile_interval(drawn[1:])
    assert np.ptp(inside) > np.ptp(alone)
