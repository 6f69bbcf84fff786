"""Tasks on the data set: index it, check it, cut it into clients."""

from __future__ import annotations

from prefect import get_run_logger

from data_contracts.config import (
    DatasetConfig,
    ExperimentConfig,
    FederatedConfig,
    GroupRule,
    ModelConfig,
    Orientation,
    PreprocessingConfig,
)
from data_contracts.manifests import ClientImages, IndexedDataset, Manifest, Partition
from data_contracts.settings import BackboneSettings, Place
from data_contracts.tables import CLIENT_IMAGES, DATASET_INDEX, IMAGE_GROUPS, PARTITION
from pipeline_lib.configuration import seeding
from pipeline_lib.dataset import index as dataset_index
from pipeline_lib.dataset import layout, reading, validation
from pipeline_lib.dataset.groups import assignment as group_assignment
from pipeline_lib.dataset.groups import thumbnails
from pipeline_lib.features import backbone
from pipeline_lib.metrics import thresholds
from pipeline_lib.partition import assignment, statistics
from pipeline_lib.partition import saved as saved_partition
from pipeline_lib.storage.artifact_store import ArtifactStore
from tasks.progress import progress_log
from tasks.stage import RETRIED, open_store, stage, step


@step("fingerprint-dataset")
def fingerprint_dataset(dataset: DatasetConfig, place: Place) -> str:
    """A hash that changes when any file of the data set does; cheap, so that it runs every time."""
    return dataset_index.dataset_fingerprint(place.data_root, layout=dataset.layout, categories=dataset.categories)


def found_layout(config: ExperimentConfig, place: Place) -> ExperimentConfig:
    """The configuration with the layout that the data set has, where it leaves that open."""
    if config.dataset.layout != "auto":
        return config
    found, shown_by = layout.detect_layout(place.data_root)
    get_run_logger().info("layout %s, shown by %s; another: dataset.layout", found, shown_by)
    return config.with_layout(found)


@step("resolve-backbone", **RETRIED)
def resolve_backbone(model: ModelConfig, preprocessing: PreprocessingConfig, seed: int) -> BackboneSettings:
    """Fill in the backbone's layers, mean and std, and find its weights."""
    return backbone.resolve_backbone(model, preprocessing, seed=seed)


@stage("index-dataset")
def index_dataset(
    fingerprint: str, dataset: DatasetConfig, value_range: str | int, orientation: Orientation, place: Place
) -> IndexedDataset:
    """Find, open and hash every image (DESIGN artifact 1), and decide how its pixels are read."""
    store = open_store(place)
    pictures = thumbnails.Thumbnails()
    index = dataset_index.index_dataset(
        place.data_root,
        layout=dataset.layout,
        categories=dataset.categories,
        max_images=dataset.max_images,
        require_train="each" if dataset.on_bad_image == "fail" else "any",
        orientation=orientation,
        progress=progress_log("images indexed"),
        look=pictures.add,
    )
    read_as = reading.decide_reading(
        index, PreprocessingConfig.model_validate({"value_range": value_range, "orientation": orientation})
    )
    index = reading.without_brighter(index, read_as.value_ranges)
    if dataset.on_bad_image == "fail":
        dataset_index.refuse_bad_images(index)
    found = layout.select_categories(place.data_root, layout=dataset.layout, categories=dataset.categories)
    small = pictures.to_arrays()
    categories = tuple(found)  # also those without a single image
    truth = {
        category: dataset_index.ground_truth_sha256(index, place.data_root, category, layout=dataset.layout)
        for category in categories
    }
    manifest = store.write_table("dataset_index", index, DATASET_INDEX)
    return IndexedDataset(
        index=manifest,
        categories=categories,
        truth_sha256=truth,
        test_images={
            category: store.write_table("test_images", rows, DATASET_INDEX)
            for category in categories
            if len(rows := dataset_index.category_test_table(index, category))
        },
        n_set_aside=int((index.problem != "").sum()),
        reading=read_as,
        thumbnails=store.write_arrays("thumbnails", small, rows=len(small["image_ids"])),
    )


@step("fingerprint-groups")
def fingerprint_groups(rule: GroupRule) -> str | None:
    """A hash of the file that names the groups, or None where they come from elsewhere."""
    return group_assignment.rule_fingerprint(rule)


@stage("group-images")
def group_images(
    index: Manifest, thumbnails: Manifest, rule: GroupRule, fingerprint: str | None, place: Place
) -> Manifest:
    """Which images show one part, one place or one tile (`dataset.group`)."""
    store = open_store(place)
    table = group_assignment.assign_groups(store.read_table(index), rule, store.read_arrays(thumbnails))
    return store.write_table("image_groups", table, IMAGE_GROUPS)


@stage("validate-dataset")
def validate_dataset(
    fingerprint: str,
    indexed: IndexedDataset,
    dataset: DatasetConfig,
    preprocessing: PreprocessingConfig,
    defect_weights: dict[str, float] | str,
    place: Place,
) -> Manifest:
    """Check images and masks; findings are listed, nothing is fatal."""
    store = open_store(place)
    report = validation.validate_dataset(
        store.read_table(indexed.index),
        place.data_root,
        layout=dataset.layout,
        defect_weights=defect_weights,
        categories=dataset.categories,
        preprocessing=preprocessing,
        thumbnails=store.read_arrays(indexed.thumbnails) if indexed.thumbnails else None,
        groups=store.read_table(indexed.groups) if indexed.groups else None,
    )
    return store.write_json("validation_report", report.model_dump(mode="json"), rows=len(report.findings))


@step("refuse-too-few-groups")
def refuse_too_few_groups(
    indexed: IndexedDataset, partition: Partition, config: ExperimentConfig, place: Place
) -> None:
    """Raise ConfigError where `decision.promise: bound` asks for more normal images, or groups, than there are."""
    store = ArtifactStore(place.store)
    held = store.read_table(partition.table).merge(store.read_table(indexed.index), on="image_id")
    alone = config.federated.mode == "local_only"
    parts = [rows for _, rows in held.groupby("client_id", sort=True)] if alone else [held]
    group_of = group_assignment.stored_groups(store, indexed.groups) if indexed.groups else None
    for part in parts:
        thresholds.refuse_unbounded(part, config.decision, group_of)


@step("fingerprint-partition")
def fingerprint_partition(federated: FederatedConfig) -> str | None:
    """A hash of the saved partition's content, or None where the partition is made."""
    if federated.mode == "centralized" or federated.partition_path is None:
        return None
    return saved_partition.partition_fingerprint(federated.partition_path)


@stage("partition-dataset")
def partition_dataset(
    index: Manifest, federated: FederatedConfig, saved: str | None, groups: Manifest | None, seed: int, place: Place
) -> Partition:
    """Give every training image to one client (DESIGN artifact 2); clients without images are skipped and listed."""
    store = open_store(place)
    table = store.read_table(index)
    group_of = group_assignment.stored_groups(store, groups)
    rng = seeding.stage_rng(seed, "partition")
    frame = assignment.partition_images(table, federated, rng=rng, group_of=group_of)
    names = ("centralized",) if federated.mode == "centralized" else assignment.client_ids(federated)
    clients = []
    for name in names:
        rows = assignment.client_table(table, frame, name)
        if len(rows):
            images = store.write_table("client_images", rows, CLIENT_IMAGES)
            clients.append(ClientImages(client_id=name, images=images, categories=tuple(sorted(set(rows.category)))))
    stats = statistics.compute_partition_stats(table, frame, clients=names)
    return Partition(
        table=store.write_table("partition", frame, PARTITION),
        stats=store.write_json("partition_stats", stats),
        clients=tuple(clients),
        skipped_clients=tuple(sorted(set(names) - {client.client_id for client in clients})),
    )
