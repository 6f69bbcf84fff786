"""Partitions on disk: written once, loaded exactly by everybody who compares on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.config import canonical_hash
from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.tables import PARTITION
from pipeline_lib.dataset.layout import natural_order
from pipeline_lib.storage.artifact_store import parquet_content, write_file

FILE = "partition.parquet"


def save_partition(partition: pd.DataFrame, stats: Mapping[str, Any], directory: Path | str) -> Path:
    """Write partition.parquet and partition_stats.json; returns the directory."""
    directory = Path(directory)
    write_file(directory / FILE, parquet_content([partition], PARTITION))
    text = json.dumps(stats, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_file(directory / "partition_stats.json", text.encode())
    return directory


def load_partition(directory: Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `save_partition` wrote to a directory, which may be named by its partition.parquet: frame and statistics.

    Raises ArtifactError when a file is missing, damaged or of another schema.
    """
    directory = Path(directory)
    directory = directory.parent if directory.name == FILE else directory
    try:
        table = pq.read_table(directory / FILE)
        stats = json.loads((directory / "partition_stats.json").read_bytes())
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise ArtifactError(f"cannot read a partition in {directory}: {error}") from error
    if table.schema.names != PARTITION.names:
        raise ArtifactError(
            f"{directory / 'partition.parquet'} has the columns {table.schema.names}, not {PARTITION.names}"
        )
    return table.cast(PARTITION).to_pandas(), stats


def saved_clients(directory: Path | str) -> tuple[str, ...]:
    """The clients of a saved partition, in natural order, with those that its statistics list without images."""
    frame, stats = load_partition(directory)
    return tuple(sorted({*frame["client_id"], *stats.get("clients", {})}, key=natural_order))


def saved_assignment(image_ids: Sequence[str], directory: Path | str) -> pd.DataFrame:
    """The saved client of each of these images, in their order (schema PARTITION); images beside them are left out.

    Raises ConfigError when the saved partition gives an image to nobody: it was made of other images.
    """
    frame, _ = load_partition(directory)
    client_of = dict(zip(frame["image_id"], frame["client_id"], strict=True))
    missing = [image_id for image_id in image_ids if image_id not in client_of]
    if missing:
        raise ConfigError(
            f"federated.partition_path: the partition in {directory} gives {len(missing)} of {len(image_ids)} training "
            f"images to nobody, such as {missing[0]}; it was made of other images"
        )
    return pd.DataFrame({"image_id": list(image_ids), "client_id": [client_of[image_id] for image_id in image_ids]})


def saved_shards(image_ids: Sequence[str], directory: Path | str) -> dict[str, list[int]]:
    """Client id -> positions in `image_ids`, ascending. Raises as `saved_assignment` does."""
    shards: dict[str, list[int]] = {client: [] for client in saved_clients(directory)}
    for position, client in enumerate(saved_assignment(image_ids, directory)["client_id"]):
        shards[client].append(position)
    return shards


def partition_fingerprint(directory: Path | str) -> str:
    """Hash of who holds which image in a saved partition."""
    frame, stats = load_partition(directory)
    return canonical_hash([frame.to_numpy().tolist(), sorted(stats.get("clients", {}))])
