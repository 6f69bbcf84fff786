"""Commands on data sets: partition, dataset acquire, validate, stats, synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError
from flows.cli.printing import print_json, print_table
from flows.cli.progress import show_progress
from pipeline_lib import acquisition, partition, partition_stats, validation
from pipeline_lib.contact_sheet import contact_sheet
from pipeline_lib.dataset_index import index_dataset
from pipeline_lib.seeding import stage_rng
from pipeline_lib.synthetic import synthesize_dataset


def write_partition(config: ExperimentConfig, out: Path, *, as_json: bool) -> None:
    """Compute and save the partition that `fedpatch run` uses with this configuration."""
    if config.dataset.root is None:
        raise DatasetError("dataset.root: not given; say where the data set lies, such as --set dataset.root=/data")
    index = index_dataset(
        config.dataset.root,
        layout=config.dataset.layout,
        categories=config.dataset.categories,
        max_images=config.dataset.max_images,
    )
    frame = partition.partition_images(index, config.federated, rng=stage_rng(config.seed, "partition"))
    stats = partition_stats.compute_partition_stats(index, frame, clients=partition.client_ids(config.federated))
    partition.save_partition(frame, stats, out)
    if as_json:
        print_json(stats)
        return
    rows = [
        {"client": name, "images": client["total"], **client["by_category"]}
        for name, client in stats["clients"].items()
    ]
    print_table(rows, "images of each client")
    print(f"partition: {out / 'partition.parquet'}")


def acquire_dataset(
    out: Path, categories: list[str] | None, base_url: str | None, *, keep_archives: bool, as_json: bool
) -> None:
    """Download and unpack AutoVI, category by category; what is there stays."""
    if not as_json:
        print(acquisition.LICENSE)
    states = {}
    for archive in acquisition.select_archives(categories):
        with show_progress(f"{archive.category}: bytes", quiet=as_json) as progress:
            states[archive.category] = acquisition.acquire_category(
                archive,
                out,
                base_url=base_url or acquisition.BASE_URL,
                keep_archive=keep_archives,
                progress=progress,
            )
        if not as_json:
            print(f"{archive.category}: {states[archive.category]}")
    if as_json:
        print_json({"root": str(out), "license": acquisition.LICENSE, "categories": states})
    else:
        print(f"data set: {out}; check it with fedpatch dataset validate {out}")


def validate_root(root: Path, layout: Any, *, as_json: bool) -> None:
    """Print what a check of a data set finds; exit status 1 when there are errors."""
    index = index_dataset(root, layout=layout, require_train="none")
    report = validation.validate_dataset(index, root, layout=layout)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print(validation.render_validation_text(report))
    if report.count("error"):
        raise SystemExit(1)


def dataset_stats(root: Path, layout: Any, *, as_json: bool) -> None:
    """Print the counts of a data set."""
    index = index_dataset(root, layout=layout, require_train="none")
    counts = validation.validate_dataset(index, root, layout=layout).counts
    if as_json:
        print_json(counts)
        return
    rows = [
        {"category": category, "split": split, "folder": label, "images": number}
        for category, splits in counts.items()
        for split, labels in splits.items()
        for label, number in labels.items()
    ]
    print_table(rows, f"{root}")


def synthesize_root(
    out: Path, scale: float, seed: int, images: int | None, categories: list[str] | None, *, as_json: bool
) -> None:
    """Make an AutoVI-like data set."""
    with show_progress("synthesize", quiet=as_json) as progress:
        root = synthesize_dataset(
            out,
            categories=tuple(categories) if categories else None,
            images=images,
            scale=scale,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json({"root": str(root)})
    else:
        print(f"data set: {root}")


def preview_dataset(root: Path, layout: Any, out: Path) -> None:
    """Write a picture of the data set."""
    sheet = contact_sheet(index_dataset(root, layout=layout, require_train="none"), root, layout=layout)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    print(f"picture: {out}")
