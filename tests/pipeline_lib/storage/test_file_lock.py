"""The lock on a file, as it is here and as it is on Windows, whose C library is stood in for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from pipeline_lib.inspection.record import DecisionRecord
from pipeline_lib.storage import file_lock
from pipeline_lib.storage.file_lock import (
    WINDOWS_BYTE,
    lock_descriptor,
    remove_if_unlocked,
    remove_locked,
    try_lock_file,
)


class Msvcrt:
    """What Windows' C library does: a range of bytes, from where the file stands, held by one open file at a time."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # file -> (descriptor, first, end)

    def locking(self, descriptor: int, mode: int, n_bytes: int) -> None:
        assert mode == self.LK_NBLCK
        first = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert first < 2**31  # its long has 32 bits
        status = os.fstat(descriptor)
        ranges = self.held.setdefault((status.st_dev, status.st_ino), [])
        ranges[:] = [
            one for one in ranges if one[0] != descriptor and self._is_open(one[0], status)
        ]  # numbers come again
        if any(first < end and start < first + n_bytes for _, start, end in ranges):
            raise PermissionError(13, "Permission denied")
        ranges.append((descriptor, first, first + n_bytes))

    @staticmethod
    def _is_open(descriptor: int, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), status)
        except OSError:
            return False


@pytest.fixture(params=["here", "windows"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "windows":
        monkeypatch.setattr(file_lock, "sys", SimpleNamespace(platform="win32"))
        monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())  # type: ignore[arg-type]
    return str(request.param)


def test_one_descriptor_at_a_time_holds_it_until_it_is_closed(system: str, tmp_path: Path) -> None:
    first = try_lock_file(tmp_path / "locks" / "a")
    assert first is not None
    assert try_lock_file(tmp_path / "locks" / "a") is None
    other = try_lock_file(tmp_path / "locks" / "b")
    assert other is not None
    assert not os.get_inheritable(first)
    os.close(first)
    again = try_lock_file(tmp_path / "locks" / "a")
    assert again is not None
    for descriptor in (other, again):
        os.close(descriptor)


def test_a_locked_file_is_read_and_written_as_before(system: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with path.open("a+b", buffering=0) as file:
        file.write(b"one\n")
        file.seek(2)
        assert lock_descriptor(file.fileno())
        assert file.tell() == 2
        file.write(b"two\n")
        assert path.read_bytes() == b"one\ntwo\n"
        with path.open("rb") as other:
            assert not lock_descriptor(other.fileno())
    assert path.stat().st_size < WINDOWS_BYTE


def test_only_a_lock_that_nobody_holds_is_removed(system: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not remove_if_unlocked(path)
    descriptor = try_lock_file(path)
    assert descriptor is not None
    assert not remove_if_unlocked(path)
    assert path.exists()
    os.close(descriptor)
    assert remove_if_unlocked(path)
    assert not path.exists()


def test_where_no_open_file_can_be_removed_it_is_closed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, is_open = tmp_path / "lock", [True]
    path.write_bytes(b"")
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if is_open[0]:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    remove_locked(path, lambda: None)  # another one has it open still
    assert path.exists()
    remove_locked(path, lambda: is_open.__setitem__(0, False))
    assert not path.exists()


def test_two_sessions_of_scoring_keep_apart(system: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {"path": "a.png", "regions": "[]", "nearest_normal": "[]"}
    first, second = DecisionRecord(tmp_path), DecisionRecord(tmp_path)
    for record in (first, second):
        record.add(row)
        record.close()
    assert first.path != second.path
    assert [pd.read_csv(record.path).path.tolist() for record in (first, second)] == [["a.png"]] * 2
    third = DecisionRecord(tmp_path)
    third.close()
    assert third.path == first.path
