"""A benchmark watched over time: a run against the last good one of the same configuration, and the history's files.

A regression is a paired difference on the same test images (tonight less then) whose whole 95 % interval lies below
-TOLERANCE_POINTS and whose p-value, Holm-corrected over experiments within a metric, is below 0.05. With one seed both
are over draws of images alone: runs of one seed differ only where code or data do. Where the last good
run's directory is gone, it is a value below that run's own 95 % interval. Files: <history>/<time>.json, history.html.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import canonical_hash
from data_contracts.errors import ArtifactError
from data_contracts.history import HistoryEntry, HistoryValue, Regression
from data_contracts.results import COMPARED, METRICS_FILES, MetricsDocument
from pipeline_lib.benchmark.comparison import ExperimentRuns, against_baselines, read_runs
from pipeline_lib.benchmark.differences import LEVEL, holm, paired_difference
from pipeline_lib.benchmark.record import Rows
from pipeline_lib.storage.artifact_store import write_file
from pipeline_lib.storage.files import write_json_file

TOLERANCE_POINTS = 0.1
"""Smaller losses are none: another version of a library may move every image's score in its last digits."""

Directories = Mapping[str, Mapping[int, Path]]  # experiment -> seed -> run directory


def benchmark_hash(config: BenchmarkConfig) -> str:
    """First 16 hex digits of the SHA-256 over the cells' own hashes, the baseline and the resamples."""
    return benchmark_hashes(config)[0]


def benchmark_hashes(config: BenchmarkConfig) -> tuple[str, ...]:
    """`benchmark_hash`, and what an earlier version wrote: a stored hash may be any of them."""
    of_cells = {cell.name: cell.config.hashes_by_version() for cell in config.cells()}
    common = {"baseline": config.baseline, "resamples": config.resamples}
    versions = (dict(zip(of_cells, hashes, strict=True)) for hashes in zip(*of_cells.values(), strict=True))
    return tuple(dict.fromkeys(canonical_hash({"cells": cells, **common})[:16] for cells in versions))


def read_history(history: Path) -> list[HistoryEntry]:
    """All runs, the oldest first. Raises ArtifactError where a file cannot be read."""
    entries = []
    for path in history.glob("*.json"):
        try:
            entries.append(HistoryEntry.model_validate_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"cannot read {path}: {error}; move it away to go on without it") from error
    return sorted(entries, key=lambda entry: entry.finished)


def last_good(entries: Sequence[HistoryEntry], hashes: Collection[str]) -> HistoryEntry | None:
    """The latest good run of the same configuration, `hashes` of which are all that it may have been written with."""
    return next((e for e in reversed(entries) if e.state == "good" and e.config_hash in hashes), None)


def judge(
    config: BenchmarkConfig,
    directories: Directories,
    rows: Rows,
    failed: Mapping[str, str],
    before: HistoryEntry | None,
    out: Path,
    *,
    partial: Mapping[str, str],
) -> HistoryEntry:
    """Tonight's entry. rows: of comparison.json, on all test images; before: the last good run, or None.

    partial: experiment -> what its result is without.
    """
    values = tuple(
        HistoryValue(experiment=r["experiment"], metric=r["metric"], value=r["value"], ci95=r["value_ci95"])
        for r in against_baselines(rows)
    )
    regressions: list[Regression] = []
    note = "" if before else "no good run of this configuration before"
    if before:
        regressions, note = _regressions(config, directories, values, before)
    found = "failed" if failed else "partial" if partial else "regressed" if regressions else "good"
    return HistoryEntry(
        name=config.name,
        config_hash=benchmark_hash(config),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        directory=str(out),
        state=found,
        compared_with=before.finished if before else None,
        note="; ".join([*(f"{name}: {what}" for name, what in partial.items()), *([note] if note else [])]),
        values=values,
        regressions=tuple(regressions),
    )


def _regressions(
    config: BenchmarkConfig, directories: Directories, values: Sequence[HistoryValue], before: HistoryEntry
) -> tuple[list[Regression], str]:
    cells = {(cell.experiment, cell.seed): Path(before.directory) / config.directory(cell) for cell in config.cells()}
    found: list[Regression] = []
    unpaired: list[str] = []
    by_metric: dict[str, dict[str, tuple[Regression, float | None]]] = {metric.key: {} for metric in COMPARED}
    for experiment, own in directories.items():
        then = {seed: cells[experiment, seed] for seed in own}
        paired = _paired(config, own, then)
        if paired is None:
            unpaired.append(experiment)
            found += _below_interval(experiment, values, before.values)
            continue
        for metric, (regression, p_value) in paired.items():
            by_metric[metric][experiment] = (regression, p_value)
    for tests in by_metric.values():
        adjusted = holm({experiment: p_value for experiment, (_, p_value) in tests.items()})
        for experiment, (regression, _) in tests.items():
            p = adjusted[experiment]
            if regression.ci95 and regression.ci95[1] < -TOLERANCE_POINTS and p is not None and p < LEVEL:
                found.append(regression)
    note = (
        f"not compared image by image: {', '.join(unpaired)} (their runs are gone, or other images)" if unpaired else ""
    )
    return found, note


def _paired(
    config: BenchmarkConfig, own: Mapping[int, Path], then: Mapping[int, Path]
) -> dict[str, tuple[Regression, float | None]] | None:
    """Metric -> difference and its p-value; None where the two were not measured on the same images."""
    seed = config.base.seed
    if not all((path / METRICS_FILES["all"]).is_file() for path in then.values()):
        return None
    now, earlier = (
        read_runs(paths, subset="all", resamples=max(1, config.resamples), seed=seed) for paths in (own, then)
    )
    if not _same_images(now, earlier):
        return None
    found = {}
    for metric in (one.key for one in COMPARED):
        difference = paired_difference(now.resampled, earlier.resampled, metric)
        if difference is not None:
            one_seed = len(now.resampled) == 1
            ends = difference.images_interval if one_seed else difference.interval
            points = (round(100 * ends[0], 4), round(100 * ends[1], 4)) if ends else None
            regression = Regression(
                experiment=next(iter(now.documents.values())).experiment,
                metric=metric,
                delta_points=round(100 * difference.value, 4),
                ci95=points,
            )
            found[metric] = (regression, difference.images_p_value if one_seed else difference.p_value)
    return found


def _same_images(now: ExperimentRuns, then: ExperimentRuns) -> bool:
    return all(now.resampled[s].images == then.resampled[s].images for s in now.resampled if s in then.resampled)


def _below_interval(
    experiment: str, values: Sequence[HistoryValue], before: Sequence[HistoryValue]
) -> list[Regression]:
    """Values below the earlier run's own interval."""
    earlier = {(v.experiment, v.metric): v for v in before}
    found = []
    for own in values:
        then = earlier.get((own.experiment, own.metric))
        if own.experiment != experiment or own.value is None or then is None or then.value is None or not then.ci95:
            continue
        if own.value < then.ci95[0]:
            points = round(100 * (own.value - then.value), 4)
            found.append(Regression(experiment=experiment, metric=own.metric, delta_points=points))
    return found


def pages(entries: Sequence[HistoryEntry], history: Path) -> dict[str, str]:
    """`directory` of each run whose benchmark.html is there -> its address from the history's page."""
    found = {entry.directory: Path(entry.directory) / "benchmark.html" for entry in entries}
    return {name: Path(os.path.relpath(page, history)).as_posix() for name, page in found.items() if page.is_file()}


def mark_runs(entry: HistoryEntry, directories: Directories) -> None:
    """Write what regressed into metrics.json of the experiments' run directories."""
    for experiment, by_seed in directories.items():
        texts = [regression.text for regression in entry.regressions if regression.experiment == experiment]
        for path in by_seed.values():
            file = path / METRICS_FILES["all"]
            document = MetricsDocument.model_validate_json(file.read_text(encoding="utf-8"))
            if document.regressions != texts:
                marked = document.model_copy(update={"regressions": texts})
                write_json_file(file, marked.model_dump(mode="json"))


def write_entry(history: Path, entry: HistoryEntry, page: str) -> None:
    """Add the run to the history and replace the history's page."""
    stamp = "".join(c for c in entry.finished if c.isalnum())
    write_json_file(history / f"{stamp}.json", entry.model_dump(mode="json"))
    write_file(history / "history.html", page.encode())
