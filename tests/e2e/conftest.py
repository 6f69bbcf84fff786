"""Two stacks for all end-to-end tests of a session: what `make serve` starts, and one by hand, for a server that stays.

With `--dist loadgroup` the tests of one stack run in one process (tests/conftest.py), and the stacks beside each other.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.postgresql import postgresql, programs
from tests.e2e.prefect_stack import ServedStack, Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStack]:
    """What `make serve` starts, on SQLite; at the end it is ended by Ctrl-C."""
    with running(ServedStack(tmp_path_factory.mktemp("served"))) as served:
        yield served


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server, pools and a worker by hand, with a password on the API; on PostgreSQL where it is installed."""
    password = f"fedpatch:{secrets.token_hex(8)}"
    settings = {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_API_AUTH_STRING": password}
    with ExitStack() as kept:
        if programs() is not None:
            settings["PREFECT_API_DATABASE_CONNECTION_URL"] = kept.enter_context(postgresql())
        yield kept.enter_context(running(Stack(tmp_path_factory.mktemp("guarded"), **settings)))


@pytest.fixture
def config(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """Five clients on tiny images that no other test has, by time, so that a client's images are known."""
    root = write_tiny_autovi(tmp_path / "data", train=10, good=4, defective=2, seed=int(time.time()) % 10_000)
    return experiment_values(
        root, stack.store, tmp_path / "run", federated={"num_clients": 5, "partitioning": "time", "min_clients": 5}
    )
