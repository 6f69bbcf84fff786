"""A lock on one computation that frees itself when its holder dies: on a file below the artifact store.

Prefect's own file lock never expires after kill -9. The system drops this one with the process. One host only.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from prefect.locking.protocol import LockManager

from pipeline_lib.storage.file_lock import try_lock_file

POLL_SECONDS = 0.05

_held: dict[tuple[str, str], tuple[str, int]] = {}  # (lock file, key) -> (holder, file descriptor), this process only
_guard = threading.Lock()


class FlockLockManager(LockManager):
    """Prefect lock manager over `storage.file_lock`; holds across threads and processes of one host."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def _path(self, key: str) -> str:
        return str(self.directory / f"{key}.lock")

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Lock `key` for `holder`; waits up to `acquire_timeout` seconds (for ever when None). True when locked.

        `hold_timeout` is not needed: the lock goes with the process.
        """
        deadline = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        while not self._try_lock(key, holder):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """`acquire_lock` without blocking the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock up. Raises ValueError when `holder` does not hold it."""
        with _guard:
            owner, descriptor = _held.get((self._path(key), key), ("", -1))
            if owner != holder:
                raise ValueError(f"{holder} does not hold the lock {key}")
            del _held[(self._path(key), key)]
            os.close(descriptor)  # closing the only descriptor of this open file drops the lock

    def is_locked(self, key: str) -> bool:
        """Whether anybody on this host holds the lock."""
        with _guard:
            if (self._path(key), key) in _held:
                return True
        descriptor = try_lock_file(Path(self._path(key)))
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` holds the lock in this process."""
        with _guard:
            return _held.get((self._path(key), key), ("", -1))[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock is free. False when `timeout` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """`wait_for_lock` without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)

    def _try_lock(self, key: str, holder: str) -> bool:
        with _guard:
            owner = _held.get((self._path(key), key))
            if owner is not None:
                return owner[0] == holder
            descriptor = try_lock_file(Path(self._path(key)))
            if descriptor is None:
                return False
            _held[(self._path(key), key)] = (holder, descriptor)
            return True
