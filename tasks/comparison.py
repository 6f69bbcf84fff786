"""Tasks that end a benchmark: where it goes, and the comparison for people."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.manifests import ExperimentResult
from data_contracts.results import MetricsDocument
from pipeline_lib import comparison, run_directory


@task(name="benchmark-directory")
def benchmark_directory(config: BenchmarkConfig) -> Path:
    """The directory of this benchmark's run directories."""
    return (config.out or run_directory.default_run_directory(config.name)).expanduser().absolute()


@task(name="publish-comparison")
def publish_comparison(
    config: BenchmarkConfig, results: dict[str, ExperimentResult], failed: dict[str, str], out: Path
) -> str:
    """Write comparison.json and show the comparison as a table in the UI. Returns the directory."""
    documents = {
        name: MetricsDocument.model_validate_json((Path(r.run_directory) / "metrics.json").read_text(encoding="utf-8"))
        for name, r in results.items()
    }
    rows = comparison.compare(documents, baseline=config.baseline)
    out.mkdir(parents=True, exist_ok=True)
    run_directory.write_json_file(out / "comparison.json", rows)
    run_directory.write_json_file(out / "failed.json", failed)
    create_table_artifact(
        key="comparison",
        table=comparison.comparison_table(documents, failed, baseline=config.baseline),
        description=f"{config.name}: means over categories in per cent, and points against {config.baseline}.",
    )
    return str(out)
