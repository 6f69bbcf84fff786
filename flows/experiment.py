"""One experiment as a flow: data set -> clients -> coresets -> memory banks -> anomaly maps -> metrics -> report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import (
    BankManifest,
    ClientUploads,
    IndexedDataset,
    Manifest,
    MeasuredCategory,
    Partition,
    ScoredCategory,
    UploadManifest,
)
from data_contracts.stages import (
    AggregationSettings,
    BackboneSettings,
    CoresetSettings,
    EvaluationSettings,
    Place,
    ScoringSettings,
    client_config_hash,
    sizes_of,
)
from flows.running import (
    StageClock,
    failure_of,
    located,
    place_of,
    refuse_what_is_not_built,
    submit,
    task_runner,
)
from tasks.clients import extract_client_features, select_client_coreset
from tasks.data import fingerprint_dataset, index_dataset, partition_dataset, resolve_backbone, validate_dataset
from tasks.evaluation import extract_test_features, measure_category, score_category
from tasks.reporting import finish_run, publish_clients, publish_results
from tasks.server import aggregate_memory_bank
from tasks.stage import on_store

GLOBAL_BANK = "all"


@dataclass
class Run:
    """What the steps of one run share."""

    config: ExperimentConfig
    place: Place
    runner: TaskRunner[Any]
    clock: StageClock = field(default_factory=StageClock)
    features: list[Manifest] = field(default_factory=list)  # what the run's registration in the store refers to


@flow(name="centralized-experiment", persist_result=True, result_serializer="json")
def centralized_experiment(config: ExperimentConfig) -> Any:
    """All images at one place: the baseline that a federation is compared with."""
    return run_experiment(config.model_copy(update={"federated": config.federated.as_mode("centralized")}))


@flow(name="federated-experiment", persist_result=True, result_serializer="json")
def federated_experiment(config: ExperimentConfig) -> Any:
    """Each client keeps its images and uploads a coreset; a failed client can be retried from the UI."""
    local_only = config.federated.mode == "local_only"
    federated = config.federated.as_mode("local_only" if local_only else "federated")
    return run_experiment(config.model_copy(update={"federated": federated}))


def run_experiment(config: ExperimentConfig) -> str | State[Any]:
    """The steps of one experiment, inside a flow run. Returns the result as JSON, or a state that says what failed."""
    refuse_what_is_not_built(config)
    place = place_of(config)
    config = located(config, place)
    with task_runner(config.runtime) as runner:
        run = Run(config, place, runner)
        backbone = submit(
            runner, resolve_backbone, model=config.model, preprocessing=config.preprocessing, seed=config.seed
        ).result()
        indexed, validation = _index_and_validate(run)
        partition = _partition(run, indexed)
        uploads, failed = _clients(run, partition, backbone)
        publish_clients(partition, uploads, failed, place)
        if problem := _quorum_problem(config, partition, failed):
            return Failed(message=problem)
        banks = _aggregate(run, uploads, backbone)
        scored, measured = _test(run, indexed, banks, backbone)
        result = finish_run(
            config,
            backbone,
            indexed,
            validation,
            partition,
            uploads,
            failed,
            banks,
            scored,
            measured,
            run.features,
            run.clock.timings_s,
            place,
        )
        publish_results(result, place)
    text = result.model_dump_json()
    if failed:
        return Completed(name="CompletedPartial", message=f"without {_list(failed)}", data=text)
    return text


def _index_and_validate(run: Run) -> tuple[IndexedDataset, Any]:
    config, place = run.config, run.place
    with run.clock.stage("index"):
        fingerprint = submit(run.runner, fingerprint_dataset, dataset=config.dataset, place=place).result()
        dataset = config.dataset.model_copy(update={"root": None})
        indexed = submit(
            run.runner, on_store(index_dataset, place), fingerprint=fingerprint, dataset=dataset, place=place
        ).result()
    with run.clock.stage("validate"):
        validation = submit(
            run.runner,
            on_store(validate_dataset, place),
            fingerprint=fingerprint,
            indexed=indexed,
            dataset=dataset,
            preprocessing=config.preprocessing,
            defect_weights=config.evaluation.defect_weights,
            place=place,
        ).result()
    return indexed, validation


def _partition(run: Run, indexed: IndexedDataset) -> Partition:
    config = run.config
    with run.clock.stage("partition"):
        partition = submit(
            run.runner,
            on_store(partition_dataset, run.place),
            index=indexed.index,
            federated=config.federated,
            seed=config.seed,
            place=run.place,
        ).result()
    for client in partition.skipped_clients:
        get_run_logger().warning("client %s has no images and is skipped; it does not count in the quorum", client)
    return partition


def _clients(run: Run, partition: Partition, backbone: BackboneSettings) -> tuple[list[ClientUploads], dict[str, str]]:
    """Every client's features and coreset, in parallel; (uploads of those that delivered, cause by failed client)."""
    config, place = run.config, run.place
    names = [client.client_id for client in partition.clients]
    with run.clock.stage("clients"):
        features: list[PrefectFuture[Any]] = [
            submit(
                run.runner,
                on_store(extract_client_features, place),
                client=client,
                settings=backbone,
                sizes=sizes_of(config.preprocessing, client.categories),
                place=place,
            )
            for client in partition.clients
        ]
        coresets: list[PrefectFuture[ClientUploads]] = [
            submit(
                run.runner,
                on_store(select_client_coreset, place),
                patch_features=future,
                client_id=name,
                config_hash=client_config_hash(config, backbone),
                settings=CoresetSettings.of(config, name),
                place=place,
            )
            for name, future in zip(names, features, strict=True)
        ]
        causes = {n: failure_of(f) or failure_of(c) for n, f, c in zip(names, features, coresets, strict=True)}
    failed = {name: cause for name, cause in causes.items() if cause}
    run.features += [future.result() for name, future in zip(names, features, strict=True) if name not in failed]
    uploads = [future.result() for name, future in zip(names, coresets, strict=True) if name not in failed]
    return uploads, failed


def _quorum_problem(config: ExperimentConfig, partition: Partition, failed: dict[str, str]) -> str | None:
    """Why the run cannot go on, or None."""
    n_clients = len(partition.clients)
    n_delivered = n_clients - len(failed)
    needed = min(config.federated.min_clients, n_clients) if config.federated.mode != "centralized" else 1
    if n_clients == 0:
        return "no client has any image"
    if n_delivered >= max(1, needed):
        return None
    return f"quorum not met, {n_delivered} of {n_clients} clients delivered and {needed} are needed: {_list(failed)}"


def _list(failed: dict[str, str]) -> str:
    return "; ".join(f"{client}: {cause}" for client, cause in failed.items())


def _aggregate(run: Run, delivered: list[ClientUploads], backbone: BackboneSettings) -> list[BankManifest]:
    """One bank for each category, or one for all."""
    uploads: dict[str, list[UploadManifest]] = {}
    for client in delivered:
        for upload in client.uploads:
            uploads.setdefault(upload.category, []).append(upload)
    with run.clock.stage("aggregate"):
        futures = [
            submit(
                run.runner,
                on_store(aggregate_memory_bank, run.place),
                uploads=uploads[bank],
                bank=bank,
                config_hash=client_config_hash(run.config, backbone),
                settings=AggregationSettings.of(run.config),
                round_number=1,
                place=run.place,
            )
            for bank in sorted(uploads)
        ]
        return [future.result() for future in futures]


def _test(
    run: Run, indexed: IndexedDataset, banks: list[BankManifest], backbone: BackboneSettings
) -> tuple[list[ScoredCategory], list[MeasuredCategory]]:
    """Anomaly maps and metrics of every category that has test images and a bank."""
    config, place = run.config, run.place
    by_name = {bank.bank: bank for bank in banks}
    bank_of = {c: by_name.get(GLOBAL_BANK) or by_name.get(c) for c in indexed.test_images}
    categories = [category for category, bank in bank_of.items() if bank is not None]
    for category in sorted(set(indexed.categories) - set(categories)):
        get_run_logger().warning("category %s has no test images or no memory bank and is not measured", category)
    with run.clock.stage("test features"):
        features = {
            category: submit(
                run.runner,
                on_store(extract_test_features, place),
                test_images=indexed.test_images[category],
                category=category,
                settings=backbone,
                size=config.preprocessing.size(category),
                place=place,
            )
            for category in categories
        }
        run.features += [future.result() for future in features.values()]
    with run.clock.stage("score"):
        scored = {
            category: submit(
                run.runner,
                on_store(score_category, place),
                test_images=indexed.test_images[category],
                patch_features=features[category],
                bank=bank_of[category],
                category=category,
                settings=ScoringSettings.of(config),
                place=place,
            )
            for category in categories
        }
        maps = [future.result() for future in scored.values()]
    with run.clock.stage("measure"):
        measured = [
            submit(
                run.runner,
                on_store(measure_category, place),
                test_images=indexed.test_images[category],
                truth_sha256=indexed.truth_sha256[category],
                scored=scored[category],
                category=category,
                settings=EvaluationSettings.of(config),
                on_bad_image=config.dataset.on_bad_image,
                place=place,
            )
            for category in categories
        ]
        return maps, [future.result() for future in measured]
