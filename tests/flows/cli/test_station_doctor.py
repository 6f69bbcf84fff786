"""The doctor at a station: each fault of a camera's machine is named with what to do, and a sound one has none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from data_contracts.errors import ArtifactError
from flows.cli import main
from flows.cli.upkeep import station_doctor
from flows.cli.upkeep.station_doctor import (
    exchange_checks,
    images_check,
    name_check,
    server_checks,
    station_checks,
    store_check,
    umask_check,
    worker_check,
)
from pipeline_lib.planning.doctor import Check
from pipeline_lib.stations.exchange import Exchange


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch, tiny_root: Path, tmp_path: Path) -> str:
    """A station's environment, with a name that no other test has."""
    name = f"station-{uuid4().hex[:8]}"
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("FEDPATCH_STATION", name)
    monkeypatch.setenv("FEDPATCH_DATASET", str(tiny_root))
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FEDPATCH_EXCHANGE", str(tmp_path / "shared"))
    return name


@pytest.fixture
def queue(prefect_server: None, station: str) -> tuple[str, str]:
    """(station, pool): its deployment and work queue at a server."""
    pool = f"stations-{station}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        client.create_work_queue(name=station, work_pool_name=pool)
        flow = client.create_flow_from_name("station-client")
        client.create_deployment(flow, name=station, work_pool_name=pool, work_queue_name=station)
    return station, pool


def status(checks: Iterator[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def test_a_sound_station_has_no_problem_and_leaves_nothing_behind(
    queue: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station, pool = queue
    with get_client(sync_client=True) as client:
        client.get_scheduled_flow_runs_for_work_pool(pool, [station])  # as its worker does
    found = {check.name: check for check in station_checks(station)}
    assert not [check for check in found.values() if check.status == "problem"]
    assert {"FEDPATCH_STATION", "FEDPATCH_DATASET", "clock", "deployment", "work queue"} <= {
        name for name, check in found.items() if check.status == "ok"
    }
    assert list((tmp_path / "shared").iterdir()) == []
    assert not (tmp_path / "store").exists()
    with pytest.raises(SystemExit):
        main(["doctor", "--station", station])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("next: a run can come")
    with pytest.raises(SystemExit):
        main(["doctor", "--station", station, "--json"])
    shown = [one["name"] for one in json.loads(capsys.readouterr().out)]
    assert shown.index("Prefect server") < shown.index("FEDPATCH_STATION") < shown.index("work queue")


@pytest.mark.parametrize("name", ["FEDPATCH_STATION", "FEDPATCH_DATASET", "FEDPATCH_EXCHANGE"])
def test_a_variable_that_is_not_set_is_a_problem_and_says_that_the_worker_has_to_start_again(
    station: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    (check,) = [
        one for one in (name_check(station), images_check(), *exchange_checks(station)) if one.status == "problem"
    ]
    assert check.name == name
    assert check.found.startswith("not set in this shell")
    assert "start the worker again" in check.advice
    with temporary_settings({PREFECT_API_URL: None}):
        (server,) = server_checks(station)
    assert (server.name, server.status) == ("PREFECT_API_URL", "problem")


def test_another_name_images_that_are_away_or_loose_and_no_store(
    station: str, monkeypatch: pytest.MonkeyPatch, tiny_root: Path, tmp_path: Path
) -> None:
    assert re.search(r"; pipe_clip: \d+ good training, \d+ test images", images_check().found)
    assert name_check("station-z").found == f"it is {station}"
    monkeypatch.setenv("FEDPATCH_STATION", "two words")
    assert "cannot be a name" in name_check(station).found
    monkeypatch.setenv("FEDPATCH_DATASET", "/nowhere/line1")
    away = images_check()
    assert away.status == "problem"
    assert "/nowhere/line1" in away.found
    assert "mounted" in away.advice
    loose = tmp_path / "camera/train"
    loose.mkdir(parents=True)
    shutil.copy(next((tiny_root / "pipe_clip/train/good").iterdir()), loose)
    monkeypatch.setenv("FEDPATCH_DATASET", str(loose.parent))
    loose_check = images_check()
    assert loose_check.status == "problem"
    assert f"images lie in {loose} (1); `fedpatch dataset import" in loose_check.advice
    assert "no good training image" in loose_check.found
    monkeypatch.delenv("FEDPATCH_STORE")
    assert store_check().status == "note"


def test_a_shared_place_is_not_made_where_it_is_not_mounted(station: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(os.environ["FEDPATCH_EXCHANGE"])
    place.rmdir()
    (check,) = exchange_checks(station)
    assert (check.status, check.advice[:27]) == ("problem", "mount it, or make it where ")
    assert not place.exists()
    monkeypatch.setenv("FEDPATCH_EXCHANGE", "gopher://place")
    (check,) = exchange_checks(station)
    assert check.status == "problem"


@pytest.mark.parametrize("fault", ["write", "read", "content"])
def test_a_shared_place_that_cannot_be_written_or_read_is_a_problem(
    station: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Exchange(os.environ["FEDPATCH_EXCHANGE"])
    if fault == "write":
        Path(exchange.root).rmdir()
        Path(exchange.root).write_text("a file, which nothing can be written below, not by root either")
    else:
        broken = PermissionError(13, "Permission denied") if fault == "read" else None

        def cat_file(path: str) -> bytes:
            if broken:
                raise broken
            return b"other"

        monkeypatch.setattr(exchange.fs, "cat_file", cat_file)
    with pytest.raises(ArtifactError):
        exchange.try_out(station)
    monkeypatch.setattr(station_doctor, "Exchange", lambda url: exchange)
    check, *_ = exchange_checks(station)
    assert check.status == "problem"


def test_what_may_not_be_removed_is_named(station: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange(os.environ["FEDPATCH_EXCHANGE"])

    def rm(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(exchange.fs, "rm", rm)
    monkeypatch.setattr(station_doctor, "Exchange", lambda url: exchange)
    check, *_ = exchange_checks(station)
    assert check.status == "note"
    (left,) = Path(exchange.root).iterdir()
    assert str(left) in check.found
    assert (left / "round_001" / "uploads" / station / "trial.txt").is_file()  # where a policy lets a station write


@pytest.mark.parametrize(("mask", "expected"), [(0o022, "note"), (0o002, "ok"), (0o000, "ok")])
def test_a_umask_that_keeps_other_stations_out_is_noted(mask: int, expected: str) -> None:
    before = os.umask(mask)
    try:
        check = umask_check()
        assert os.umask(mask) == mask  # as it was
    finally:
        os.umask(before)
    assert check.status == expected
    assert f"{mask:03o}" in check.found


def test_a_worker_that_was_started_before_a_variable_was_set_is_found(station: str, tmp_path: Path) -> None:
    assert worker_check(station).found == "none runs"
    words = ["worker", "start", "--pool", "stations", "--work-queue", station]
    here, elsewhere = "http://127.0.0.1:4200/api", "http://another.example:4200/api"
    for left_out, server, expected in (
        ("FEDPATCH_EXCHANGE", here, "problem"), ("FEDPATCH_EXCHANGE", elsewhere, "none runs"), ("", here, "ok")
    ):  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name != left_out}
        sleeper = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)", *words]
        worker = subprocess.Popen(sleeper, env=environment | {"PREFECT_API_URL": server}, stdout=subprocess.PIPE)
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"up\n"
            with temporary_settings({PREFECT_API_URL: here}):
                check = worker_check(station)
        finally:
            worker.kill()
            worker.communicate()
        if server == elsewhere:
            assert check.found == expected
            continue
        assert check.status == expected
        assert f"process {worker.pid}" in check.found
        assert ("FEDPATCH_EXCHANGE not set" in check.found) == bool(left_out)


def test_a_clock_that_is_off_is_a_problem(queue: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    station, _ = queue
    assert status(server_checks(station))["clock"] == "ok"
    right = time.time
    for seconds, said in ((120, "ahead of"), (-120, "behind")):
        monkeypatch.setattr(station_doctor.time, "time", lambda seconds=seconds: right() + seconds)
        clock, *_ = server_checks(station)
        monkeypatch.setattr(station_doctor.time, "time", right)
        assert clock.status == "problem"
        assert said in clock.found
        assert "NTP" in clock.advice


def test_what_the_server_lacks_of_a_station(queue: tuple[str, str]) -> None:
    station, pool = queue
    (missing,) = [check for check in server_checks("station-elsewhere") if check.status == "problem"]
    assert missing.found == "there is no station-client/station-elsewhere"
    assert "prefect.yaml" in missing.advice
    *_, unasked = server_checks(station)
    assert (unasked.status, "(never)" in unasked.found) == ("note", True)
    assert unasked.advice == f"prefect worker start --pool {pool} --work-queue {station}"
    with get_client(sync_client=True) as client:
        client.update_work_queue(client.read_work_queue_by_name(station, work_pool_name=pool).id, is_paused=True)
        *_, paused = server_checks(station)
        assert (paused.status, "is paused" in paused.found) == ("problem", True)
        flow = client.create_flow_from_name("station-client")
        client.create_deployment(flow, name=f"{station}-b", work_pool_name=pool, work_queue_name=station)
    *_, shared = server_checks(f"{station}-b")
    assert shared.status == "problem"
    assert f"work_queue_name: {station}-b" in shared.advice


def test_a_server_that_does_not_answer_is_one_problem(station: str) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        (check,) = server_checks(station)
    assert check.status == "problem"
    assert "does not answer" in check.found
