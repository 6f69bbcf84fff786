"""Commands on data sets: partition, dataset acquire, validate, stats, synthesize."""

from __future__ import annotations

import re
from pathlib import Path

from data_contracts.config import ExperimentConfig, PreprocessingConfig
from data_contracts.errors import DatasetError
from data_contracts.settings import place_of
from flows.cli.dataset.layouts import chosen_layout
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from flows.cli.progress import show_progress
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.dataset import acquisition, reading, validation
from pipeline_lib.dataset.annotations.outlines import Annotations
from pipeline_lib.dataset.annotations.reading import read_annotations
from pipeline_lib.dataset.contact_sheet import contact_sheet
from pipeline_lib.dataset.groups import assignment as group_assignment
from pipeline_lib.dataset.groups.thumbnails import Thumbnails
from pipeline_lib.dataset.importing import import_category
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.synthetic.dataset import synthesize_dataset
from pipeline_lib.features.preprocessing import collect_normalization_statistics
from pipeline_lib.partition import assignment, saved, statistics


def write_partition(config: ExperimentConfig, out: Path, *, words: list[str], as_json: bool) -> None:
    """Compute and save the partition that `fedpatch run` uses; `words` name the configuration on the command line."""
    root = place_of(config).data_root
    pictures = Thumbnails()
    index = index_dataset(
        root,
        layout=chosen_layout(config.dataset.layout, root),
        categories=config.dataset.categories,
        max_images=config.dataset.max_images,
        look=pictures.add,
    )
    group_of = {}
    if (rule := config.dataset.group) is not None:
        table = group_assignment.assign_groups(index, rule, pictures.to_arrays())
        group_of = group_assignment.group_by_image(table)
    frame = assignment.partition_images(
        index, config.federated, rng=stage_rng(config.seed, "partition"), group_of=group_of
    )
    stats = statistics.compute_partition_stats(index, frame, clients=assignment.client_ids(config.federated))
    saved.save_partition(frame, stats, out)
    if as_json:
        print_json(stats)
        return
    rows = [
        {"client": name, "images": client["total"]}
        | {category: client["by_category"].get(category, 0) for category in stats["by_category"]}
        for name, client in stats["clients"].items()
    ]
    print_table(rows, "images of each client")
    print(f"partition: {out / 'partition.parquet'}")
    say_next("partition", config=words, out=out)


def acquire_dataset(
    out: Path, categories: list[str] | None, base_url: str | None, *, keep_archives: bool, as_json: bool
) -> None:
    """Download and unpack AutoVI, category by category; what is there stays."""
    archives = acquisition.select_archives(categories)
    if not as_json:
        print(acquisition.LICENSE)
    states = {}
    for archive in archives:
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
        print(f"data set: {out}")
        say_next("acquire", root=out)


def import_images(
    good: Path, defective: Path | None, annotations: Path | None, category: str, out: Path, *, as_json: bool
) -> None:
    """Make a category from folders and annotations; what was set aside is named."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", category):
        raise DatasetError(f"--category is {category!r}; it may hold letters, digits, dots, hyphens and underscores")
    if annotations is not None and defective is None:
        raise DatasetError("--annotations are of defective images: give --defective too")
    found = read_annotations(annotations) if annotations is not None else Annotations()
    result = import_category(good, defective, found, out / category)
    if as_json:
        print_json(
            {"directory": str(result.directory), "images": result.images, "masks": result.channels,
             "problems": result.problems}
        )  # fmt: skip
        return
    print_table([{"folder": name, "images": count} for name, count in result.images.items()], category)
    if result.channels:
        print_table([{"defect": name, "masks": count} for name, count in result.channels.items()], "masks")
    for problem in result.problems:
        print(f"warning: {problem}")
    print(f"category: {result.directory}")
    say_next("import", root=out)


def normalization_statistics(root: Path, layout: str, *, as_json: bool) -> None:
    """Mean and standard deviation of each colour over the training images, for preprocessing.mean and std."""
    found = chosen_layout(layout, root)
    index = index_dataset(root, layout=found)
    chosen = index[(index.split == "train") & (index.problem == "")]
    read_as = reading.decide_reading(index, PreprocessingConfig())
    values = {}
    for category, rows in chosen.groupby("category", sort=True):
        width, height = PreprocessingConfig().size(str(category))
        mean, std = collect_normalization_statistics(
            [root / path for path in rows.path], width, height, read_as.of(str(category))
        )
        values[str(category)] = {"mean": [round(v, 4) for v in mean], "std": [round(v, 4) for v in std]}
    if as_json:
        print_json(values)
        return
    print_table([{"category": c, "mean": str(v["mean"]), "std": str(v["std"])} for c, v in values.items()], str(root))
    print("A pretrained backbone does best with its own values; set preprocessing.mean and std only to try others.")


def validate_data(config: ExperimentConfig, *, words: list[str], is_config: bool, as_json: bool) -> None:
    """Print what a check of a data set finds; exit status 1 when there are errors.

    words: what was checked, on the command line; is_config: whether that is a configuration, or a directory alone.
    """
    root, dataset = place_of(config).data_root, config.dataset
    found = chosen_layout(dataset.layout, root)
    pictures = Thumbnails()
    index = index_dataset(
        root,
        layout=found,
        categories=dataset.categories,
        max_images=dataset.max_images,
        require_train="none",
        equal_stems="kept",
        orientation=config.preprocessing.orientation,
        look=pictures.add,
    )
    small = pictures.to_arrays()
    groups = None if dataset.group is None else group_assignment.assign_groups(index, dataset.group, small)
    report = validation.validate_dataset(
        index,
        root,
        layout=found,
        defect_weights=config.evaluation.defect_weights,
        categories=dataset.categories,
        preprocessing=config.preprocessing,
        thumbnails=small,
        groups=groups,
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print(validation.render_validation_text(report))
        if groups is not None:
            alone = int((index["problem"] == "").sum()) - len(groups)
            print(f"groups: {groups['group'].nunique()}, of {len(groups)} images; {alone} images stand alone")
        if report.count("error"):
            say_next("validate, errors", data=words)
        else:
            say_next("validate, configuration" if is_config else "validate", data=words if is_config else words[:1])
    if report.count("error"):
        raise SystemExit(1)


def dataset_stats(root: Path, layout: str, *, as_json: bool) -> None:
    """Print the counts of a data set."""
    found = chosen_layout(layout, root)
    index = index_dataset(root, layout=found, require_train="none", equal_stems="kept")
    counts = validation.validate_dataset(index, root, layout=found).counts
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
        say_next("synthesize", root=root)


def preview_dataset(root: Path, layout: str, out: Path) -> None:
    """Write a picture of the data set."""
    found = chosen_layout(layout, root)
    index = index_dataset(root, layout=found, require_train="none", equal_stems="kept")
    sheet = contact_sheet(index, root, layout=found)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    print(f"picture: {out}")
