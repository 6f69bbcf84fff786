"""Threads for blocked array work: Python threads over blocks, each calling BLAS on one thread.

The blocks do not depend on the number of threads, so neither does any result.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

from data_contracts.errors import FedpatchError
from pipeline_lib.when_needed import torch

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]  # map(function, blocks) -> list, in order

_lock = threading.Lock()
_users = 0
_limiter: Any = None


def resolve_threads(threads: int | None) -> int:
    """`threads`, or as many as torch is set to (pipeline_lib.configuration.hardware.limit_threads; all cores unless
    limited).

    Raises FedpatchError when it is below 1.
    """
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise FedpatchError(f"threads is {threads}; give at least 1, or None for the process's own setting")
    return threads


@functools.cache
def _controller() -> ThreadpoolController:
    torch.get_num_threads()  # imports torch, whose OpenMP it has to find
    return ThreadpoolController()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS on one thread a caller, for the whole process, until the last user leaves; then as it was before."""
    global _users, _limiter
    with _lock:
        if _users == 0:
            _limiter = _controller().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limiter.restore_original_limits()
                _limiter = None


def _one_openmp_thread() -> None:
    """torch's products on one thread too, where this thread calls them; OpenMP counts threads for each caller."""
    torch.get_num_threads()  # makes torch apply the process's setting to this thread first
    _controller().limit(limits=1, user_api="openmp")


@contextmanager
def block_mapper(threads: int | None = None) -> Iterator[Mapper]:
    """A `Mapper` that runs the blocks on `threads` threads and keeps their order."""
    count = resolve_threads(threads)
    with single_threaded_blas():
        if count == 1:
            yield lambda function, blocks: [function(block) for block in blocks]
            return
        with ThreadPoolExecutor(count, "fedpatch-block", initializer=_one_openmp_thread) as pool:
            yield lambda function, blocks: list(pool.map(function, blocks))
