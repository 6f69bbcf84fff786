"""One server, worker and set of deployments for all end-to-end tests of a session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.prefect_stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack; a test that ends its worker starts another one."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def config(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """Five clients on tiny images, by time, so that a client's images are known."""
    root = write_tiny_autovi(tmp_path / "data", train=10, good=4, defective=2, seed=int(time.time()) % 10_000)
    return experiment_values(
        root, stack.store, tmp_path / "run", federated={"num_clients": 5, "partitioning": "time", "min_clients": 5}
    )
