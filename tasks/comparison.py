"""Tasks that end a benchmark: where it goes, and the comparison for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.errors import ConfigError
from data_contracts.history import HistoryEntry
from data_contracts.manifests import ExperimentResult
from data_contracts.results import METRICS_FILES, MetricsDocument
from pipeline_lib.benchmark import history as benchmark_history
from pipeline_lib.benchmark import summary, tables
from pipeline_lib.benchmark.gathering import gather_benchmark
from pipeline_lib.benchmark.report.history_page import history_rows, render_history
from pipeline_lib.benchmark.report.written import write_benchmark
from pipeline_lib.results import run_directory
from pipeline_lib.storage.file_lock import remove_locked, try_lock_file


@task(name="benchmark-directory")
def benchmark_directory(config: BenchmarkConfig) -> Path:
    """The directory of this benchmark's run directories; a retry goes on in the one that Prefect has on record."""
    return (config.out or run_directory.default_run_directory(config.name)).expanduser().absolute()


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Holds the directory's lock, which the system drops with this process; ConfigError while another one has it."""
    path = out / ".lock"
    try:
        descriptor = try_lock_file(path)
    except OSError:  # a file system without locks
        yield
        return
    if descriptor is None:
        raise ConfigError(f"another benchmark is at work in {out}; wait until it has ended, or give another directory")
    try:
        yield
    finally:
        remove_locked(path, lambda: os.close(descriptor))


@task(name="publish-comparison")
def publish_comparison(
    config: BenchmarkConfig, results: dict[str, dict[int, ExperimentResult]], failed: dict[str, str], out: Path
) -> list[dict[str, Any]]:
    """Write the comparison with its tables, figures and page, and show it as a table in the UI.

    Returns the rows of comparison.json.
    results: experiment -> seed -> result; failed: experiment and seed -> cause.
    """
    record = gather_benchmark(config, results, failed)
    write_benchmark(record, out)
    rows = record.comparisons["all"]
    create_table_artifact(
        key="comparison",
        table=tables.comparison_table(rows, failed),
        description=f"{config.name}: means over categories and seeds in per cent; points against the baseline with the "
        "paired 95 % interval, * where a difference is shown (Holm).",
    )
    if pairs := tables.pair_table(rows):
        create_table_artifact(
            key="comparison-pairs",
            table=pairs,
            description=f"{config.name}: the named pairs, the experiment less the one that it is compared with, points "
            "with the paired 95 % interval, * where a difference is shown (Holm).",
        )
    return [dict(row) for row in rows]


@task(name="compare-with-last-good")
def compare_with_last_good(
    config: BenchmarkConfig,
    results: dict[str, dict[int, ExperimentResult]],
    failed: dict[str, str],
    partial: dict[str, str],
    rows: list[dict[str, Any]],
    out: Path,
) -> HistoryEntry | None:
    """Compare with the last good run of the same configuration, and add this one to the history and its page.

    partial: experiment and seed -> what its result is without. None where `config.history` is not given. What
    regressed is written into metrics.json of its run directories.
    """
    if config.history is None:
        return None
    history = config.history.expanduser().absolute()
    entries = benchmark_history.read_history(history)
    directories = {name: {s: Path(r.run_directory) for s, r in found.items()} for name, found in results.items()}
    before = benchmark_history.last_good(entries, benchmark_history.benchmark_hashes(config))
    entry = benchmark_history.judge(config, directories, rows, failed, before, out, partial=partial)
    benchmark_history.mark_runs(entry, directories)
    entries.append(entry)
    benchmark_history.write_entry(history, entry, render_history(entries, benchmark_history.pages(entries, history)))
    create_table_artifact(
        key="benchmark-history",
        table=history_rows(entries),
        description=f"{config.name} over time, image AUROC / AUC-sPRO in per cent. Page: {history}/history.html",
    )
    if entry.regressions:
        text = "\n".join(f"- {regression.text}" for regression in entry.regressions)
        create_markdown_artifact(
            key="benchmark-regression",
            markdown=f"Worse than the last good run of {entry.compared_with}:\n\n{text}",
            description=f"{config.name}: {len(entry.regressions)} regressions",
        )
    return entry


# By the flow itself, outside any task, so that the run's page lists it as the run's own (tasks/reporting.py).
def publish_summary(
    config: BenchmarkConfig,
    results: dict[str, dict[int, ExperimentResult]],
    failed: dict[str, str],
    partial: dict[str, str],
    rows: list[dict[str, Any]],
    entry: HistoryEntry | None,
    out: Path,
) -> str:
    """Show the benchmark as one page in the UI; returns its figures, and how many warnings there are, in one line."""
    documents = {name: [_metrics(result) for result in found.values()] for name, found in results.items()}
    pages = [out / "benchmark.html"]
    before = None
    if config.history is not None:
        history = config.history.expanduser().absolute()
        pages.append(history / "history.html")
        before = next(
            (e for e in benchmark_history.read_history(history) if entry and e.finished == entry.compared_with), None
        )
    create_markdown_artifact(
        key="benchmark-summary",
        markdown=summary.benchmark_summary(rows, documents, failed, partial, entry, before, pages),
        description=f"{config.name}: how it ended, its figures, what to look at",
    )
    n_warnings = len(summary.warnings(documents))
    look = f"; {n_warnings} warnings in the artifact benchmark-summary" if n_warnings else ""
    return summary.figures_line(rows) + look


def _metrics(result: ExperimentResult) -> MetricsDocument:
    return MetricsDocument.model_validate_json((Path(result.run_directory) / METRICS_FILES["all"]).read_bytes())
