"""The page and the table of a watched benchmark: every run, its values, and what regressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_contracts.history import HistoryEntry
from pipeline_lib.benchmark.record import HEADLINE
from pipeline_lib.benchmark.report.chosen import TITLES
from pipeline_lib.benchmark.report.trends import Series, runs_chart
from pipeline_lib.drawing.drawing import Drawing, inline_svg, style_sheet
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.results.tables import per_cent

SHOWN_RUNS = 60


def history_rows(entries: Sequence[HistoryEntry]) -> list[dict[str, Any]]:
    """A row a run, the latest first: when, state, AUC-sPRO@0.05 of each experiment in per cent, what regressed."""
    names = list(dict.fromkeys(v.experiment for e in reversed(entries) for v in e.values))
    rows = []
    for entry in reversed(entries[-SHOWN_RUNS:]):
        values = {v.experiment: v.value for v in entry.values if v.metric == HEADLINE}
        rows.append(
            {"finished": entry.finished, "state": entry.state}
            | {name: per_cent(values.get(name)) for name in names}
            | {"regressions": "; ".join(r.text for r in entry.regressions) or "-", "note": entry.note or "-"}
            | {"configuration": entry.config_hash}
        )
    return rows


def history_charts(entries: Sequence[HistoryEntry]) -> list[tuple[str, Drawing]]:
    """Values over the runs, a line an experiment."""
    shown = entries[-SHOWN_RUNS:]
    charts = []
    for metric, title in TITLES.items():
        points: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
        for number, entry in enumerate(shown):
            for value in entry.values:
                if value.metric == metric and value.value is not None:
                    points.setdefault(value.experiment, []).append((number, 100 * value.value, None))
        caption = f"{title} in per cent, the last {len(shown)} runs; red: regressed, partial or failed"
        bad = [number for number, entry in enumerate(shown) if entry.state != "good"]
        series = [Series(name, own) for name, own in points.items()]
        dates = [entry.finished[5:10] for entry in shown]
        charts.append((caption, runs_chart(series, dates, bad, description=caption)))
    return [(caption, drawing) for caption, drawing in charts if drawing]


def render_history(entries: Sequence[HistoryEntry]) -> str:
    """The page, without scripts or outside requests. entries: the oldest first, at least one."""
    latest = entries[-1]
    return page_template("pipeline_lib.benchmark.report", "history.html.j2", svg=inline_svg).render(
        name=latest.name,
        latest=latest,
        charts=history_charts(entries),
        rows=history_rows(entries),
        style_sheet=style_sheet(),
    )
