"""Experiments by category: mean and ends of the seeds, and the paired difference of that category alone."""

from __future__ import annotations

import numpy as np
import pytest

from data_contracts.results import AUC_SPRO_AS_PRO, IMAGE_AUROC, CategoryMetrics, MetricsDocument
from pipeline_lib.benchmark.categories import MEAN, category_rows
from pipeline_lib.benchmark.comparison import ExperimentRuns, compare
from pipeline_lib.benchmark.differences import paired_difference
from pipeline_lib.benchmark.paired import resampled_metrics
from pipeline_lib.metrics.bootstrap import ImageSample
from pipeline_lib.metrics.category import mean_metrics

CATEGORIES = ("a b", "c")  # the first has another name as a file


def sample(lift: float, seed: int) -> ImageSample:
    labels = np.repeat([0, 1], 30)
    scores = np.random.default_rng(seed).normal(size=60) + lift * labels
    return ImageSample(tuple(f"i{i:03d}" for i in range(60)), labels, scores, None)


def runs(lifts: tuple[float, float]) -> ExperimentRuns:
    resampled, documents = {}, {}
    for seed in (0, 1, 2):
        samples = {
            name: sample(lift, 10 * seed + n)
            for n, (name, lift) in enumerate(zip(("a_b-c8687a08", "c"), lifts, strict=True))
        }
        resampled[seed] = resampled_metrics([(n, [s]) for n, s in samples.items()], resamples=100, seed=5)
        of_runs = resampled[seed].by_category["image_auroc"]
        values = {
            category: CategoryMetrics(image_auroc=own[0], n_good=30, n_defective=30)
            for category, own in zip(CATEGORIES, of_runs.values(), strict=True)
        }
        documents[seed] = MetricsDocument(
            experiment="x", config_hash="0", seed=seed, categories=values, mean=mean_metrics(values.values())
        )
    return ExperimentRuns(documents, resampled)


def test_a_category_has_its_own_mean_ends_and_paired_interval() -> None:
    both = {"centralized": runs((1.0, 1.5)), "own": runs((1.4, 1.5))}
    baselines = dict.fromkeys(both, "centralized")
    rows = {(r["experiment"], r["category"], r["metric"]): r for r in category_rows(both, baselines)}
    row = rows["own", "a b", "image_auroc"]
    values = [100 * (IMAGE_AUROC.of(d.categories["a b"]) or 0) for d in both["own"].documents.values()]
    assert row["value_per_cent"] == pytest.approx(np.mean(values), abs=1e-4)
    assert (row["lowest_per_cent"], row["highest_per_cent"]) == pytest.approx((min(values), max(values)), abs=1e-4)
    alone = {
        name: {seed: run.only("a_b-c8687a08") for seed, run in own.resampled.items()} for name, own in both.items()
    }
    expected = paired_difference(alone["own"], alone["centralized"], "image_auroc")
    assert expected is not None
    assert expected.interval is not None
    assert row["delta_points"] == pytest.approx(100 * expected.value, abs=1e-4)
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx([100 * edge for edge in expected.interval], abs=1e-4)
    _, whole = compare(both, baselines, metrics=[IMAGE_AUROC])
    mean = rows["own", MEAN, "image_auroc"]
    assert [mean["delta_points"], mean["ci95_low"], mean["ci95_high"]] == [whole["delta_points"], *whole["ci95"]]
    assert rows["centralized", "c", "image_auroc"]["delta_points"] is None
    assert rows["own", "c", AUC_SPRO_AS_PRO.key]["value_per_cent"] is None  # no masks
