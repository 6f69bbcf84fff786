"""The shared place, on a directory and on an S3 server of the test's own."""

from __future__ import annotations

import io
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import ConfigError, UploadError
from data_contracts.exchange import Publication, Slot
from data_contracts.manifests import UploadManifest
from flows.cli import main
from pipeline_lib.stations.exchange import Exchange, open_exchange
from pipeline_lib.stations.retention import prune_exchange, shared_files
from pipeline_lib.storage.artifact_store import ArtifactStore

RUN = "run-1"
HASH = "0123456789abcdef"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(params=["directory", "s3"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exchange:
    if request.param == "directory":
        return Exchange(str(tmp_path / "shared"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = Exchange(f"s3://bucket-{uuid.uuid4().hex}/fedpatch")
    made.fs.mkdir(made.root.split("/")[0])
    return made


@pytest.fixture
def station(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "station")


@pytest.fixture
def coordinator(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "coordinator")


def slot(**changed: Any) -> Slot:
    return Slot(**{"run_id": RUN, "kind": "uploads", "sender": "station-a", "config_hash": HASH, **changed})


def publication(store: ArtifactStore, *, at: Slot | None = None, **changed: Any) -> Publication:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    written = store.write_arrays("client_upload", {"features": rows}, rows=4)
    said: dict[str, Any] = {
        **written.model_dump(), "client_id": "station-a", "category": "clip", "round": 1, "config_hash": HASH, "dim": 3,
        "n_images": 2, "n_patches": 8, "raw_image_bytes": 100, "covering_radius": 0.5, **changed,
    }  # fmt: skip
    return Publication(slot=at or slot(), uploads=(UploadManifest(**said),))


def test_what_a_station_publishes_arrives(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore
) -> None:
    sent = publication(station)
    assert exchange.publish(sent, station) == sent.uploads[0].size_bytes
    assert exchange.fetch(slot(), coordinator) == sent
    np.testing.assert_array_equal(
        coordinator.read_arrays(sent.uploads[0])["features"], np.arange(12, dtype=np.float32).reshape(4, 3)
    )


def test_publishing_again_sends_nothing_twice_and_mends_what_is_damaged(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore
) -> None:
    sent = publication(station)
    exchange.publish(sent, station)
    assert exchange.publish(sent, station) == 0
    exchange.fs.pipe_file(exchange._artifact(slot(), sent.uploads[0]), b"half of")
    with pytest.raises(UploadError, match=r"station-a for clip refused: .* has 7 bytes"):
        exchange.fetch(slot(), coordinator)
    assert exchange.publish(sent, station) > 0
    assert exchange.fetch(slot(), coordinator) == sent


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"run_id": "run-2"}, "replay of another run"),
        ({"round": 2}, "round 1, expected 2"),
        ({"sender": "station-b"}, "sender 'station-a', expected 'station-b'"),
        ({"config_hash": "other"}, "config_hash"),
    ],
)
def test_a_publication_that_was_copied_elsewhere_is_refused(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore, asked: dict[str, Any], reason: str
) -> None:
    sent = publication(station)
    exchange.publish(sent, station)
    asked_for = slot(**asked)
    exchange.fs.makedirs(exchange._manifest(asked_for).rsplit("/", 1)[0], exist_ok=True)
    exchange.fs.pipe_file(exchange._manifest(asked_for), sent.model_dump_json().encode())
    with pytest.raises(UploadError, match=reason):
        exchange.fetch(asked_for, coordinator)


def test_an_upload_inside_a_right_manifest_must_be_right_too(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore
) -> None:
    exchange.publish(publication(station, client_id="station-b"), station)
    with pytest.raises(UploadError, match="upload for clip says sender 'station-b'"):
        exchange.fetch(slot(), coordinator)


def test_same_size_but_other_content_is_refused(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore
) -> None:
    sent = publication(station)
    exchange.publish(sent, station)
    exchange.fs.pipe_file(exchange._artifact(slot(), sent.uploads[0]), b"\0" * sent.uploads[0].size_bytes)
    with pytest.raises(UploadError, match="SHA-256"):
        exchange.fetch(slot(), coordinator)


@pytest.mark.parametrize("content", [b"{", b'{"slot": {}}', b"[]"])
def test_a_manifest_that_does_not_fit_the_schema_is_refused(
    exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore, content: bytes
) -> None:
    exchange.publish(publication(station), station)
    exchange.fs.pipe_file(exchange._manifest(slot()), content)
    with pytest.raises(UploadError, match="does not fit the schema"):
        exchange.fetch(slot(), coordinator)


def test_compressed_content_is_refused(exchange: Exchange, station: ArtifactStore, coordinator: ArtifactStore) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, features=np.zeros((1000, 3), np.float32))
    written = station.write_bytes("client_upload", packed.getvalue(), suffix="npz", rows=1000)
    exchange.publish(publication(station, **written.model_dump()), station)
    with pytest.raises(UploadError, match="compressed"):
        exchange.fetch(slot(), coordinator)


def test_a_late_upload_is_refused_until_the_round_is_opened_again(exchange: Exchange, station: ArtifactStore) -> None:
    exchange.close(RUN, 1, "the deadline passed with 2 of 3 stations")
    with pytest.raises(UploadError, match=r"station-a refused: round 1 of run-1 is closed \(the deadline passed"):
        exchange.publish(publication(station), station)
    exchange.reopen(RUN, 1)
    exchange.reopen(RUN, 1)
    exchange.publish(publication(station), station)


def test_nothing_published_is_said(exchange: Exchange, coordinator: ArtifactStore) -> None:
    with pytest.raises(UploadError, match="uploads of station-a refused: nothing was published"):
        exchange.fetch(slot(), coordinator)


def test_names_cannot_leave_the_place() -> None:
    for name in ("../other", "a/b", ".hidden", ""):
        with pytest.raises(ValueError, match="String should match pattern"):
            slot(sender=name)


def test_an_unknown_file_system_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        Exchange("nosuch://bucket")


def test_runs_that_are_over_go_whole_and_what_is_not_a_run_stays(exchange: Exchange, station: ArtifactStore) -> None:
    assert prune_exchange(exchange, keep_days=0).removed == []  # nothing was ever published
    for run_id in (RUN, "run-2"):
        exchange.publish(publication(station, at=slot(run_id=run_id)), station)
    exchange.close(RUN, 1, "over")
    exchange.fs.makedirs(f"{exchange.root}/notes", exist_ok=True)
    exchange.fs.pipe_file(f"{exchange.root}/notes/readme.txt", b"not a run")
    young = prune_exchange(exchange, keep_days=1)
    assert (young.removed, {run.run_id for run in young.kept}, young.foreign) == ([], {"run-1", "run-2"}, ["notes"])
    asked = prune_exchange(exchange, keep_days=0, dry_run=True)
    assert sorted((run.run_id, run.files) for run in asked.removed) == [("run-1", 3), ("run-2", 2)]
    assert exchange.fs.exists(exchange._manifest(slot()))
    done = prune_exchange(exchange, keep_days=0)
    assert {run.run_id for run in done.removed} == {"run-1", "run-2"}
    assert not exchange.fs.exists(f"{exchange.root}/{RUN}")
    assert exchange.fs.exists(f"{exchange.root}/notes/readme.txt")


def test_what_each_station_sent_is_shown_with_bytes_and_when(
    tmp_path: Path, station: ArtifactStore, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = Exchange(str(tmp_path / "shared"))
    assert shared_files(exchange) == []
    for sender in ("station-a", "station-b"):
        at = slot(sender=sender)
        uploads = tuple(one.model_copy(update={"client_id": sender}) for one in publication(station).uploads)
        exchange.publish(publication(station).model_copy(update={"slot": at, "uploads": uploads}), station)
    exchange.close(RUN, 1, "over")
    (tmp_path / "shared/notes.txt").write_text("not of a run")
    of_a, _ = found = shared_files(exchange)
    assert [one.sender for one in found] == ["station-a", "station-b"]
    own = list((tmp_path / "shared" / RUN / "round_001/uploads/station-a").iterdir())
    assert (of_a.files, of_a.size_bytes) == (len(own), sum(path.stat().st_size for path in own))
    assert of_a.written == pytest.approx(time.time(), abs=600)
    assert exit_status(str(tmp_path / "shared"), "--station", "station-b", command="show") == 0
    shown = capsys.readouterr().out
    assert "station-b" in shown
    assert "station-a" not in shown
    assert exit_status(str(tmp_path / "shared"), "--json", command="show") == 0
    assert [one["size_bytes"] for one in json.loads(capsys.readouterr().out)] == [one.size_bytes for one in found]
    assert exit_status(str(tmp_path / "nowhere"), command="show") == 1


def test_only_runs_without_a_recent_file_go(tmp_path: Path, station: ArtifactStore) -> None:
    exchange = Exchange(str(tmp_path / "shared"))
    for run_id in (RUN, "run-2"):
        exchange.publish(publication(station, at=slot(run_id=run_id)), station)
    long_ago = time.time() - 40 * 86_400
    for path in (tmp_path / "shared").rglob("*.*"):
        os.utime(path, (long_ago, long_ago))
    exchange.close("run-2", 1, "written just now")
    report = prune_exchange(exchange, keep_days=30)
    assert [(run.run_id, round(run.idle_days)) for run in report.removed] == [(RUN, 40)]
    assert [run.run_id for run in report.kept] == ["run-2"]
    assert report.describe().endswith("removed 1 runs (0.0 MB), kept 1")


def test_a_run_that_cannot_be_removed_is_named_and_the_others_go(
    tmp_path: Path, station: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Exchange(str(tmp_path / "shared"))
    for run_id in (RUN, "run-2"):
        exchange.publish(publication(station, at=slot(run_id=run_id)), station)
    remove = exchange.fs.rm

    def refuse(path: str, recursive: bool) -> None:
        if path.endswith(RUN):
            raise PermissionError(f"not yours: {path}")
        remove(path, recursive=recursive)

    monkeypatch.setattr(exchange.fs, "rm", refuse)
    report = prune_exchange(exchange, keep_days=0)
    assert [run.run_id for run in report.removed] == ["run-2"]
    assert [run.run_id for run in report.kept] == [RUN]
    assert "not yours" in report.failed[RUN]
    assert "run-1 stays: not yours" in report.describe()
    with pytest.raises(ConfigError, match="keep_days is"):
        prune_exchange(exchange, keep_days=-1)


def not_allowed(*arguments: Any, **keywords: Any) -> None:
    raise PermissionError("not yours")


def exit_status(*arguments: str, command: str = "prune") -> Any:
    with pytest.raises(SystemExit) as stop:
        main(["exchange", command, *arguments])
    return stop.value.code


def test_the_command_names_what_goes_and_says_when_something_stays(
    tmp_path: Path, station: ArtifactStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = Exchange(str(tmp_path / "shared"))
    exchange.publish(publication(station), station)
    (tmp_path / "shared" / "notes.txt").write_text("not a run")
    monkeypatch.setenv("FEDPATCH_EXCHANGE", exchange.url)
    assert exit_status("--keep-days", "0", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "run-1" in shown
    assert "would remove 1 runs" in shown
    assert "not of a run, not touched: notes.txt" in shown
    assert exit_status(exchange.url, "--keep-days", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"][0]["run_id"] == RUN
    exchange.publish(publication(station), station)
    monkeypatch.setattr(type(exchange.fs), "rm", not_allowed)
    assert exit_status(exchange.url, "--keep-days", "0") == 1
    assert "run-1 could not be removed: not yours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("station", "whose"),
    [("station-a", "of station-a;"), (None, "of no station (FEDPATCH_STATION), so the coordinator's;")],
)
def test_without_a_shared_place_the_message_says_whose_worker_lacks_it(
    station: str | None, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDPATCH_EXCHANGE", raising=False)
    monkeypatch.delenv("FEDPATCH_STATION", raising=False)
    if station:
        monkeypatch.setenv("FEDPATCH_STATION", station)
    with pytest.raises(ConfigError, match=re.escape(whose)):
        open_exchange()
