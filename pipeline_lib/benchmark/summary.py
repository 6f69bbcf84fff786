"""What a finished benchmark shows first in the Prefect UI: how it ended, its figures, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_contracts.history import HistoryEntry, when
from data_contracts.results import HEADLINES, MetricsDocument
from pipeline_lib.benchmark.comparison import against_baselines
from pipeline_lib.benchmark.record import Rows
from pipeline_lib.report import decision_table
from pipeline_lib.results.tables import per_cent, table_in_ui

Documents = Mapping[str, Sequence[MetricsDocument]]  # experiment -> that of each seed


def figures_line(rows: Rows) -> str:
    """The headline figures of each experiment in one line, per cent. rows: those of `comparison.json`."""
    of_each = [
        f"{name} {' / '.join(per_cent(values.get(one.key)) for one in HEADLINES)}"
        for name, values in _values(rows).items()
    ]
    return f"{' / '.join(one.title for one in HEADLINES)} in per cent: {', '.join(of_each)}"


def benchmark_summary(
    rows: Rows,
    documents: Documents,
    failed: Mapping[str, str],
    partial: Mapping[str, str],
    entry: HistoryEntry | None,
    before: HistoryEntry | None,
    pages: Sequence[Path],
) -> str:
    """One page of Markdown.

    rows: those of `comparison.json`; failed, partial: experiment and seed -> cause; entry: tonight's, before: that of
    the last good run, where there is a history; pages: files that say more.
    """
    parts = [f"## {_ending(failed, partial, entry)}"]
    if entry:
        parts += [f"Compared with the last good run, of {when(before.finished)}."] if before else []
        parts += [f"- **{regression.text}**" for regression in entry.regressions]
        parts += [f"{entry.note[0].upper()}{entry.note[1:]}."] if entry.note else []
    parts += [f"- **{name}** failed: {cause}" for name, cause in failed.items()]
    parts += [f"- **{name}** is partial: {cause}" for name, cause in partial.items()]
    table = _table(rows, documents, before)
    if table:
        than = "; in brackets: points since the last good run" if before else ""
        parts += [f"In per cent, means over categories and seeds, on all test images{than}.", table_in_ui(table)]
    if notes := warnings(documents):
        parts += ["## Look at", *(f"- {note}" for note in notes)]
    parts += ["## Pages", *(f"- `{page}`" for page in pages)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ")


def warnings(documents: Documents) -> list[str]:
    """What the runs warn of, and thresholds that call more defective than was promised, each with its experiments."""
    found: dict[str, list[str]] = {}
    for name, of_seeds in documents.items():
        for document in of_seeds:
            for text in [*document.warnings, *decision_table.notes(document)]:
                names = found.setdefault(text, [])
                names += [] if name in names else [name]
    return [f"{', '.join(names)}: {text}" for text, names in found.items()]


def _ending(failed: Mapping[str, str], partial: Mapping[str, str], entry: HistoryEntry | None) -> str:
    if failed:
        return f"Failed: {len(failed)} without a result"
    if partial:
        return f"Partial: {len(partial)} without all of their clients"
    if entry and entry.regressions:
        return "Regressed: worse than the last good run"
    return "Green: every experiment has its result" + (
        ", and nothing is worse" if entry and entry.compared_with else ""
    )


def _values(rows: Rows) -> dict[str, dict[str, float | None]]:
    """Experiment -> metric -> value in [0, 1]."""
    found: dict[str, dict[str, float | None]] = {}
    for row in against_baselines(rows):
        found.setdefault(row["experiment"], {})[row["metric"]] = row["value"]
    return found


def _table(rows: Rows, documents: Documents, before: HistoryEntry | None) -> list[dict[str, Any]]:
    then = {(value.experiment, value.metric): value.value for value in before.values} if before else {}
    table = []
    for name, values in _values(rows).items():
        line = {"experiment": name}
        for metric in HEADLINES:
            now, earlier = values.get(metric.key), then.get((name, metric.key))
            change = f" ({100 * (now - earlier):+.1f})" if now is not None and earlier is not None else ""
            line[metric.title] = per_cent(now) + change
        table.append(line | {"good called defective": _false_alarms(documents.get(name, ()))})
    return table


def _false_alarms(documents: Sequence[MetricsDocument]) -> str:
    """Over categories and seeds."""
    of_each = [values.decision for document in documents for values in document.categories.values()]
    decided = [decision for decision in of_each if decision is not None and decision.realised_rate is not None]
    alarms, n_good = sum(one.false_alarms for one in decided), sum(one.n_good for one in decided)
    return f"{alarms} of {n_good} ({per_cent(alarms / n_good)} %)" if n_good else "-"
