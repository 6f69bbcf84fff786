"""The steps that every experiment has: index and validation, partition, test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import get_run_logger
from prefect.task_runners import TaskRunner

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import (
    GLOBAL_BANK,
    BankManifest,
    IndexedDataset,
    MeasuredBanks,
    Partition,
    PreparedDataset,
)
from data_contracts.settings import BackboneSettings, EvaluationSettings, Place, ScoringSettings
from flows.steps.running import StageClock, submit
from tasks.data import fingerprint_dataset, fingerprint_partition, index_dataset, partition_dataset, validate_dataset
from tasks.evaluation import extract_test_features, measure_category, score_category
from tasks.stage import on_store


@dataclass
class Run:
    """What the steps of one run share."""

    config: ExperimentConfig
    place: Place
    runner: TaskRunner[Any]
    clock: StageClock = field(default_factory=StageClock)


def prepare_dataset(run: Run) -> PreparedDataset:
    """The data set's index and validation, and who holds which training images."""
    indexed, validation = index_and_validate(run)
    return PreparedDataset(indexed=indexed, validation=validation, partition=partition_images(run, indexed))


def index_and_validate(run: Run) -> tuple[IndexedDataset, Any]:
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


def partition_images(run: Run, indexed: IndexedDataset) -> Partition:
    config = run.config
    with run.clock.stage("partition"):
        partition = submit(
            run.runner,
            on_store(partition_dataset, run.place),
            index=indexed.index,
            federated=config.federated,
            saved=submit(run.runner, fingerprint_partition, federated=config.federated).result(),
            seed=config.seed,
            place=run.place,
        ).result()
    for client in partition.skipped_clients:
        get_run_logger().warning("client %s has no images and is skipped; min_clients: all does not count it", client)
    return partition


def measure_banks(
    run: Run,
    indexed: IndexedDataset,
    banks: Sequence[BankManifest],
    backbone: BackboneSettings,
    *,
    settings: EvaluationSettings | None = None,
) -> MeasuredBanks:
    """Anomaly maps and metrics of every category that has test images and a bank; `settings` are the run's own."""
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
        tables = [future.result() for future in features.values()]
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
                settings=settings or EvaluationSettings.of(config),
                on_bad_image=config.dataset.on_bad_image,
                place=place,
            )
            for category in categories
        ]
        return MeasuredBanks(scored=maps, measured=[future.result() for future in measured], features=tables)
