"""Commands that run experiments: run, demo."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from data_contracts.config import ExperimentConfig
from data_contracts.errors import FedpatchError, QuorumError
from data_contracts.manifests import ExperimentResult
from data_contracts.results import MetricsDocument
from flows.cli.printing import print_json, print_metrics, print_where
from flows.cli.progress import show_progress
from flows.experiment import centralized_experiment, federated_experiment
from pipeline_lib.config_files import parse_config
from pipeline_lib.synthetic import synthesize_dataset

DEMO_CATEGORIES = ("engine_wiring", "pipe_clip")
DEMO_IMAGES = 40
DEMO_SCALE = 0.5


@dataclass(frozen=True)
class Outcome:
    """A finished experiment: its result and the metrics on all of test."""

    result: ExperimentResult
    metrics: MetricsDocument


def run_and_describe(config: ExperimentConfig, *, quiet: bool = False) -> Outcome:
    """Run the flow that the mode asks for.

    Raises the error of the step that failed, QuorumError when too few clients delivered.
    """
    flow = centralized_experiment if config.federated.mode == "centralized" else federated_experiment
    with show_progress(config.name, quiet=quiet):
        state: State[Any] = flow(config, return_state=True)  # type: ignore[assignment]
    value = state.result(raise_on_failure=False)
    if state.is_failed() or state.is_crashed():
        if isinstance(value, FedpatchError | OSError | MemoryError):
            raise value
        if isinstance(value, Exception) and type(value).__name__ not in ("FailedRun", "UnfinishedRun", "CrashedRun"):
            raise value
        raise QuorumError(state.message or str(value))
    result = ExperimentResult.model_validate_json(str(value))
    for client, cause in result.failed_clients.items():
        print(f"fedpatch: client {client} failed: {cause}", file=sys.stderr)
    return Outcome(result, read_metrics(Path(result.run_directory)))


def read_metrics(directory: Path) -> MetricsDocument:
    """metrics.json of a run directory."""
    return MetricsDocument.model_validate_json((directory / "metrics.json").read_text(encoding="utf-8"))


def print_experiment(outcome: Outcome, *, as_json: bool) -> None:
    """The table of results and where everything lies, or metrics.json with the run directory."""
    if as_json:
        print_json({"run_directory": outcome.result.run_directory, **outcome.metrics.model_dump(mode="json")})
        return
    print_metrics(outcome.metrics)
    print_where(Path(outcome.result.run_directory))


def run_demo(out: Path, *, as_json: bool) -> None:
    """Make a data set and run configs/demo.yaml's experiment, centralized and federated."""
    root = out / "dataset"
    if not as_json:
        print(f"making a small AutoVI-like data set in {root}")
    synthesize_dataset(root, categories=DEMO_CATEGORIES, images=DEMO_IMAGES, scale=DEMO_SCALE, seed=0)
    outcomes = []
    for name in ("centralized", "federated"):
        values: dict[str, Any] = {
            "name": f"demo_{name}",
            "dataset": {"root": str(root)},
            "preprocessing": {"small_size": [192, 192], "large_size": [256, 192]},
            "model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.02},
            "federated": {"mode": name, "num_clients": 3},
            "runtime": {"store": str(out / "store"), "out": str(out / name)},
        }
        outcomes.append(run_and_describe(parse_config(values), quiet=as_json))
    if as_json:
        print_json([{"run_directory": o.result.run_directory, **o.metrics.model_dump(mode="json")} for o in outcomes])
        return
    for outcome in outcomes:
        print_metrics(outcome.metrics)
        print_where(Path(outcome.result.run_directory))
