"""The record of decisions: tables that grow, and are never written over."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import ArtifactError
from data_contracts.tables import DECISIONS
from pipeline_lib.maps.regions import Region
from pipeline_lib.storage.artifact_store import TEMPORARY_SUFFIX

DECISION_COLUMNS = tuple(name for name in DECISIONS.names if name != "regions")
REGION_COLUMNS = ("row", "path", *(field.name for field in fields(Region)))
"""`row` is that of the image in decisions.csv, from 0."""

ROWS_IN_MEMORY = 1000


class DecisionRecord:
    """decisions.csv, regions.csv and decisions.parquet of a directory, open for more rows.

    A row is on the disk when `add` returns, in the CSV files; the Parquet file follows every ROWS_IN_MEMORY rows and at
    the end. Where one of the three has other columns, is damaged or is being written by someone else, all three go to
    <name>-<start>, start in UTC.
    """

    def __init__(self, out: Path) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        tables = (_open_tables(out, suffix) for suffix in _suffixes(start))
        self._decisions, self._regions, self._parquet = next(found for found in tables if found is not None)
        self._rows: list[dict[str, object]] = []

    @property
    def path(self) -> Path:
        """The table of decisions."""
        return self._decisions.path

    def add(self, row: dict[str, object]) -> None:
        """One image in the schema DECISIONS. Raises ArtifactError where it cannot be written."""
        number = self._decisions.n_rows
        self._decisions.append([row])  # first: a killed session leaves no regions that the next image would take over
        self._rows.append(row)
        regions = json.loads(str(row["regions"]))
        self._regions.append([{"row": number, "path": row["path"], **region} for region in regions])
        if len(self._rows) >= ROWS_IN_MEMORY:
            self._write_parquet()

    def close(self) -> None:
        """Write what is left. Raises ArtifactError where it cannot be written; the CSV files have it all."""
        try:
            self._write_parquet()
        finally:
            self._decisions.close()
            self._regions.close()

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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            pass  # a file system without locks
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
            self.path.unlink()
        self.close()


def _open_tables(out: Path, suffix: str) -> tuple[_CsvTable, _CsvTable, Path] | None:
    """decisions.csv, regions.csv and decisions.parquet; None where one of them cannot be appended to."""
    parquet = out / f"decisions{suffix}.parquet"
    decisions = _CsvTable.open(out / f"decisions{suffix}.csv", DECISION_COLUMNS)
    if decisions is None:
        return None
    regions = _CsvTable.open(out / f"regions{suffix}.csv", REGION_COLUMNS)
    if regions is not None and _can_grow(parquet):
        decisions.append([])  # the head
        regions.append([])
        return decisions, regions, parquet
    for table in (decisions, regions):
        if table is not None:
            table.give_up()
    return None


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
