"""Working arrays too large for memory: on disk, in a file without a name that goes when the array does."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

IN_MEMORY_BYTES = 64 << 20


def scratch_array(shape: tuple[int, ...], dtype: type | np.dtype, *, directory: Path | None) -> np.ndarray:
    """An array to be written and read; memory-mapped in `directory` if it exceeds 64 MiB, unless that is None.

    Its pages are the file's, so that the system takes them back when memory is short. A killed process leaves nothing
    behind. The values are not set. Raises OSError when the disk is full or `directory` cannot be written.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if directory is None or size <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        if sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, size)  # writing to a sparse file on a full disk would kill the process
        else:
            file.truncate(size)  # which Windows takes from the disk at once, macOS as it is written
        return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=shape))
