"""Working arrays on disk: the same results, nothing left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.storage import scratch
from pipeline_lib.storage.scratch import scratch_array


def anonymous_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def test_small_arrays_and_those_without_a_directory_stay_in_memory(tmp_path: Path) -> None:
    assert scratch_array((4, 3), np.float32, directory=tmp_path / "scratch").base is None
    assert scratch_array((scratch.IN_MEMORY_BYTES + 1,), np.uint8, directory=None).base is None
    assert not (tmp_path / "scratch").exists()


def test_large_arrays_are_files_without_a_name_and_no_anonymous_memory(tmp_path: Path) -> None:
    before = anonymous_kb()
    array = scratch_array((scratch.IN_MEMORY_BYTES + 8,), np.uint8, directory=tmp_path / "scratch")
    array[:] = 7
    assert type(array) is np.ndarray
    assert isinstance(array.base, np.memmap)
    assert (array == 7).all()
    assert anonymous_kb() - before < scratch.IN_MEMORY_BYTES / 1024 / 2
    assert os.listdir(tmp_path / "scratch") == []


def test_the_space_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a disk that gets full would end the process with a signal, at some later write."""
    taken = []
    real = scratch.np.memmap
    monkeypatch.setattr(
        scratch.np, "memmap", lambda file, **rest: taken.append(os.fstat(file.fileno()).st_blocks) or real(file, **rest)
    )
    scratch_array((scratch.IN_MEMORY_BYTES + 1,), np.uint8, directory=tmp_path)
    assert taken[0] * 512 > scratch.IN_MEMORY_BYTES


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        scratch_array((scratch.IN_MEMORY_BYTES + 1,), np.uint8, directory=tmp_path)


def test_selection_with_short_forms_on_disk_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sheet = rng.normal(size=(4000, 10)) @ rng.normal(size=(10, 80)) + 0.1 * rng.normal(size=(4000, 80))
    features = sheet.astype(np.float16)
    expected = greedy_coreset_selection(features, 200, rng=np.random.default_rng(1), threads=1)
    made = []
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 1000)
    real = scratch.np.memmap
    monkeypatch.setattr(scratch.np, "memmap", lambda *a, **k: made.append(k["shape"]) or real(*a, **k))
    found = greedy_coreset_selection(features, 200, rng=np.random.default_rng(1), threads=1, scratch=tmp_path)
    assert made  # the short form was on disk
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert found.covering_radius == expected.covering_radius
