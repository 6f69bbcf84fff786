"""The systemd units of deploy/: systemd takes them, and each station is kept apart from the others."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

UNITS = sorted((ROOT / "deploy").glob("*.service"))
PREFECT = "/opt/fedpatch/.venv/bin/prefect"


class _Unit(configparser.RawConfigParser):
    """Keys may be given twice, and their case counts."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def service(path: Path) -> configparser.SectionProxy:
    unit = _Unit(strict=False, interpolation=None, delimiters=("=",))
    unit.read_string(path.read_text())
    return unit["Service"]


def test_there_is_a_unit_for_each_kind_of_machine() -> None:
    names = [path.name for path in UNITS]
    kinds = ("coordinator", "server", "station@", "worker")
    assert names == [f"fedpatch-{kind}.service" for kind in kinds]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    copied = tmp_path / path.name
    copied.write_text(path.read_text().replace(PREFECT, sys.executable))  # it must be there
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copied)], capture_output=True, text=True, timeout=60, check=False
    )
    found = [line for line in done.stderr.splitlines() if path.name.split("@")[0].removesuffix(".service") in line]
    assert not found, found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_each_service_has_a_user_and_a_directory_that_others_cannot_read(path: Path) -> None:
    unit = service(path)
    assert unit["User"] == unit["Group"] != "root"
    assert unit["StateDirectoryMode"] == "0700"
    assert unit["StateDirectory"] == unit["User"]
    assert unit["ExecStart"].startswith(PREFECT)
    assert re.search(r"^Environment=.*\bDO_NOT_TRACK=1$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_service_is_started_again_and_writes_in_its_own_directory_alone(path: Path) -> None:
    unit = service(path)
    assert unit["Restart"] in ("always", "on-failure")
    assert unit["ProtectSystem"] == "strict"
    assert unit.get("WorkingDirectory", f"/var/lib/{unit['User']}") == f"/var/lib/{unit['StateDirectory']}"
    assert unit.get("ReadWritePaths", "-/srv/fedpatch") == "-/srv/fedpatch"


def test_a_station_serves_its_own_queue_and_can_be_read_in_the_shared_place() -> None:
    unit = service(ROOT / "deploy" / "fedpatch-station@.service")
    assert unit["ExecStart"].endswith("worker start --pool stations --work-queue %i")
    assert (unit["UMask"], unit["SupplementaryGroups"]) == ("0002", "fedpatch-exchange")


def test_a_station_needs_no_path_of_the_machine_that_deployed_it() -> None:
    """`prefect deploy` adds a step that changes to its own directory to every block that has none."""
    blocks = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    stations = [block for block in blocks if block["entrypoint"] == "flows.stations.station_client"]
    for station in stations:
        assert station["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
        assert station["work_pool"]["work_queue_name"] == station["name"]
    assert [station["name"] for station in stations] == ["station-a", "station-b"]
