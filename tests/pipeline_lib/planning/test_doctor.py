"""The doctor: a sound installation has no problem, and each fault is named with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.cli.upkeep.doctor import home_check, proxy_check, server_check
from pipeline_lib.planning import doctor
from pipeline_lib.planning.doctor import installation_checks, requirement_problem


def test_this_installation_has_no_problem(tmp_path: Path) -> None:
    checks = list(installation_checks(tmp_path / "store" / "not" / "made"))
    assert [check for check in checks if check.status == "problem"] == []
    assert {"Python", "packages", "weights of efficientnet_lite0", "GPU", "artifact store"} <= {c.name for c in checks}
    assert not (tmp_path / "store").exists()


def test_versions_are_held_against_the_requirements() -> None:
    assert requirement_problem("numpy>=1") is None
    assert requirement_problem("no-such-package; extra == 'bench'") is None
    name, found = requirement_problem("numpy<1") or ("", "")
    assert name == "numpy"
    assert "is installed, <1 is needed" in found
    assert requirement_problem("no-such-package>=2") == ("no-such-package", "not installed; >=2 is needed")


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    (store,) = [check for check in installation_checks(tmp_path) if check.name == "artifact store"]
    assert store.status == "problem"
    assert "store prune" in store.advice


def test_a_server_that_does_not_answer_is_a_problem() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        check = server_check()
    assert check.status == "problem"
    assert "does not answer: ConnectError" in check.found


def test_a_store_or_home_that_cannot_be_made_is_a_problem() -> None:
    from prefect.settings import PREFECT_HOME, temporary_settings

    nowhere = Path("/dev/null/made")  # nor can root
    (store,) = [check for check in installation_checks(nowhere) if check.name == "artifact store"]
    with temporary_settings({PREFECT_HOME: nowhere}):
        home = home_check()
    for check, variable in ((store, "FEDPATCH_STORE"), (home, "PREFECT_HOME")):
        assert check.status == "problem"
        assert check.found == "/dev/null/made cannot be written (/dev/null is no directory)"
        assert variable in check.advice


def test_a_proxy_on_the_way_to_the_server_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    for name in ("http_proxy", "all_proxy", "no_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.delenv(spelled, raising=False)
    for url, export in (
        ("http://127.0.0.1:4200/api", "export NO_PROXY=127.0.0.1,localhost,::1"),
        ("http://plant.example:4200/api", "export NO_PROXY=plant.example"),
    ):
        with temporary_settings({PREFECT_API_URL: url}):
            monkeypatch.delenv("HTTP_PROXY", raising=False)
            assert proxy_check().status == "ok"
            monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
            check = proxy_check()
        assert check.status == "note"
        assert "through the proxy proxy.example:3128" in check.found
        assert export in check.advice


def test_the_command_prints_all_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--store", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"name", "status", "found", "advice"} == set(found[0])
    assert found[-1]["name"] == "Prefect server"
