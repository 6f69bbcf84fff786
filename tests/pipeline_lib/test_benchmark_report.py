"""The benchmark's page: escaped, whole, and with nothing to compare."""

from __future__ import annotations

import re
from typing import Any

import pytest

from data_contracts.benchmark import BenchmarkConfig
from pipeline_lib.benchmark_report import BenchmarkRecord, render_benchmark
from pipeline_lib.benchmark_report.figures import delta_chart
from pipeline_lib.benchmark_report.page import headline_sentence


def row(experiment: str, metric: str, delta: float | None, verdict: str) -> dict[str, Any]:
    return {
        "experiment": experiment, "baseline": "centralized", "group": "main", "metric": metric, "value": 0.9,
        "delta_points": delta, "ci95": None if delta is None else [delta - 1, delta + 1], "p_value": 0.01,
        "p_holm": 0.02, "verdict": verdict, "seeds": 1, "upload_share_of_image_bytes": 0.5,
        "upload_share_of_pixel_bytes": 0.1, "download_bytes": 10, "bank_rows": 7,
    }  # fmt: skip


def record(rows: list[dict[str, Any]], failed: dict[str, str]) -> BenchmarkRecord:
    config = BenchmarkConfig.model_validate({"experiments": {"centralized": {}}})
    return BenchmarkRecord(config, {"all": rows}, [], [], failed)


def test_text_of_the_data_is_escaped_and_charts_are_there() -> None:
    rows = [
        row("a<b>", metric, -2.0, "worse") for metric in ("image_auroc", "auc_spro_0.05")
    ] + [row("centralized", "auc_spro_0.05", 0.0, "baseline")]  # fmt: skip
    page = render_benchmark(record(rows, {"broken": "<script>alert(1)</script>"}))
    assert "<script" not in page
    assert "a&lt;b&gt;" in page
    assert page.count("<svg") == 3
    assert "broken failed" in page


def test_nothing_to_compare() -> None:
    page = render_benchmark(record([row("centralized", "auc_spro_0.05", None, "baseline")], {}))
    assert "Nothing was tested" in page
    assert "<svg" not in page


def test_a_benchmark_in_which_everything_failed_still_has_a_page() -> None:
    page = render_benchmark(record([], {"centralized": "no such data set"}))
    assert "centralized failed: no such data set" in page
    assert "Nothing was tested" in page


def test_the_headline_counts_what_is_shown() -> None:
    rows = [row("a", "auc_spro_0.05", -1.0, "worse"), row("b", "auc_spro_0.05", 0.1, "no difference shown")]
    assert "Of 2 experiments" in headline_sentence(rows)
    assert "1 are shown to be worse, 0 better, and for 1 no difference" in headline_sentence(rows)


@pytest.mark.parametrize(("highest", "ticks"), [(0.6, ["-4.7", "+0.0"]), (4.0, ["-4.7", "+0.0", "+4.0"])])
def test_numbers_below_the_chart_of_differences_do_not_overlap(highest: float, ticks: list[str]) -> None:
    row = {"experiment": "iid_5", "delta_points": -2.0, "ci95": [-4.7, highest], "verdict": "worse"}
    chart = delta_chart([row], description="points")
    assert re.findall(r'class="tick"[^>]*>([^<]*)<', str(chart)) == ticks
