"""Fixtures for all tests: one thread, a Prefect server of the tests' own, tiny data sets, real data where it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("FEDPATCH_RETRY_DELAYS", "0.1")

import pytest
from hypothesis import HealthCheck, settings

from tests.dataset_fixtures import write_tiny_autovi

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # no test is timed: on a busy machine any example can take long

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = {  # files whose tests share a server; every other test goes where there is room
    "guarded": (
        *("test_killed.py", "test_nightly.py", "test_postgresql_and_password.py", "test_stations.py"),
        "test_webhook.py",
    ),
    "served": ("test_commands_beside_a_server.py", "test_in_the_ui.py", "test_serve.py", "test_three_uses.py"),
    "browser": ("test_report_in_browser.py",),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadgroup: the tests of files that are TOGETHER in one process, of the largest group first.

    (The marks that pytest-xdist 3.8 has for this do not reach its scheduler with pytest 9.2.)
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0].removeprefix("tests/e2e/")
            return next((group for group, files in TOGETHER.items() if file in files), nodeid)

    return Together(config, log)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    from pipeline_lib.configuration.hardware import limit_threads

    limit_threads(1)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server and home for this test session alone."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories of tiny images in AutoVI's layout; not to be changed by a test."""
    return write_tiny_autovi(
        tmp_path_factory.mktemp("tiny"), categories=("pipe_clip", "tank_screw"), train=9, good=4, defective=3
    )


@pytest.fixture(scope="session")
def finished(prefect_server: None, tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store` and `run` of one federated run of the quick configuration; not to be changed by a test: see `store`."""
    from data_contracts.config import ExperimentConfig
    from flows.experiment import federated_experiment

    directory = tmp_path_factory.mktemp("finished")
    values = experiment_values(tiny_root, directory / "store", directory / "run", runtime={"workers": 1})
    assert federated_experiment(ExperimentConfig.model_validate(values), return_state=True).is_completed()  # type: ignore[union-attr]
    return directory


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A test's own copy of the finished run's store: what a run on it does not change, it does not compute."""
    return shutil.copytree(finished / "store", tmp_path / "store")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real images: $FEDPATCH_REAL_DATA, or ../shared/datasets/real3 beside the checkout."""
    path = Path(os.environ.get("FEDPATCH_REAL_DATA", ROOT.parent / "shared" / "datasets" / "real3"))
    if not path.is_dir():
        pytest.skip(f"real images are not at {path}; set FEDPATCH_REAL_DATA to have this test run")
    return path


def experiment_values(root: Path, store: Path, out: Path, **sections: Any) -> dict[str, Any]:
    """Values of a quick configuration on tiny images; sections are merged in."""
    values: dict[str, Any] = {
        "name": "tiny",
        "seed": 1,
        "dataset": {"root": str(root)},
        "preprocessing": {"small_size": [64, 64], "large_size": [96, 64]},
        "model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.1},
        "evaluation": {"bootstrap": 50},
        "federated": {"mode": "federated", "num_clients": 3},
        "training": {"num_workers": 1},
        "runtime": {"store": str(store), "out": str(out)},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return values
