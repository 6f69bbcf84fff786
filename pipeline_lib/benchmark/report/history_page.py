"""The page and the table of a watched benchmark: every run, its values, and what regressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from data_contracts.history import HistoryEntry, when
from data_contracts.results import IMAGE_AUROC
from pipeline_lib.benchmark.record import HEADLINE
from pipeline_lib.benchmark.report.chosen import TITLES
from pipeline_lib.benchmark.report.trends import Series, runs_chart
from pipeline_lib.drawing.drawing import Drawing, inline_svg, style_sheet
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.results.tables import per_cent

SHOWN_RUNS = 60
SHOWN = (IMAGE_AUROC.key, HEADLINE)


def history_rows(entries: Sequence[HistoryEntry]) -> list[dict[str, Any]]:
    """A row a run, the latest first: when, state, what regressed, of each experiment the headlines in per cent."""
    names = list(dict.fromkeys(v.experiment for e in reversed(entries) for v in e.values))
    rows = []
    for entry in reversed(entries[-SHOWN_RUNS:]):
        values = {(v.experiment, v.metric): v.value for v in entry.values}
        rows.append(
            {"finished": when(entry.finished), "state": entry.state}
            | {name: " / ".join(per_cent(values.get((name, key))) for key in SHOWN) for name in names}
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
        runs = f"last {len(shown)} runs" if len(shown) > 1 else "only run so far"
        caption = f"{title} in per cent, the {runs}; red: regressed, partial or failed"
        bad = [number for number, entry in enumerate(shown) if entry.state != "good"]
        series = [Series(name, own) for name, own in points.items()]
        dates = [entry.finished[5:10] for entry in shown]
        charts.append((caption, runs_chart(series, dates, bad, description=caption)))
    return [(caption, drawing) for caption, drawing in charts if drawing]


def render_history(entries: Sequence[HistoryEntry], pages: Mapping[str, str]) -> str:
    """The page, without scripts or outside requests.

    entries: the oldest first, at least one. pages: `directory` of a run -> the address of its page from this one.
    """
    latest = entries[-1]
    rows = history_rows(entries)
    for row, entry in zip(rows, reversed(entries), strict=False):
        if page := pages.get(entry.directory):
            row["finished"] = Markup('<a href="{}">{}</a>').format(page, row["finished"])
    return page_template("pipeline_lib.benchmark.report", "history.html.j2", svg=inline_svg).render(
        name=latest.name,
        latest=latest,
        charts=history_charts(entries),
        rows=rows,
        when=when,
        style_sheet=style_sheet(),
    )
