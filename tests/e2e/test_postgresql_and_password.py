"""The server on PostgreSQL, with a password on its API; test_killed.py and test_stations.py run on it."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.e2e.browser import PATIENCE_MS, open_page
from tests.e2e.postgresql import programs
from tests.e2e.prefect_stack import Stack

pytestmark = pytest.mark.e2e


def test_nothing_is_kept_in_sqlite(guarded: Stack) -> None:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    assert guarded.api("/deployments/name/federated-experiment/on-demand")
    assert not (guarded.home / "prefect" / "prefect.db").exists()
    assert "database is locked" not in (guarded.home / "server.log").read_text(errors="replace")


def test_nothing_is_answered_without_the_password_and_the_ui_asks_for_it(guarded: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{guarded.url}/api/flows/count", data=b"{}", timeout=120)
    known = guarded.environment.pop("PREFECT_API_AUTH_STRING")
    try:
        refused = guarded.prefect("deployment", "run", "federated-experiment/on-demand", check=False)
        assert refused.returncode != 0
        assert "401" in refused.stdout + refused.stderr
        with open_page(guarded, "deployments") as page:
            box = page.locator("input[type=password]")
            box.fill("fedpatch:wrong")
            page.get_by_role("button", name="Login").click()
            page.get_by_text("Invalid credentials").wait_for()
            box.fill(known)
            page.get_by_role("button", name="Login").click()
            page.get_by_text("federated-experiment").first.wait_for(timeout=PATIENCE_MS)
    finally:
        guarded.environment["PREFECT_API_AUTH_STRING"] = known
