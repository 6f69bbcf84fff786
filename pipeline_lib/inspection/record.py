"""The record of decisions: tables that grow, and are never written over."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import ArtifactError
from data_contracts.tables import DECISIONS
from pipeline_lib.maps.regions import Region
from pipeline_lib.storage.artifact_store import TEMPORARY_SUFFIX
from pipeline_lib.storage.file_lock import lock_descriptor, remove_locked

DECISION_COLUMNS = tuple(name for name in DECISIONS.names if name != "regions")
"""No JSON: `nearest_normal` is the origin of the normal patch that is most like the image's highest one."""

REGION_COLUMNS = ("row", "path", *(field.name for field in fields(Region)))
"""`row` is that of the image in decisions.csv, from 0."""

NEIGHBOR_COLUMNS = (
    "row", "path", "patch", "score", "center_x", "center_y", "rank", "distance", "client", "image_id", "bank_row",
)  # fmt: skip
"""A row for each normal patch that explains an image; `patch` and `rank` from 1, the center in shares of the image."""

CSV_TABLES = {"decisions": DECISION_COLUMNS, "regions": REGION_COLUMNS, "nearest_normal": NEIGHBOR_COLUMNS}
ROWS_IN_MEMORY = 1000


class DecisionRecord:
    """decisions.csv, regions.csv, nearest_normal.csv and decisions.parquet of a directory, open for more rows.

    A row is on the disk when `add` returns, in the CSV files; the Parquet file follows every ROWS_IN_MEMORY rows and at
    the end. Where one of them has other columns, is damaged or is being written by someone else, all go to
    <name>-<start>, start in UTC.
    """

    def __init__(self, out: Path) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        tables = (_open_tables(out, suffix) for suffix in _suffixes(start))
        self._tables, self._parquet = next(found for found in tables if found is not None)
        self._rows: list[dict[str, object]] = []

    @property
    def path(self) -> Path:
        """The table of decisions."""
        return self._tables[0].path

    @property
    def n_rows(self) -> int:
        """Of the table of decisions, those of earlier sessions among them."""
        return self._tables[0].n_rows

    def add(self, row: dict[str, object]) -> None:
        """One image in the schema DECISIONS. Raises ArtifactError where it cannot be written."""
        decisions, regions, neighbors = self._tables
        image = {"row": decisions.n_rows, "path": row["path"]}
        nearest = [image | neighbor for neighbor in _neighbors(json.loads(str(row["nearest_normal"])))]
        name = (nearest[0]["image_id"] or nearest[0]["client"] or "") if nearest else ""
        # first: a killed session leaves no regions that the next image would take over
        decisions.append([row | {"nearest_normal": name}])
        self._rows.append(row)
        regions.append([image | region for region in json.loads(str(row["regions"]))])
        neighbors.append(nearest)
        if len(self._rows) >= ROWS_IN_MEMORY:
            self._write_parquet()

    def close(self) -> None:
        """Write what is left. Raises ArtifactError where it cannot be written; the CSV files have it all."""
        try:
            self._write_parquet()
        finally:
            for table in self._tables:
                table.close()

    def _write_parquet(self) -> None:
        if not self._rows:
            return
        rows = pd.DataFrame(self._rows, columns=DECISIONS.names)
        temporary = self._parquet.with_name(f".{self._parquet.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
        try:
            with temporary.open("wb") as file:
                with pq.ParquetWriter(file, DECISIONS, compression="zstd") as writer:
                    if self._parquet.exists():
                        with pq.ParquetFile(self._parquet) as earlier:
                            for batch in earlier.iter_batches():
                                writer.write_batch(batch)
                    writer.write_table(pa.Table.from_pandas(rows, schema=DECISIONS, preserve_index=False))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._parquet)
        except (OSError, pa.ArrowException) as error:
            temporary.unlink(missing_ok=True)
            raise ArtifactError(f"cannot write {self._parquet}: {error}") from error
        self._rows.clear()


def _neighbors(patches: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cells of nearest_normal.csv from the JSON of an image."""
    for number, patch in enumerate(patches, start=1):
        x, y = patch["center"]
        own = {"patch": number, "score": patch["score"], "center_x": x, "center_y": y}
        for rank, neighbor in enumerate(patch["neighbors"], start=1):
            yield {**own, "rank": rank, **neighbor}


class _CsvTable:
    """A CSV file that is held alone, and only appended to."""

    def __init__(self, path: Path, file: BinaryIO, columns: Sequence[str], n_rows: int) -> None:
        self.path, self._file, self._columns, self.n_rows = path, file, columns, n_rows

    @classmethod
    def open(cls, path: Path, columns: Sequence[str]) -> _CsvTable | None:
        """The table, made where it is not there; None where it has other columns, is not whole or is held."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error
        with suppress(OSError):  # a file system without locks
            if not lock_descriptor(file.fileno()):
                file.close()
                return None
        n_rows = _count_rows(path, columns)
        if n_rows is None:
            file.close()
            return None
        return cls(path, file, columns, n_rows)

    def append(self, rows: Sequence[dict[str, object]]) -> None:
        """Write rows, whole or not at all, and flush them to disk."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        before = os.fstat(self._file.fileno()).st_size
        if before == 0:
            writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
        try:
            if self._file.write(content) != len(content):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            message = f"cannot write {self.path} ({len(content)} bytes): {error.strerror or error}"
            raise ArtifactError(message) from error
        self.n_rows += len(rows)

    def close(self) -> None:
        self._file.close()

    def give_up(self) -> None:
        """Close, and leave no empty file behind."""
        if os.fstat(self._file.fileno()).st_size == 0:
            remove_locked(self.path, self.close)
        else:
            self.close()


def _open_tables(out: Path, suffix: str) -> tuple[list[_CsvTable], Path] | None:
    """The CSV_TABLES, and decisions.parquet; None where one of them cannot be appended to."""
    tables: list[_CsvTable] = []
    parquet = out / f"decisions{suffix}.parquet"
    for name, columns in CSV_TABLES.items():
        table = _CsvTable.open(out / f"{name}{suffix}.csv", columns)
        if table is not None:
            tables.append(table)
        if table is None or not _can_grow(parquet):
            for opened in tables:
                opened.give_up()
            return None
    for table in tables:
        table.append([])  # the head
    return tables, parquet


def _suffixes(start: str) -> Iterator[str]:
    yield ""
    yield f"-{start}"
    number = 2
    while True:
        yield f"-{start}-{number}"
        number += 1


def _count_rows(path: Path, columns: Sequence[str]) -> int | None:
    """How many rows a CSV file holds; None where it has other columns or a row that is not whole."""
    n_lines = 0
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    return None
        with path.open(encoding="utf-8", newline="") as text:
            for cells in csv.reader(text, strict=True):
                if len(cells) != len(columns) or (n_lines == 0 and tuple(cells) != tuple(columns)):
                    return None
                n_lines += 1
    except (OSError, ValueError, csv.Error):
        return None
    return max(n_lines - 1, 0)


def _can_grow(path: Path) -> bool:
    try:
        return not path.exists() or pq.read_schema(path).equals(DECISIONS)
    except (OSError, pa.ArrowInvalid):
        return False
