"""The server on PostgreSQL, with a password on its API: worker, command line and a run by name."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import experiment_values
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.browser import open_page
from tests.e2e.prefect_stack import Stack, free_port, running_stack

pytestmark = pytest.mark.e2e


def programs() -> Path | None:
    """Where initdb and postgres lie: Debian keeps them off the path."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgresql() -> Iterator[str]:
    """A database server on a free loopback port, with a password; gives the URL that Prefect takes."""
    binaries = programs()
    assert binaries is not None
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    port, password = free_port(), secrets.token_hex(8)
    home = Path(tempfile.mkdtemp(prefix="fedpatch-pg-"))
    (home / "password").write_text(password)
    if user:
        for path in (home, home / "password"):
            shutil.chown(path, user)
    subprocess.run(
        [str(binaries / "initdb"), "-D", str(home / "data"), "-U", "fedpatch", "--auth=scram-sha-256",
         f"--pwfile={home / 'password'}", "-E", "UTF8", "--no-sync"],
        user=user, cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(home / "data"), "-p", str(port), "-k", str(home),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            user=user, cwd=home, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        subprocess.run([str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "30"], check=False)
        yield f"postgresql+asyncpg://fedpatch:{password}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own on PostgreSQL, whose API asks for a password."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    password = f"fedpatch:{secrets.token_hex(8)}"
    with (
        postgresql() as url,
        running_stack(
            tmp_path_factory.mktemp("guarded"),
            PREFECT_API_DATABASE_CONNECTION_URL=url,
            PREFECT_SERVER_API_AUTH_STRING=password,
            PREFECT_API_AUTH_STRING=password,
        ) as running,
    ):
        yield running


def test_a_run_by_name_with_the_password_and_nothing_without(guarded: Stack, tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", train=6, good=3, defective=2)
    values = experiment_values(root, guarded.store, tmp_path / "run", federated={"num_clients": 2})
    flow_run = guarded.run_by_name("federated-experiment/on-demand", values)
    run = guarded.wait_for(flow_run)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert (tmp_path / "run" / "report.html").exists()
    assert not (guarded.home / "prefect" / "prefect.db").exists()
    assert "database is locked" not in (guarded.home / "server.log").read_text(errors="replace")

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{guarded.url}/api/flow_runs/{flow_run}", timeout=30)
    known = guarded.environment.pop("PREFECT_API_AUTH_STRING")
    try:
        refused = guarded.prefect("deployment", "run", "federated-experiment/on-demand", check=False)
        assert refused.returncode != 0
        assert "401" in refused.stdout + refused.stderr
    finally:
        guarded.environment["PREFECT_API_AUTH_STRING"] = known


def test_the_ui_asks_for_the_password(guarded: Stack) -> None:
    with open_page(guarded, "deployments") as page:
        box = page.locator("input[type=password]")
        box.fill("fedpatch:wrong")
        page.get_by_role("button", name="Login").click()
        page.get_by_text("Invalid credentials").wait_for()
        box.fill(guarded.environment["PREFECT_API_AUTH_STRING"])
        page.get_by_role("button", name="Login").click()
        page.get_by_text("federated-experiment").first.wait_for()
