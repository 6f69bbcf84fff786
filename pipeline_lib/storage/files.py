"""Files that people read, written whole: JSON, tables, copies of artifacts, names that are safe."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from data_contracts.manifests import Manifest
from pipeline_lib.storage.artifact_store import ArtifactStore, parquet_content, write_file


def copy_artifact(store: ArtifactStore, manifest: Manifest, target: Path) -> None:
    """A checked artifact under a name for people: a hard link where the file system allows it, else a copy."""
    source = store.verify(manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(target)


def write_json_file(path: Path, value: Any) -> None:
    """Write a JSON value for people: indented, keys in order of writing."""
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_table_file(path: Path, frames: Sequence[pd.DataFrame], schema: pa.Schema) -> None:
    """Write frames one after the other as one Parquet file in this schema."""
    write_file(path, parquet_content(frames, schema))


def safe_name(name: str) -> str:
    """A file name for any category or client id; different names stay different by a few digits of their SHA-256."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
