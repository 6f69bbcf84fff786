"""What an experiment will make, before anything runs: images, patches, rows and upload bytes, by client and bank.

The images are listed, not read, and partitioned as the run does it; the patch grid comes from the backbone on tensors
without data. So patches and rows are those of the run, as long as no image turns out to be unreadable.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError, QuorumError
from data_contracts.federation import quorum_out_of_reach
from data_contracts.manifests import GLOBAL_BANK
from data_contracts.settings import AggregationSettings, BackboneSettings, CoresetSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.selection import coreset_size
from pipeline_lib.dataset.groups.assignment import named_groups
from pipeline_lib.dataset.image_files import loose_images
from pipeline_lib.dataset.layout import find_images, refuse_equal_stems, resolved_layout, select_categories, thin_out
from pipeline_lib.metrics.thresholds import refuse_unbounded
from pipeline_lib.partition.assignment import client_ids, partition_images
from pipeline_lib.planning.backbone_trial import GridOf, patch_grid, try_backbone, unweighted
from pipeline_lib.planning.extension_trial import try_extensions
from pipeline_lib.upload import codec
from pipeline_lib.upload.counts import BYTES_PER_COUNT

SAMPLES = 5
NPZ_BYTES = 1024  # names and headers of an upload's arrays


@dataclass(frozen=True)
class PlannedImages:
    """Images of one category and split; sizes in pixels, (width, height)."""

    images: int
    patches: int
    resized_px: tuple[int, int]
    native_px: tuple[int, int]  # of the first image
    defective: int = 0
    samples: tuple[Path, ...] = ()  # some of the files, evenly spaced


@dataclass(frozen=True)
class PlannedClient:
    """What one client holds and sends."""

    client_id: str
    images: int
    patches: int
    coreset_rows: dict[str, int]  # by bank
    upload_bytes: int  # at most
    image_bytes: int = 0  # of its image files; 0: not known

    @property
    def patches_by_bank(self) -> dict[str, int]:
        """In proportion to the bank's rows, rounded up."""
        rows = sum(self.coreset_rows.values())
        return {bank: -(-self.patches * own // rows) for bank, own in self.coreset_rows.items()}


@dataclass(frozen=True)
class ExperimentPlan:
    """The counts of one experiment."""

    config: ExperimentConfig
    dim: int
    train: dict[str, PlannedImages]  # by category
    test: dict[str, PlannedImages]
    clients: list[PlannedClient]  # those that have images
    bank_rows: dict[str, int]
    backbone: BackboneSettings = field(repr=False)  # with random weights: sizes and speed are those of any weights
    skipped_clients: tuple[str, ...] = ()  # without images

    @property
    def patches(self) -> int:
        """Patches of all images, training and test."""
        return sum(part.patches for part in [*self.train.values(), *self.test.values()])


def plan_experiment(config: ExperimentConfig, root: Path, *, grid_of: GridOf = patch_grid) -> ExperimentPlan:
    """Count what a run of `config` on the data set at `root` makes.

    Raises DatasetError or ConfigError as the run would; QuorumError where fewer clients have images than must deliver.
    """
    index = list_images(config, root)
    if not len(index):
        raise DatasetError(f"no image found in {root} for layout {config.dataset.layout}; {loose_images(root)}")
    try_extensions(config, index=index)
    try_backbone(config, root, grid_of=grid_of)
    backbone = unweighted(config)
    sizes = {category: config.preprocessing.size(category) for category in dict.fromkeys(index.category)}
    grids = {size: grid_of(backbone, *size) for size in sorted(set(sizes.values()))}
    dim = next(iter(grids.values()))[2]
    per_image = {category: grids[size][0] * grids[size][1] for category, size in sizes.items()}
    parts = {
        split: {
            str(category): PlannedImages(
                images=len(rows),
                patches=len(rows) * per_image[category],
                resized_px=sizes[category],
                native_px=_native_size(root / rows.path.iloc[0], default=sizes[category]),
                defective=int((rows.label_index == 1).sum()),
                samples=tuple(root / path for path in rows.path.iloc[:: max(1, len(rows) // SAMPLES)][:SAMPLES]),
            )
            for category, rows in index[index.split == split].groupby("category", sort=True)
        }
        for split in ("train", "test")
    }
    group_of = named_groups(index, config.dataset.group)
    partition = partition_images(
        index, config.federated, rng=stage_rng(config.seed, "partition"), group_of=group_of or {}
    )
    if config.dataset.group != "found":
        refuse_unbounded(index[index.split == "train"], config.decision, group_of)
    owned = index.merge(partition, on="image_id")
    names = client_ids(config.federated)
    clients = [
        _client(config, name, rows, root, per_image, dim)
        for name in names
        if len(rows := owned[owned.client_id == name])
    ]
    skipped = tuple(sorted(set(names) - {client.client_id for client in clients}))
    if problem := quorum_out_of_reach(
        min_clients=config.federated.quorum, n_clients=len(clients), empty_clients=skipped
    ):
        raise QuorumError(problem)
    patches_of_bank: Counter[str] = Counter()
    for category, part in parts["train"].items():
        patches_of_bank[GLOBAL_BANK if config.aggregation.bank_scope == "global" else category] += part.patches
    bank_rows = {bank: _bank_rows(config, bank, clients, patches) for bank, patches in sorted(patches_of_bank.items())}
    return ExperimentPlan(config, dim, parts["train"], parts["test"], clients, bank_rows, backbone, skipped)


def list_images(config: ExperimentConfig, root: Path) -> pd.DataFrame:
    """The columns of a dataset index that need no image to be read. Raises DatasetError as `index_dataset`."""
    dataset = config.dataset
    rows = []
    layout = resolved_layout(dataset.layout, root)
    for category, directory in select_categories(root, layout=layout, categories=dataset.categories).items():
        images = list(find_images(category, directory, layout))
        refuse_equal_stems(images)
        for image in thin_out(images, dataset.max_images):
            rows.append(
                {
                    "image_id": image.image_id,
                    "category": category,
                    "split": image.split,
                    "label": image.label,
                    "label_index": int(image.label != "good"),
                    "path": image.path.relative_to(root).as_posix(),
                    "problem": "",
                }
            )
    columns = ["image_id", "category", "split", "label", "label_index", "path", "problem"]
    return pd.DataFrame(rows, columns=columns)


def _native_size(path: Path, *, default: tuple[int, int]) -> tuple[int, int]:
    """From the file's head; the run itself says what is wrong with an image."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return default


def _file_bytes(path: Path) -> int:
    """0 for one that is not there; the run itself says so."""
    return path.stat().st_size if path.is_file() else 0


def _client(
    config: ExperimentConfig, client_id: str, rows: pd.DataFrame, root: Path, per_image: dict[str, int], dim: int
) -> PlannedClient:
    settings = CoresetSettings.of(config, client_id)
    patches: Counter[str] = Counter()
    for category in rows.category:
        patches[GLOBAL_BANK if settings.bank_scope == "global" else str(category)] += per_image[category]
    coreset = {bank: coreset_size(settings.ratio, n, round_up=settings.round_up) for bank, n in sorted(patches.items())}
    bytes_per_row = dim * codec.BYTES_PER_VALUE[settings.codec]
    bytes_per_row += BYTES_PER_COUNT if settings.rows == "cell_means" else 0
    return PlannedClient(
        client_id=client_id,
        images=len(rows),
        patches=sum(patches.values()),
        coreset_rows=coreset,
        upload_bytes=sum(n * bytes_per_row + NPZ_BYTES for n in coreset.values()),
        image_bytes=sum(_file_bytes(root / path) for path in rows.path),
    )


def _bank_rows(config: ExperimentConfig, bank: str, clients: list[PlannedClient], n_patches: int) -> int:
    """As pipeline_lib.server.aggregation does it."""
    settings = AggregationSettings.of(config)
    sent = sum(client.coreset_rows.get(bank, 0) for client in clients)
    target = settings.target_rows
    if target is None and settings.strategy != "simple_concatenate":
        target = min(n_patches, max(1, round(settings.coreset_percentage * n_patches)))
    return sent if target is None else min(sent, target)
