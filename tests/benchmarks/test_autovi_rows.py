"""What a run takes on disk, as the row of AutoVI's tenth counts it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.autovi_rows import _mapped_bytes, _named_bytes
from pipeline_lib.storage import scratch


def test_a_file_counts_once_and_one_without_a_name_while_it_is_mapped(tmp_path: Path) -> None:
    file = tmp_path / "store" / "bank.npz"
    file.parent.mkdir()
    file.write_bytes(b"0" * 100_000)
    alone = _named_bytes(tmp_path)
    assert 100_000 <= alone < 110_000
    (tmp_path / "run").mkdir()
    os.link(file, tmp_path / "run" / "bank.npz")
    assert _named_bytes(tmp_path) == alone
    assert _mapped_bytes(tmp_path) == 0
    array = scratch.scratch_array((scratch.IN_MEMORY_BYTES + 4096,), np.uint8, directory=tmp_path)
    assert _named_bytes(tmp_path) == alone
    assert 0 <= _mapped_bytes(tmp_path) - array.nbytes < 4096
    del array
    assert _mapped_bytes(tmp_path) == 0
