"""The first steps: index and validation, partition."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from data_contracts.manifests import IndexedDataset, Manifest, Partition, PreparedDataset
from flows.steps.run import Run
from flows.steps.running import submit
from tasks.data import (
    fingerprint_dataset,
    fingerprint_groups,
    fingerprint_partition,
    group_images,
    index_dataset,
    partition_dataset,
    refuse_too_few_groups,
    validate_dataset,
)
from tasks.stage import on_store


def prepare_dataset(run: Run) -> PreparedDataset:
    """The data set's index and validation, and who holds which training images."""
    indexed, validation = index_and_validate(run)
    return PreparedDataset(indexed=indexed, validation=validation, partition=partition_images(run, indexed))


def index_and_validate(run: Run) -> tuple[IndexedDataset, Any]:
    config, place = run.config, run.place
    with run.clock.stage("index"):
        fingerprint = submit(run.runner, fingerprint_dataset, dataset=config.dataset, place=place).result()
        dataset = config.dataset.model_copy(update={"root": None, "group": None})
        indexed = submit(
            run.runner,
            on_store(index_dataset, place),
            fingerprint=fingerprint,
            dataset=dataset,
            value_range=config.preprocessing.value_range,
            orientation=config.preprocessing.orientation,
            place=place,
        ).result()
        if config.dataset.group is not None:
            indexed = indexed.model_copy(update={"groups": group_all(run, indexed)})
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


def group_all(run: Run, indexed: IndexedDataset) -> Manifest:
    rule = run.config.dataset.group
    return submit(
        run.runner,
        on_store(group_images, run.place),
        index=indexed.index,
        thumbnails=indexed.thumbnails,
        rule=rule,
        fingerprint=submit(run.runner, fingerprint_groups, rule=rule).result(),
        place=run.place,
    ).result()


def partition_images(run: Run, indexed: IndexedDataset) -> Partition:
    config = run.config
    with run.clock.stage("partition"):
        partition = submit(
            run.runner,
            on_store(partition_dataset, run.place),
            index=indexed.index,
            federated=config.federated,
            saved=submit(run.runner, fingerprint_partition, federated=config.federated).result(),
            groups=indexed.groups if config.federated.partition_groups else None,
            seed=config.seed,
            place=run.place,
        ).result()
        submit(
            run.runner,
            refuse_too_few_groups,
            indexed=indexed,
            partition=partition,
            config=config,
            place=run.place,
        ).result()
    for client in partition.skipped_clients:
        get_run_logger().warning("client %s has no images and is skipped; min_clients: all does not count it", client)
    return partition
