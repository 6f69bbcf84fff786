"""Per-image counts of a run in its directory, from which runs are compared on the same images.

samples/<category>.npz; for clients that train alone clients/<client>/samples/<category>.npz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.errors import ArtifactError
from data_contracts.manifests import LocalClient, MeasuredCategory
from pipeline_lib.dataset.groups.assignment import group_by_image
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.metrics.bootstrap import ImageSample, in_order
from pipeline_lib.models.model_file import GROUPS_FILE
from pipeline_lib.results.local import CLIENTS_DIRECTORY
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.files import copy_artifact, safe_name

SAMPLES_DIRECTORY = "samples"


def write_samples(
    out: Path, store: ArtifactStore, measured: Sequence[MeasuredCategory], local: Sequence[LocalClient] = ()
) -> None:
    """Write the counts of every measured category, and of every client that trains alone."""
    places = [(out, measured)]
    places += [(out / CLIENTS_DIRECTORY / safe_name(client.client_id), client.measured) for client in local]
    for place, categories in places:
        for category in categories:
            if category.sample is not None:
                name = f"{safe_name(category.category)}.npz"
                copy_artifact(store, category.sample, place / SAMPLES_DIRECTORY / name)


def read_samples(run_directory: Path, *, subset: str = "all") -> Iterator[tuple[str, list[ImageSample]]]:
    """Category (as a file name) -> the run's sample, or that of each client, of one subset of the test images.

    One category in memory at a time. Raises ArtifactError where a file cannot be read.
    """
    files: dict[str, list[Path]] = {}
    for pattern in (f"{SAMPLES_DIRECTORY}/*.npz", f"{CLIENTS_DIRECTORY}/*/{SAMPLES_DIRECTORY}/*.npz"):
        for path in sorted(run_directory.glob(pattern)):
            files.setdefault(path.stem, []).append(path)
    keep = _keep(run_directory, subset)
    for category in sorted(files):
        yield category, [in_order(_read(path), keep) for path in files[category]]


def _keep(run_directory: Path, subset: str) -> Callable[[str], bool]:
    if subset == "all":
        return lambda image_id: True
    tables = [*run_directory.glob("scores.parquet"), *run_directory.glob(f"{CLIENTS_DIRECTORY}/*/scores.parquet")]
    sha256 = {i: s for path in tables for i, s in pd.read_parquet(path)[["image_id", "sha256"]].itertuples(index=False)}
    group_of = read_groups(run_directory)
    return lambda image_id: half_of(sha256[image_id], group_of.get(image_id)) == subset


def read_groups(run_directory: Path) -> dict[str, str]:
    """image_id -> group of a run's images that do not stand alone; empty for a run without groups."""
    file = run_directory / GROUPS_FILE
    return group_by_image(pd.read_parquet(file)) if file.is_file() else {}


def _read(path: Path) -> ImageSample:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ImageSample.from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
