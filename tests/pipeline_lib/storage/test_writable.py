"""Whether a directory can be written, asked without leaving anything behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.errors import PlaceError
from pipeline_lib.storage.writable import refuse_unwritable, write_problem


def test_a_directory_that_is_there_or_can_be_made(tmp_path: Path) -> None:
    assert write_problem(tmp_path) is None
    assert write_problem(tmp_path / "not" / "made") is None
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert write_problem(file) == write_problem(file / "below") == f"{file} is no directory"
    assert write_problem(tmp_path / "dangling" / "below") == f"{tmp_path / 'dangling'} is no directory"
    assert write_problem(Path("/proc/fedpatch")) == "/proc: No such file or directory"


def test_every_place_is_named(tmp_path: Path) -> None:
    refuse_unwritable({"--out": tmp_path})
    with pytest.raises(PlaceError, match=r"^one: /dev/null/a cannot .*; two: /dev/null/b cannot be written") as raised:
        refuse_unwritable({"one": Path("/dev/null/a"), "fine": tmp_path, "two": Path("/dev/null/b")})
    assert "fine" not in str(raised.value)
