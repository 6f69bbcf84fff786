"""A lock on a file that frees itself when its holder dies: the kernel drops an `flock` with the process. One host."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock of `path` (made when it is not there), or None while another one holds it.

    Closing the descriptor gives the lock up. A file that was removed or replaced between opening and locking does not
    count, since nobody else would find that lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def remove_if_unlocked(path: Path) -> bool:
    """Remove a lock file that nobody holds; False when somebody does, or it is gone."""
    if not path.exists():
        return False
    descriptor = try_lock_file(path)
    if descriptor is None:
        return False
    path.unlink(missing_ok=True)
    os.close(descriptor)
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
