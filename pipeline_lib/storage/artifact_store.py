"""The one writer and reader of artifacts: content-addressed files, written whole or not at all, checked on every read.

Layout below the root::

    objects/<kind>/<first two hex digits>/<sha256>.<suffix>   the artifacts, named by their content
    index/<space>/<key>.json                                  small records: key -> anything of JSON

A file appears under its final name only after it was written to a temporary file beside it, flushed to disk and
renamed, so that a killed process leaves at most a temporary file that `prune` removes. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import ArtifactError
from data_contracts.manifests import ArtifactKind, Manifest
from data_contracts.settings import default_store
from pipeline_lib.storage.parsing import parsed

TEMPORARY_SUFFIX = ".tmp"
USE_NOTED_SECONDS = 3600.0  # a file's time says when it was last used, to the hour


def write_file(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write `content` to `path` whole or not at all (temporary file, flush to disk, rename).

    `durable=False` leaves out the flush; use it only where a reader checks a hash.
    Raises ArtifactError when the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # it may be in what is no directory
            temporary.unlink()
        raise ArtifactError(f"cannot write {path} ({len(content)} bytes): {error.strerror or error}") from error


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checked(path: Path, sha256: str, what: str) -> bytes:
    """The content of a file that must have this SHA-256 (hex).

    Raises ArtifactError, naming `what` and the file, when it cannot be read or is another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"{what} {path} is damaged: its SHA-256 does not match")
    return content


def note_use(path: Path) -> None:
    """Set a file's modification time to now, at most once an hour: retention goes by last use.

    A file that may not be touched (a store that is read-only here) keeps its time.
    """
    try:
        if time.time() - path.stat().st_mtime > USE_NOTED_SECONDS:
            os.utime(path)
    except OSError:
        return


def parquet_content(frames: Sequence[pd.DataFrame], schema: pa.Schema) -> memoryview:
    """Frames one after the other as one Parquet file in exactly this schema."""
    tables = [pa.Table.from_pandas(frame, schema=schema, preserve_index=False) for frame in frames if len(frame)]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    return memoryview(sink.getvalue())


class ArtifactStore:
    """A directory of artifacts. Writers return manifests, readers take them and check the SHA-256."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_store()

    def path(self, manifest: Manifest) -> Path:
        """Where the artifact lies."""
        return self.root / manifest.path

    # --- writing -----------------------------------------------------------------------------------------------

    def write_bytes(
        self,
        kind: ArtifactKind,
        content: bytes | memoryview,
        *,
        suffix: str,
        rows: int = 0,
        durable: bool = True,
        keep: bool = True,
    ) -> Manifest:
        """Store `content`; the same content twice is one file. Without `keep` only say what its manifest is."""
        digest = hashlib.sha256(content).hexdigest()
        relative = f"objects/{kind}/{digest[:2]}/{digest}.{suffix}"
        manifest = Manifest(kind=kind, path=relative, sha256=digest, size_bytes=len(content), rows=rows)
        if not keep:
            return manifest
        path = self.root / relative
        if not (path.is_file() and path.stat().st_size == len(content) and sha256_of_file(path) == digest):
            write_file(path, content, durable=durable)
        note_use(path)
        return manifest

    def write_arrays(
        self, kind: ArtifactKind, arrays: Mapping[str, np.ndarray], *, rows: int, compressed: bool = False
    ) -> Manifest:
        """Store named arrays as one npz, uncompressed unless asked for."""
        buffer = io.BytesIO()
        save = np.savez_compressed if compressed else np.savez
        save(buffer, allow_pickle=False, **dict(arrays))
        return self.write_bytes(kind, buffer.getbuffer(), suffix="npz", rows=rows)

    def write_array(
        self, kind: ArtifactKind, array: np.ndarray, *, durable: bool = True, keep: bool = True
    ) -> Manifest:
        """Store one array as npy; `rows` is its first dimension. `keep` as in `write_bytes`."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return self.write_bytes(kind, buffer.getbuffer(), suffix="npy", rows=len(array), durable=durable, keep=keep)

    def write_table(self, kind: ArtifactKind, frame: pd.DataFrame, schema: pa.Schema) -> Manifest:
        """Store a table as Parquet in exactly this schema."""
        return self.write_bytes(kind, parquet_content([frame], schema), suffix="parquet", rows=len(frame))

    def write_json(self, kind: ArtifactKind, value: Any, *, rows: int = 0) -> Manifest:
        """Store a JSON value (sorted keys)."""
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        return self.write_bytes(kind, text.encode(), suffix="json", rows=rows)

    # --- reading -----------------------------------------------------------------------------------------------

    def verify(self, manifest: Manifest) -> Path:
        """The artifact's path, after its content was checked.

        Raises ArtifactError, naming the file and what is wrong, when it is missing or damaged.
        """
        path = self.path(manifest)
        if not path.is_file():
            raise ArtifactError(f"artifact {manifest.kind} is missing: {path}")
        if path.stat().st_size != manifest.size_bytes or sha256_of_file(path) != manifest.sha256:
            raise ArtifactError(f"artifact {manifest.kind} is damaged (its SHA-256 does not match): {path}")
        note_use(path)
        return path

    def is_intact(self, manifest: Manifest) -> bool:
        """Whether `verify` would pass."""
        try:
            self.verify(manifest)
        except ArtifactError:
            return False
        return True

    def read_bytes(self, manifest: Manifest) -> bytes:
        """The artifact's checked content, read once. Raises ArtifactError as `verify` does."""
        path = self.path(manifest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"artifact {manifest.kind} is missing: {path} ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != manifest.sha256:
            raise ArtifactError(f"artifact {manifest.kind} is damaged (its SHA-256 does not match): {path}")
        note_use(path)
        return content

    def read_arrays(self, manifest: Manifest) -> dict[str, np.ndarray]:
        """The arrays of an npz artifact."""
        content = self.read_bytes(manifest)

        def load() -> dict[str, np.ndarray]:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}

        return parsed(load)

    def read_array(self, manifest: Manifest) -> np.ndarray:
        """The array of an npy artifact."""
        content = self.read_bytes(manifest)
        array: np.ndarray = parsed(lambda: np.load(io.BytesIO(content), allow_pickle=False))
        return array

    def read_table(self, manifest: Manifest) -> pd.DataFrame:
        """The table of a Parquet artifact."""
        file = pq.ParquetFile(pa.BufferReader(self.read_bytes(manifest)))  # read_table imports pyarrow's data sets
        frame: pd.DataFrame = file.read().to_pandas()
        return frame

    def read_json(self, manifest: Manifest) -> Any:
        """The value of a JSON artifact."""
        return json.loads(self.read_bytes(manifest))

    # --- records -----------------------------------------------------------------------------------------------

    def remember(self, space: str, key: str, value: Any) -> None:
        """Record a JSON value under (space, key)."""
        write_file(self._record(space, key), json.dumps(value, sort_keys=True).encode(), durable=False)

    def recall(self, space: str, key: str) -> Any | None:
        """The recorded value; None where there is none or it cannot be read."""
        try:
            return json.loads(self._record(space, key).read_bytes())
        except (OSError, ValueError):
            return None

    def _record(self, space: str, key: str) -> Path:
        return self.root / "index" / space / key[:2] / f"{key}.json"
