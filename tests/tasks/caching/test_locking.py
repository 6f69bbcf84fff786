"""The lock: exclusive across threads and processes, free again the moment its holder is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.caching.locking import FlockLockManager
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from tasks.caching.locking import FlockLockManager
FlockLockManager(Path(sys.argv[1])).acquire_lock("key", "other")
print("held", flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    locks = FlockLockManager(tmp_path)
    assert locks.acquire_lock("key", "a")
    assert locks.acquire_lock("key", "a")  # again by its holder
    assert not locks.acquire_lock("key", "b", acquire_timeout=0.1)
    assert locks.is_locked("key")
    assert locks.is_lock_holder("key", "a")
    assert not locks.is_lock_holder("key", "b")
    with pytest.raises(ValueError, match="does not hold"):
        locks.release_lock("key", "b")
    locks.release_lock("key", "a")
    assert not locks.is_locked("key")
    assert locks.acquire_lock("key", "b", acquire_timeout=0)
    locks.release_lock("key", "b")


def test_threads_enter_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def work(number: int) -> None:
        locks = FlockLockManager(tmp_path)
        locks.acquire_lock("key", f"holder-{number}")
        inside.append(number)
        overlaps.append(len(inside))
        time.sleep(0.02)
        inside.remove(number)
        locks.release_lock("key", f"holder-{number}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 5


def test_kill_9_frees_the_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "held"
        locks = FlockLockManager(tmp_path)
        assert locks.is_locked("key")
        assert not locks.wait_for_lock("key", timeout=0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert locks.acquire_lock("key", "me", acquire_timeout=5)
        locks.release_lock("key", "me")
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
