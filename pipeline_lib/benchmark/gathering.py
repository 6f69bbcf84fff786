"""From the run directories of a benchmark's cells to its record: comparisons, weak spots, curves, the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.manifests import ExperimentResult
from data_contracts.results import AUC_SPRO, COMPARED, METRICS_FILES, TABLED
from data_contracts.validation import ValidationReport
from pipeline_lib.benchmark import categories, comparison, coverage, ranking, splits
from pipeline_lib.benchmark import clients as client_comparison
from pipeline_lib.benchmark.record import BenchmarkRecord, exemplary
from pipeline_lib.benchmark.side_by_side import Case, ScoredMaps, category_cases
from pipeline_lib.configuration import hardware
from pipeline_lib.configuration.files import as_earlier, load_config, parse_config, read_yaml
from pipeline_lib.models.saved_model import read_model
from pipeline_lib.results.outside_masks import comparison_warnings
from pipeline_lib.results.run_directory import RESULT_FILE, VALIDATION_FILE
from pipeline_lib.results.warnings import counted_findings
from pipeline_lib.storage.artifact_store import ArtifactStore

FURTHER = tuple(metric for metric in TABLED if metric not in COMPARED)
Results = Mapping[str, Mapping[int, ExperimentResult]]  # experiment -> seed -> result


def gather_benchmark(config: BenchmarkConfig, results: Results, failed: Mapping[str, str]) -> BenchmarkRecord:
    """Compare what the cells left. failed: experiment and seed -> cause.

    Curves and pictures are those of the first seed that an experiment has, of a few experiments. Raises ArtifactError
    where a run directory lacks what the comparison is made of; pictures whose maps the store no longer holds are left
    out, and the record's notes say so.
    """
    seed, baselines = config.base.seed, config.baselines()
    directories = {name: {s: Path(r.run_directory) for s, r in found.items()} for name, found in results.items()}
    comparisons: dict[str, list[dict[str, Any]]] = {}
    tabled = {}
    by_subset = {}
    for subset in METRICS_FILES:
        runs = {
            name: comparison.read_runs(found, subset=subset, resamples=config.resamples, seed=seed)
            for name, found in directories.items()
        }
        comparisons[subset] = comparison.compare(runs, baselines, config.compare, groups=config.group_of())
        tabled[subset] = comparison.compare(runs, baselines, groups=config.group_of(), metrics=FURTHER)
        by_subset[subset] = runs
    runs = by_subset["all"]
    clients = client_comparison.client_rows(runs, config.configs(), baseline=config.baseline)
    shown = {name: next(iter(found.values())) for name, found in results.items() if found}
    against = comparison.against_baselines(comparisons["all"])
    cases, notes = _cases(against, config.baseline, shown)
    ranked = ranking.rank(runs, AUC_SPRO.key)
    notes = [*_not_ranked(runs, ranked), *notes]
    return BenchmarkRecord(
        config=config,
        comparisons=comparisons,
        clients=clients,
        ranking=ranked,
        failed=failed,
        tabled=tabled,
        categories=categories.category_rows(runs, baselines),
        warnings=comparison_warnings({name: own.documents.values() for name, own in runs.items()}),
        validation=_validation_warnings(directories),
        weak_spots=splits.weak_spots(runs, baselines, clients),
        groups=splits.group_rows(runs, baselines),
        coverage=coverage.coverage_rows(runs),
        curves=_curves(against, config.baseline, shown),
        cases=cases,
        notes=notes,
        timings_s=comparison.total_timings(runs),
        environment=hardware.describe_environment(ArtifactStore(config.base.runtime.store)),
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def finished_results(
    config: BenchmarkConfig, out: Path
) -> tuple[dict[str, dict[int, ExperimentResult]], dict[str, str]]:
    """What the run directories below `out` hold, experiment -> seed -> result, and why the other cells do not count.

    A cell counts where its run finished with the configuration that the benchmark gives it now.
    """
    results: dict[str, dict[int, ExperimentResult]] = {}
    missing: dict[str, str] = {}
    for cell in config.cells():
        directory, name = out / config.directory(cell), config.directory(cell).as_posix()
        try:
            result = ExperimentResult.model_validate_json((directory / RESULT_FILE).read_bytes())
            own = parse_config(as_earlier(read_yaml(directory / "config.yaml")))
        except OSError:
            missing[name] = f"there is no finished run in {directory}"
            continue
        except (ValueError, ConfigError) as error:
            missing[name] = f"{directory} cannot be read: {str(error).splitlines()[0]}"
            continue
        wanted = cell.config if cell.config.dataset.layout != "auto" else cell.config.with_layout(own.dataset.layout)
        if own.config_hash() != wanted.config_hash():
            missing[name] = f"the run in {directory} has another configuration"
            continue
        here = result.model_copy(update={"run_directory": str(directory)})
        results.setdefault(cell.experiment, {})[cell.seed] = here
    return results, missing


def _validation_warnings(directories: Mapping[str, Mapping[int, Path]]) -> list[str]:
    """A sentence for each different count of what the validation of the runs' data found; one where all saw the same.

    Runs of stations, which keep that to themselves, have none.
    """
    found: dict[str, list[str]] = {}
    for name, by_seed in directories.items():
        for directory in by_seed.values():
            if (file := directory / VALIDATION_FILE).is_file():
                report = ValidationReport.model_validate_json(file.read_bytes())
                if text := counted_findings(report):
                    found.setdefault(text, []).append(f"{name}/{directory.name}" if len(by_seed) > 1 else name)
    return [f"{text}; see the report of {runs[0]}, under Data" for text, runs in found.items()]


def _not_ranked(runs: Mapping[str, comparison.ExperimentRuns], ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is missing in a ranking that there is."""
    left = sorted(set(runs) - {row["experiment"] for row in ranked})
    return [f"not ranked, for they lack seeds that the others have: {', '.join(left)}"] if ranked and left else []


def _curves(
    rows: Sequence[Mapping[str, Any]], baseline: str, shown: Mapping[str, ExperimentResult]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Category -> experiment -> FPR and sPRO."""
    files = {name: Path(result.run_directory) / "curves.parquet" for name, result in shown.items() if result.scored}
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name in exemplary(rows, baseline, among=set(files)):
        curves = pd.read_parquet(files[name])
        for category, own in curves[curves.curve == "spro_fpr"].groupby("category"):
            x, y = own.x.to_numpy(np.float64), own.y.to_numpy(np.float64)
            found.setdefault(str(category), {})[name] = (x, y)
    return dict(sorted(found.items()))


def _cases(
    rows: Sequence[Mapping[str, Any]], baseline: str, shown: Mapping[str, ExperimentResult]
) -> tuple[list[Case], list[str]]:
    """The same test images under a few experiments, one category's maps in memory at a time."""
    among = {name for name, result in shown.items() if result.scored}
    chosen = exemplary(rows, baseline, among=among)
    if not chosen:
        return [], []
    configs = {name: load_config(Path(shown[name].run_directory) / "config.yaml") for name in chosen}
    dataset = configs[chosen[0]].dataset
    categories = [scored.category for scored in shown[chosen[0]].scored]
    cases: list[Case] = []
    notes: list[str] = []
    for category in categories:
        maps: dict[str, ScoredMaps] = {}
        for name in chosen:
            try:
                found = _scored_maps(shown[name], configs[name], category)
            except ArtifactError as error:
                notes.append(f"no pictures of {name}, {category}: {error}")
                continue
            maps |= {name: found} if found else {}
        if maps and dataset.root:
            cases += category_cases(maps, dataset.root, layout=dataset.layout, n_categories=len(categories))
    return cases, notes


def _scored_maps(result: ExperimentResult, config: ExperimentConfig, category: str) -> ScoredMaps | None:
    store = ArtifactStore(config.runtime.store)
    for scored in result.scored:
        if scored.category == category:
            maps = store.read_arrays(scored.maps)["maps"]
            reading = read_model(result.run_directory).reading.of(category)
            return ScoredMaps(
                maps, store.read_table(scored.scores), config.inference.smoothing_sigma, reading, scored.cells
            )
    return None
