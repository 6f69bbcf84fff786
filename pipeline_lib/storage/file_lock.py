"""A lock on a file that frees itself when its holder dies: the system drops it with the process. One host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WINDOWS_BYTE = 2**31 - 2
"""What is locked on Windows, where nobody else can read or write a locked byte: one that no file of ours has. Not
higher: its C library counts in 32 bits here."""


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file until the descriptor is closed; False while another descriptor, of any process, holds it.

    Raises OSError on a file system without locks.
    """
    if sys.platform == "win32":
        import msvcrt

        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, WINDOWS_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock of `path` (made when it is not there), or None while another one holds it.

    Closing the descriptor gives the lock up. A file that was removed or replaced between opening and locking does not
    count, since nobody else would find that lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by children
        if not lock_descriptor(descriptor):
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
    remove_locked(path, lambda: os.close(descriptor))
    return True


def remove_locked(path: Path, close: Callable[[], None]) -> None:
    """Remove a file that the caller has locked, then `close` it: nobody takes the lock of what goes."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows removes no open file: it stays where another one has opened it by then
        close()
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        return
    close()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
