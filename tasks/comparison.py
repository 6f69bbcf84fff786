"""Tasks that end a benchmark: where it goes, and the comparison for people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_table_artifact

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.manifests import ExperimentResult
from pipeline_lib import benchmark_report, client_comparison, comparison, hardware, ranking, run_directory
from pipeline_lib.artifact_store import write_file

RANKED_METRIC = "auc_spro_0.05"
FILES = {"all": "comparison.json", "development": "comparison_development.json", "report": "comparison_report.json"}


@task(name="benchmark-directory")
def benchmark_directory(config: BenchmarkConfig) -> Path:
    """The directory of this benchmark's run directories."""
    return (config.out or run_directory.default_run_directory(config.name)).expanduser().absolute()


@task(name="publish-comparison")
def publish_comparison(
    config: BenchmarkConfig, results: dict[str, dict[int, ExperimentResult]], failed: dict[str, str], out: Path
) -> str:
    """Write the comparison on all of test and on its halves, and show it as a table in the UI. Returns the directory.

    results: experiment -> seed -> result; failed: experiment and seed -> cause.
    """
    seed = config.base.seed
    configs, baselines, groups = config.configs(), config.baselines(), config.group_of()
    directories = {name: {s: Path(r.run_directory) for s, r in found.items()} for name, found in results.items()}
    comparisons: dict[str, list[dict[str, Any]]] = {}
    for subset, file_name in FILES.items():
        runs = {
            name: comparison.read_runs(found, subset=subset, resamples=config.resamples, seed=seed)
            for name, found in directories.items()
        }
        rows = comparison.compare(runs, baselines, groups=groups, resamples=config.resamples, seed=seed)
        run_directory.write_json_file(out / file_name, rows)
        comparisons[subset] = rows
        if subset == "all":
            timings_s = comparison.total_timings(runs)
            clients = client_comparison.client_rows(runs, configs, baseline=config.baseline)
            ranked = ranking.rank(runs, RANKED_METRIC, resamples=config.resamples, seed=seed)
    run_directory.write_json_file(out / "clients.json", clients)
    run_directory.write_json_file(out / "ranking.json", ranked)
    run_directory.write_json_file(out / "failed.json", failed)
    record = benchmark_report.BenchmarkRecord(
        config=config,
        comparisons=comparisons,
        clients=clients,
        ranking=ranked,
        failed=failed,
        timings_s=timings_s,
        environment=hardware.describe_environment(),
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_file(out / "benchmark.html", benchmark_report.render_benchmark(record).encode())
    tables = {FILES[subset].removesuffix(".json"): rows for subset, rows in comparisons.items()}
    tables |= {"clients": clients, "ranking": ranked}
    for name, found in tables.items():
        write_file(out / "tables" / f"{name}.csv", pd.DataFrame(found).to_csv(index=False).encode())
    create_table_artifact(
        key="comparison",
        table=comparison.comparison_table(comparisons["all"], failed),
        description=f"{config.name}: means over categories and seeds in per cent; points against the baseline with the "
        "paired 95 % interval, * where a difference is shown (Holm).",
    )
    return str(out)
