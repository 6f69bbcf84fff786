"""What a finished benchmark shows first in the Prefect UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts.history import HistoryEntry, HistoryValue, Regression
from data_contracts.results import CategoryMetrics, Decision, MetricsDocument, MetricValues
from pipeline_lib.benchmark.summary import benchmark_summary, figures_line, warnings


def row(experiment: str, metric: str, value: float | None) -> dict[str, Any]:
    return {"experiment": experiment, "metric": metric, "value": value, "named": False}


ROWS = [
    row("centralized", "image_auroc", 0.9), row("centralized", "auc_spro_0.05", 0.8),
    row("iid_3", "image_auroc", 0.88), row("iid_3", "auc_spro_0.05", None),
]  # fmt: skip
PAGES = [Path("/runs/night/benchmark.html")]


def document(experiment: str, *, alarms: int) -> MetricsDocument:
    decision = Decision(
        realised_rate=alarms / 20, false_alarms=alarms, n_good=20, excess_p_value=0.5 / (1 + alarms) ** 2
    )
    return MetricsDocument(
        experiment=experiment, config_hash="0", seed=42, mean=MetricValues(), warnings=["rough"],
        categories={"cookie": CategoryMetrics(decision=decision)},
    )  # fmt: skip


def night(finished: str, state: Any, values: tuple[HistoryValue, ...] = (), **more: Any) -> HistoryEntry:
    return HistoryEntry(
        name="night", config_hash="h", finished=finished, directory="/x", state=state, values=values, **more
    )


def test_a_green_night_has_its_figures_their_change_and_what_to_look_at() -> None:
    then = night(
        "2026-01-01T02:09:10+00:00", "good", (HistoryValue(experiment="iid_3", metric="image_auroc", value=0.87),)
    )
    tonight = night("2026-01-02T02:09:10+00:00", "good", compared_with=then.finished)
    documents = {"centralized": [document("centralized", alarms=1)], "iid_3": [document("iid_3", alarms=9)]}
    page = benchmark_summary(ROWS, documents, {}, {}, tonight, then, PAGES)
    assert page.startswith("## Green: every experiment has its result, and nothing is worse")
    assert "Compared with the last good run, of 2026-01-01 02:09 UTC." in page
    assert "| experiment | image AUROC | AUC-sPRO\\@0.05 | good called defective |" in page
    assert "| centralized | 90.0 | 80.0 | 1 of 20 (5.0 %) |" in page
    assert "| iid_3 | 88.0 (+1.0) | - | 9 of 20 (45.0 %) |" in page
    assert "- centralized, iid_3: rough\n- iid_3: cookie: more false alarms than the training images explain" in page
    assert page.endswith("## Pages\n- `/runs/night/benchmark.html`")
    assert len(warnings(documents)) == 2
    assert figures_line(ROWS) == "image AUROC / AUC-sPRO@0.05 in per cent: centralized 90.0 / 80.0, iid_3 88.0 / -"


@pytest.mark.parametrize(
    ("failed", "partial", "state", "begins", "says"),
    [
        ({"iid_3": "no disk"}, {}, "failed", "## Failed: 1 without a result", "- **iid_3** failed: no disk"),
        ({}, {"iid_3": "without a"}, "partial", "## Partial: 1 without all", "- **iid_3** is partial: without a"),
        ({}, {}, "regressed", "## Regressed: worse than the last good run", "- **iid_3: image_auroc -3.00 points"),
        ({}, {}, None, "## Green: every experiment has its result\n\nIn per cent", "## Pages"),
    ],
)
def test_what_is_not_green_is_said_first(
    failed: dict[str, str], partial: dict[str, str], state: str | None, begins: str, says: str
) -> None:
    worse = (Regression(experiment="iid_3", metric="image_auroc", delta_points=-3.0),) if state == "regressed" else ()
    entry = night("2026-01-02T02:09:10+00:00", state, regressions=worse) if state else None
    page = benchmark_summary(ROWS, {}, failed, partial, entry, None, PAGES)
    assert page.startswith(begins)
    assert says in page
