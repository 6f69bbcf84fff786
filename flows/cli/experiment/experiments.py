"""Commands that run experiments: run, demo."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.errors import FedpatchError, QuorumError
from data_contracts.manifests import ExperimentResult
from data_contracts.results import MetricsDocument
from flows.benchmark import full_benchmark
from flows.cli.experiment.comparing import print_comparison
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_metrics, print_where
from flows.cli.progress import show_progress
from flows.experiment import centralized_experiment, federated_experiment
from flows.steps.running import PARTIAL
from pipeline_lib.configuration.files import load_config
from pipeline_lib.dataset.synthetic.dataset import synthesize_dataset
from tasks.resources import refuse_without_weights

DEMO_CONFIG = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"
DEMO_IMAGES = 24
DEMO_SCALE = 0.5
BENCHMARK_SAYS_AFTER_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """A finished experiment: its result and the metrics on all of test."""

    result: ExperimentResult
    metrics: MetricsDocument


def run_and_describe(config: ExperimentConfig, *, quiet: bool = False) -> Outcome:
    """Run the flow that the mode asks for, without looking whether it fits: that is done before.

    Raises the error of the step that failed, QuorumError when too few clients delivered.
    """
    flow = centralized_experiment if config.federated.mode == "centralized" else federated_experiment
    with show_progress(config.name, quiet=quiet):
        state: State[Any] = flow(config, force=True, return_state=True)  # type: ignore[assignment]
    value = state.result(raise_on_failure=False)
    if state.name != PARTIAL and not state.is_completed():
        if isinstance(value, FedpatchError | OSError | MemoryError):
            raise value
        if isinstance(value, Exception) and type(value).__name__ not in ("FailedRun", "UnfinishedRun", "CrashedRun"):
            raise value
        raise QuorumError(state.message or str(value))
    result = ExperimentResult.model_validate_json(str(value))
    for client, cause in result.failed_clients.items():
        print(f"fedpatch: client {client} failed: {cause}", file=sys.stderr)
    metrics = read_metrics(Path(result.run_directory))
    for client in metrics.federation.skipped_clients:
        print(f"fedpatch: client {client} has no images and was skipped", file=sys.stderr)
    return Outcome(result, metrics)


def read_metrics(directory: Path) -> MetricsDocument:
    """metrics.json of a run directory."""
    return MetricsDocument.model_validate_json((directory / "metrics.json").read_text(encoding="utf-8"))


def print_experiment(outcome: Outcome, *, as_json: bool) -> None:
    """The table of results and where everything lies, or metrics.json with the run directory."""
    if as_json:
        print_json({"run_directory": outcome.result.run_directory, **outcome.metrics.model_dump(mode="json")})
        return
    directory = Path(outcome.result.run_directory)
    print_metrics(outcome.metrics)
    print_where(directory)
    say_next("run", run=directory, report=directory / "report.html")


def run_demo(out: Path, *, as_json: bool) -> None:
    """Make a data set and run configs/demo.yaml on it, centralized and federated."""
    root = out / "dataset"
    if not root.is_dir():
        if not as_json:
            print(f"making a small AutoVI-like data set in {root}", file=sys.stderr)
        unfinished = out / "dataset.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        with show_progress("images made", quiet=as_json) as progress:
            made = synthesize_dataset(unfinished, images=DEMO_IMAGES, scale=DEMO_SCALE, seed=0, progress=progress)
        made.rename(root)
    outcomes = []
    for mode in ("centralized", "federated"):
        places = {"dataset.root": root, "runtime.store": out / "store", "runtime.out": out / mode}
        overrides = [f"name=demo_{mode}", f"federated.mode={mode}"]
        overrides += [f"{key}={json.dumps(str(path))}" for key, path in places.items()]
        outcomes.append(run_and_describe(load_config(DEMO_CONFIG, overrides), quiet=as_json))
    if as_json:
        print_json([{"run_directory": o.result.run_directory, **o.metrics.model_dump(mode="json")} for o in outcomes])
        return
    for outcome in outcomes:
        print_metrics(outcome.metrics)
        print_where(Path(outcome.result.run_directory))
    say_next("demo")


def run_benchmark(config: BenchmarkConfig, *, as_json: bool, force: bool = False) -> None:
    """Run the matrix, print the comparison.

    Raises ResourceError when an experiment would not fit, unless `force`; QuorumError naming those that failed.
    """
    refuse_without_weights([cell.config for cell in config.cells()])
    with show_progress(config.name, quiet=as_json, stages_after_s=BENCHMARK_SAYS_AFTER_S):
        state: State[Any] = full_benchmark(config, force=force, return_state=True)  # type: ignore[assignment]
    if state.name == PARTIAL:
        print(f"fedpatch: {state.message}", file=sys.stderr)
    elif not state.is_completed():
        cause = state.result(raise_on_failure=False)
        if isinstance(cause, FedpatchError):
            raise cause
        raise QuorumError(state.message or str(cause))
    print_comparison(config.name, Path(str(state.result(raise_on_failure=False))), as_json=as_json)
