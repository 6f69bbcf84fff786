"""A watched benchmark: which run counts as the last good one, what is a regression and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError
from data_contracts.history import HistoryEntry, HistoryValue, Regression
from data_contracts.results import CategoryMetrics, MetricsDocument, MetricValues
from pipeline_lib.benchmark.history import (
    benchmark_hash,
    benchmark_hashes,
    judge,
    last_good,
    mark_runs,
    pages,
    read_history,
    write_entry,
)
from pipeline_lib.benchmark.report.history_page import history_rows, render_history
from pipeline_lib.metrics.bootstrap import ImageSample

CONFIG = BenchmarkConfig.model_validate({"name": "night", "experiments": {"centralized": {}}, "resamples": 400})


def write_run(directory: Path, shift: float, *, n: int = 60, first: int = 0) -> Path:
    """A run directory of one category, its defective images `shift` above the good ones."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], n)
    scores = rng.normal(size=2 * n) + shift * labels
    sample = ImageSample(tuple(f"i{first + i:03d}" for i in range(2 * n)), labels, scores, None)
    (directory / "samples").mkdir(parents=True)
    np.savez(directory / "samples" / "a.npz", **sample.to_arrays())
    document = MetricsDocument(
        experiment="centralized", config_hash="0", seed=42, categories={"a": CategoryMetrics()}, mean=MetricValues()
    )
    (directory / "metrics.json").write_text(document.model_dump_json())
    return directory


def rows(value: float) -> list[dict[str, Any]]:
    return [
        {
            "experiment": "centralized",
            "metric": "image_auroc",
            "value": value,
            "value_ci95": [value - 0.1, value + 0.1],
            "named": False,
        }
    ]


def judged(tmp_path: Path, then: float, now: float, **written: Any) -> HistoryEntry:
    write_run(tmp_path / "then" / "centralized", then)
    own = write_run(tmp_path / "now" / "centralized", now, **written)
    before = judge(CONFIG, {"centralized": {42: tmp_path / "then" / "centralized"}}, rows(0.9), {}, None,
                   tmp_path / "then", partial={})  # fmt: skip
    assert before.state == "good"
    assert "no good run" in before.note
    return judge(CONFIG, {"centralized": {42: own}}, rows(0.7), {}, before, tmp_path / "now", partial={})


def test_worse_on_the_same_images_is_a_regression_with_its_paired_interval(tmp_path: Path) -> None:
    entry = judged(tmp_path, then=2.0, now=0.5)
    assert entry.state == "regressed"
    one = next(r for r in entry.regressions if r.metric == "image_auroc")
    assert one.ci95 is not None
    assert one.ci95[0] <= one.delta_points <= one.ci95[1] < -0.1
    assert "image_auroc -" in one.text
    mark_runs(entry, {"centralized": {42: tmp_path / "now" / "centralized"}})
    document = MetricsDocument.model_validate_json((tmp_path / "now" / "centralized" / "metrics.json").read_text())
    assert document.regressions == [r.text for r in entry.regressions]


@pytest.mark.parametrize("now", [2.0, 1.9995, 3.0])
def test_the_same_a_hair_worse_and_better_are_no_regressions(tmp_path: Path, now: float) -> None:
    assert judged(tmp_path, then=2.0, now=now).state == "good"


def test_other_images_are_compared_with_the_earlier_interval_and_the_note_says_so(tmp_path: Path) -> None:
    entry = judged(tmp_path, then=2.0, now=2.0, first=500)
    assert entry.state == "regressed"  # 0.7 is below 0.9 - 0.1
    assert entry.regressions[0].ci95 is None
    assert "not compared image by image: centralized" in entry.note


def entry(finished: str, state: Any, config_hash: str = "h", regressions: tuple[Regression, ...] = ()) -> HistoryEntry:
    values = (HistoryValue(experiment="a<b", metric="auc_spro_0.05", value=0.5, ci95=(0.4, 0.6)),)
    return HistoryEntry(
        name="night", config_hash=config_hash, finished=finished, directory="/x", state=state, values=values,
        regressions=regressions,
    )  # fmt: skip


def test_the_last_good_run_is_the_latest_good_one_of_the_same_configuration(tmp_path: Path) -> None:
    entries = [
        entry("2026-01-01T02:00:00+00:00", "good"),
        entry("2026-01-02T02:00:00+00:00", "good", "other"),
        entry("2026-01-03T02:00:00+00:00", "regressed"),
        entry("2026-01-04T02:00:00+00:00", "failed"),
    ]
    for one in reversed(entries):
        write_entry(tmp_path, one, "page")
    assert read_history(tmp_path) == entries
    assert last_good(entries, ["h"]) == last_good(entries, ["none", "h"]) == entries[0]
    assert last_good(entries, ["none"]) is None
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"broken\.json"):
        read_history(tmp_path)


def test_the_history_page_shows_all_runs_and_escapes(tmp_path: Path) -> None:
    regression = Regression(experiment="a<b", metric="auc_spro_0.05", delta_points=-3.0, ci95=(-4.0, -2.0))
    entries = [
        entry("2026-01-01T02:00:00+00:00", "good"),
        entry("2026-01-02T02:00:00+00:00", "regressed", "h", (regression,)),
    ]
    night = tmp_path / "runs" / "night &"
    night.mkdir(parents=True)
    (night / "benchmark.html").write_text("")
    entries[1] = entries[1].model_copy(update={"directory": str(night)})
    page = render_history(entries, pages(entries, tmp_path / "history"))
    assert '<a href="../runs/night &amp;/benchmark.html">2026-01-02 02:00 UTC</a>' in page
    assert page.count("<a ") == 1  # the page of the other run is gone
    assert "The latest run, 2026-01-02 02:00 UTC, is regressed" in page
    assert ", the last 2 runs;" in page
    assert ", the only run so far;" in render_history(entries[:1], {})
    assert "a&lt;b: auc_spro_0.05 -3.00 points [-4.00, -2.00]" in page
    assert "<script" not in page
    assert page.count("<svg") == 1
    assert [(row["state"], row["a<b"]) for row in history_rows(entries)] == [
        ("regressed", "- / 50.0"),
        ("good", "- / 50.0"),
    ]


def test_the_hash_of_a_benchmark_covers_its_cells_and_not_where_they_go() -> None:
    elsewhere = CONFIG.model_copy(update={"out": Path("/a"), "history": Path("/b"), "name": "other"})
    assert benchmark_hash(elsewhere) == benchmark_hash(CONFIG)
    changed = BenchmarkConfig.model_validate(
        {"experiments": {"centralized": {"model.coreset_percentage": 0.5}}, "resamples": 400}
    )
    assert benchmark_hash(changed) != benchmark_hash(CONFIG)


def test_a_benchmark_is_found_by_the_hash_that_an_earlier_version_wrote() -> None:
    model = {"backbone": "wide_resnet50_2.v2"}  # which the name without .v2 meant
    base = {"training": {"batch_size": 8, "num_workers": 0}, "model": model}
    fast = BenchmarkConfig.model_validate(
        {"experiments": {"centralized": {"model.coreset_percentage": 0.5}}, "resamples": 400, "base": base}
    )
    without_training = ExperimentConfig.model_validate({"model": model})
    now, picked, unaligned, plain = benchmark_hashes(fast.model_copy(update={"base": without_training}))
    assert benchmark_hashes(fast) == (now, picked, unaligned, plain, "9854d4a4e57709d6")
    as_before = ExperimentConfig.model_validate(
        {"model": {"alignment": "corners_as_patchcore", "rows": "picks", **model}, "decision": {"promise": "rate"}}
    )
    assert benchmark_hashes(fast.model_copy(update={"base": as_before})) == (unaligned, plain)
