"""The benchmark as a flow: every experiment of the matrix with every seed, and how each compares with its baseline.

The cells run one after the other inside this flow run, so that all tasks, and the retry of one that failed, are in one
place in the UI; what two cells share is computed once, because artifacts are addressed by content, and a run that was
interrupted goes on from what is finished.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import get_run_context
from prefect.events import emit_event
from prefect.states import Completed, Failed

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.config import ExperimentConfig
from data_contracts.federation import listed
from data_contracts.history import HistoryEntry
from data_contracts.manifests import ExperimentResult
from flows.experiment import run_experiment
from flows.steps.ends_with_worker import end_with_worker
from flows.steps.run_pages import benchmark_title, show_failure
from flows.steps.running import PARTIAL, partial_state, refuse_what_does_not_fit
from tasks.comparison import alone_in, benchmark_directory, compare_with_last_good, publish_comparison, publish_summary
from tasks.resources import refuse_unwritable, refuse_without_weights

REGRESSED = "CompletedRegressed"
REGRESSION_TAG = "regression"
REGRESSION_EVENT = "fedpatch.benchmark.regression"


@flow(
    name="full-benchmark",
    flow_run_name=benchmark_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
    persist_result=True,
    result_serializer="json",
)
def full_benchmark(config: BenchmarkConfig, force: bool = False) -> Any:
    """Run all cells; one that fails does not stop the others, but the run is then Failed and can be retried.

    Where all have a result, but some without all of their clients, it is Partial and can be retried, too. When this
    machine cannot hold one of the experiments, all are refused before any begins, unless `force`; where it lacks the
    weights of one, always.
    """
    cells = config.cells()
    configs = [cell.config for cell in cells]
    refuse_unwritable(configs, out=config.out)
    refuse_without_weights(configs)
    refuse_what_does_not_fit({cell.experiment: cell.config for cell in cells}, force=force)
    out = benchmark_directory(config)
    with alone_in(out):
        return _run_cells(config, out)


def _run_cells(config: BenchmarkConfig, out: Path) -> Any:
    cells = config.cells()
    results: dict[str, dict[int, ExperimentResult]] = {}
    failed: dict[str, str] = {}
    partial: dict[str, str] = {}
    progress = _Progress(len(cells))
    for cell in cells:
        runtime = cell.config.runtime.model_copy(update={"out": out / config.directory(cell)})
        name = cell.name if len(cells) > len(config.changes()) else cell.experiment
        result, problem = _run_one(cell.config.model_copy(update={"runtime": runtime}), name)
        if result is not None:
            results.setdefault(cell.experiment, {})[cell.seed] = result
        if problem:
            (failed if result is None else partial)[name] = problem
            get_run_logger().error("experiment %s %s: %s", name, "failed" if result is None else "is partial", problem)
        progress.advance(name)
    rows = publish_comparison(config, results, failed, out)
    get_run_logger().info("benchmark directory: %s", out)
    entry = compare_with_last_good(config, results, failed, partial, rows, out)
    if entry and entry.regressions:
        announce(config.name, entry)
    figures = publish_summary(config, results, failed, partial, rows, entry, out)
    worse = "; ".join(regression.text for regression in entry.regressions) if entry else ""
    problems = [
        f"{len(failed)} of {len(cells)} experiments failed: {listed(failed)}" if failed else "",
        f"clients missing in {len(partial)} of {len(cells)} experiments: {listed(partial)}" if partial else "",
        f"worse than on {entry.compared_with}: {worse}" if entry and worse else "",
    ]
    message = "; ".join(problem for problem in problems if problem)
    if failed:
        return Failed(message=message)
    if partial:
        return partial_state(message, str(out))
    if worse:
        return Completed(name=REGRESSED, message=f"{message}; {figures}", data=str(out))
    return Completed(message=figures, data=str(out))


def announce(name: str, entry: HistoryEntry) -> None:
    """Tag this flow run and emit the event that automations listen to."""
    run = get_run_context().flow_run  # type: ignore[union-attr]
    if run is None:
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=sorted({*run.tags, REGRESSION_TAG}))
    texts = [regression.text for regression in entry.regressions]
    emit_event(
        REGRESSION_EVENT,
        resource={"prefect.resource.id": f"fedpatch.benchmark.{name}", "prefect.resource.name": name},
        related=[{"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.role": "flow-run"}],
        payload={"compared_with": entry.compared_with, "directory": entry.directory, "regressions": texts},
    )


class _Progress:
    """Cells done and the time that the others may take, in the log and as a bar in the UI.

    Up to: the first ones make what the others find in the store.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.started = total, 0, time.monotonic()
        self.bar = create_progress_artifact(0.0, key="benchmark-progress", description=f"0 of {total} experiments")

    def advance(self, name: str) -> None:
        self.done += 1
        left_s = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        text = f"{self.done} of {self.total} experiments, up to {left_s / 60:.0f} min left; last: {name}"
        get_run_logger().info("experiments: %d of %d", self.done, self.total)
        get_run_logger().info(text)
        try:
            update_progress_artifact(self.bar, 100.0 * self.done / self.total, description=text)  # type: ignore[arg-type]
        except Exception as error:  # whatever it is, progress is not worth the other experiments
            get_run_logger().debug("no progress bar: %s", error)


def _run_one(config: ExperimentConfig, name: str) -> tuple[ExperimentResult | None, str]:
    """The result of one experiment, None where it failed; and in one line why, or what the result is without."""
    try:
        outcome = run_experiment(config, part=name)
    except Exception as error:  # whatever it is, the other experiments go on and the run says so
        return None, f"{type(error).__name__}: {error}".splitlines()[0]
    if outcome.is_completed() or outcome.name == PARTIAL:
        result = ExperimentResult.model_validate_json(str(outcome.data))
        return result, (outcome.message or "") if outcome.name == PARTIAL else ""
    return None, outcome.message or "failed"
