"""The benchmark as a flow: every experiment of the matrix, and how each compares with the baseline.

The experiments run one after the other inside this flow run, so that all tasks, and the retry of one that failed, are
in one place in the UI; what two experiments share is computed once, because artifacts are addressed by content.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Failed

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.manifests import ExperimentResult
from flows.experiment import run_experiment
from tasks.comparison import benchmark_directory, publish_comparison


@flow(name="full-benchmark", persist_result=True, result_serializer="json")
def full_benchmark(config: BenchmarkConfig) -> Any:
    """Run all experiments; one that fails does not stop the others, but the run is then Failed and can be retried."""
    out = benchmark_directory(config)
    results: dict[str, ExperimentResult] = {}
    failed: dict[str, str] = {}
    for name, experiment in config.configs().items():
        runtime = experiment.runtime.model_copy(update={"out": out / name})
        outcome = _run_one(experiment.model_copy(update={"runtime": runtime}))
        if isinstance(outcome, ExperimentResult):
            results[name] = outcome
        else:
            failed[name] = outcome
            get_run_logger().error("experiment %s failed: %s", name, outcome)
    comparison = publish_comparison(config, results, failed, out)
    if failed:
        causes = "; ".join(f"{name}: {cause}" for name, cause in failed.items())
        return Failed(message=f"{len(failed)} of {len(config.experiments)} experiments failed: {causes}")
    return comparison


def _run_one(config: ExperimentConfig) -> ExperimentResult | str:
    """The result of one experiment, or why there is none in one line."""
    try:
        outcome = run_experiment(config)
    except Exception as error:  # whatever it is, the other experiments go on and the run says so
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(outcome, str):
        return ExperimentResult.model_validate_json(outcome)
    if outcome.is_failed():
        return outcome.message or "failed"
    return ExperimentResult.model_validate_json(str(outcome.data))
