"""One experiment as a flow: data set -> clients -> coresets -> memory banks -> anomaly maps -> metrics -> report."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from data_contracts.config import ExperimentConfig
from data_contracts.federation import Federation, without_images
from data_contracts.forms import CENTRALIZED_FORM, FEDERATED_FORM
from data_contracts.manifests import IndexedDataset, MeasuredBanks
from data_contracts.settings import BackboneSettings, EvaluationSettings, place_of
from flows.steps.calibration import calibrate
from flows.steps.coverage import measure_coverage
from flows.steps.dataset import prepare_dataset
from flows.steps.ends_with_worker import end_with_worker
from flows.steps.local import measure_alone, without_upload
from flows.steps.measuring import measure_banks
from flows.steps.rounds import train
from flows.steps.run import Run
from flows.steps.run_pages import experiment_title, show_failure
from flows.steps.running import located, partial_state, refuse_what_does_not_fit, submit, task_runner
from tasks.data import found_layout, resolve_backbone
from tasks.extensions import try_extensions
from tasks.reporting import finish_run, publish_clients, publish_results
from tasks.resources import refuse_backbones, refuse_unwritable, refuse_without_weights, remember_grids


@flow(
    name="centralized-experiment",
    flow_run_name=experiment_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
    persist_result=True,
    result_serializer="json",
)
def centralized_experiment(config: Annotated[ExperimentConfig, CENTRALIZED_FORM], force: bool = False) -> Any:
    """All images at one place: the baseline that a federation is compared with.

    What this machine cannot hold is refused before it begins, unless `force`.
    """
    config = config.as_mode("centralized")
    refuse_unwritable([config])
    refuse_without_weights([config])
    refuse_what_does_not_fit({"": config}, force=force)
    return run_experiment(config)


@flow(
    name="federated-experiment",
    flow_run_name=experiment_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
    persist_result=True,
    result_serializer="json",
)
def federated_experiment(config: Annotated[ExperimentConfig, FEDERATED_FORM], force: bool = False) -> Any:
    """Each client keeps its images and uploads a coreset; a failed client can be retried from the UI.

    What this machine cannot hold is refused before it begins, unless `force`.
    """
    local_only = config.federated.mode == "local_only"
    config = config.as_mode("local_only" if local_only else "federated")
    refuse_unwritable([config])
    refuse_without_weights([config])
    refuse_what_does_not_fit({"": config}, force=force)
    return run_experiment(config)


def run_experiment(config: ExperimentConfig, *, part: str = "") -> State[Any]:
    """The steps of one experiment, inside a flow run. Returns a state with the result as JSON, or with what failed.

    part: which one it is of the run's experiments, where there are several; artifacts are named by it.
    """
    place = place_of(config)
    config = found_layout(located(config, place), place)
    refuse_backbones([(config, place)])
    with task_runner(config.runtime) as runner:
        run = Run(config, place, runner)
        is_alone = config.federated.mode == "local_only"
        if is_alone:
            run = without_upload(run)
        if config.extensions():
            submit(runner, try_extensions, config=config, place=place).result()
        backbone = submit(
            runner, resolve_backbone, model=config.model, preprocessing=config.preprocessing, seed=config.seed
        ).result()
        dataset = prepare_dataset(run)
        remember_grids(config, place)
        run.done(f"index: {len(dataset.indexed.categories)} categories")
        federation = train(run, dataset, backbone)
        publish_clients(dataset.partition, federation, part=part)
        empty = dataset.partition.skipped_clients
        skipped = [without_images(empty)] if empty else []
        if federation.problem:
            return Failed(message="; ".join([federation.problem, *skipped]))
        measured = measure(run, dataset.indexed, federation, backbone)
        federation.coverage = measure_coverage(run, dataset.partition, federation)
        result = finish_run(config, backbone, dataset, federation, measured, run.clock.timings_s, place)
        figures = publish_results(result, place, part=part)
        run.done("report")
    text = result.model_dump_json()
    if federation.partial:
        return partial_state("; ".join([f"without {federation.partial}", *skipped]), text)
    return Completed(message="; ".join([figures, *skipped]), data=text)


def measure(
    run: Run, indexed: IndexedDataset, federation: Federation, backbone: BackboneSettings
) -> list[MeasuredBanks]:
    """What the banks of each round score, and every client's thresholds; none where clients are alone, see `alone`.

    Of all rounds but the last without intervals: the convergence.
    """
    if run.config.federated.mode == "local_only":
        federation.alone = measure_alone(run, indexed, federation, backbone)
        return []
    with run.clock.stage("calibrate"):
        federation.calibration = calibrate(
            run.runner,
            run.config,
            federation.uploads,
            federation.features,
            federation.banks,
            indexed.groups,
            run.place,
        )
    if federation.calibration:
        run.done(f"thresholds: {len(federation.calibration)} of {len(federation.uploads)} clients")
    last = measure_banks(run, indexed, federation.banks, backbone)
    brief = EvaluationSettings.of(run.config).model_copy(update={"bootstrap": 0})
    earlier = [measure_banks(run, indexed, one.banks, backbone, settings=brief) for one in federation.rounds[:-1]]
    if earlier:
        run.done(f"convergence: {len(earlier)} earlier rounds")
    return [*earlier, last]
