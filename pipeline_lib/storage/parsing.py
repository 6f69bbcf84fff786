"""Parsing Python source beside other threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 20


def parsed(parse: Callable[[], T]) -> T:
    """`parse()`, which parses Python source; again where the interpreter stumbles.

    Python 3.11 counts the depth of a tree for all threads together: when another thread parses at the same time, it can
    raise SystemError "AST constructor recursion depth mismatch", though nothing is wrong with the source. The header of
    an npy or npz file is such a source for NumPy.
    """
    for _ in range(TRIES - 1):
        try:
            return parse()
        except SystemError:
            time.sleep(0.01)
    return parse()
