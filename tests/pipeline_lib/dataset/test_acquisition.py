"""Getting a data set from a server on loopback that stalls, cuts off, lies and answers in its own way."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import DatasetError
from flows.cli import main
from pipeline_lib.dataset import acquisition, unpacking
from pipeline_lib.dataset.acquisition import AUTOVI_ARCHIVES, Archive, acquire_category, select_archives
from pipeline_lib.dataset.unpacking import unpack_category

NOISE = np.random.default_rng(0).bytes(300_000)


def zip_bytes(files: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def category_zip(prefix: str = "pipe_clip/pipe_clip/") -> bytes:
    return zip_bytes(
        {
            f"{prefix}train/good/0.png": NOISE,
            f"{prefix}test/good/0.png": b"image",
            f"{prefix}defects_config.json": b"[]",
            "__MACOSX/._x": b"rubbish",
        }
    )


class Server(ThreadingHTTPServer):
    """Serves `content` as /pipe_clip.zip; `faults` says what goes wrong with each request, in turn."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        self.supports_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self.send_error(int(fault))
            return
        content = self.server.content
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.supports_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if fault == "cut":
            self.wfile.write(rest[: len(rest) // 2])
        elif fault == "stall":
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            time.sleep(3)
        elif fault == "nothing":
            return
        elif fault == "wrong":
            self.wfile.write(b"\0" * len(rest))
        else:
            self.wfile.write(rest)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(category_zip()) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive_of(content: bytes) -> Archive:
    return Archive("pipe_clip", len(content), hashlib.sha256(content).hexdigest())


def acquire(server: Server, out: Path, **changes: Any) -> str:
    return acquire_category(
        archive_of(server.content), out,
        **{"base_url": server.url, "stall_seconds": 0.5, "pause_seconds": 0.0, **changes},
    )  # fmt: skip


def test_a_category_is_fetched_flattened_and_then_left_alone(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert acquire(server, tmp_path, progress=lambda done, total: seen.append((done, total))) == "acquired"
    assert (tmp_path / "pipe_clip" / "train" / "good" / "0.png").read_bytes() == NOISE
    assert json.loads((tmp_path / "pipe_clip" / ".fedpatch_source.json").read_text())["license"] == "CC BY-NC-SA 4.0"
    assert seen[-1] == (len(server.content), len(server.content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe_clip"]
    assert acquire(server, tmp_path) == "present"
    assert len(server.ranges) == 1


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_connection_is_taken_up_where_it_ended(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults = [fault]
    assert acquire(server, tmp_path) == "acquired"
    assert server.ranges[0] is None
    assert server.ranges[1] is not None
    assert server.ranges[1].startswith("bytes=")
    assert (tmp_path / "pipe_clip" / "train" / "good" / "0.png").read_bytes() == NOISE


def test_a_server_without_ranges_and_one_in_trouble_are_survived(server: Server, tmp_path: Path) -> None:
    server.supports_ranges = False
    server.faults = ["cut", "503"]
    assert acquire(server, tmp_path) == "acquired"
    assert (tmp_path / "pipe_clip" / "train" / "good" / "0.png").read_bytes() == NOISE


def test_a_part_stays_for_the_next_call_after_too_many_failures(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut", *["nothing"] * 5]
    with pytest.raises(DatasetError, match=r"5 attempts.*run the same command again"):
        acquire(server, tmp_path)
    assert not (tmp_path / "pipe_clip").exists()
    assert acquire(server, tmp_path) == "acquired"
    assert server.ranges[-1] is not None


def test_wrong_bytes_are_removed_and_named(server: Server, tmp_path: Path) -> None:
    server.faults = ["wrong"]
    with pytest.raises(DatasetError, match="not what was published: SHA-256"):
        acquire(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert acquire(server, tmp_path) == "acquired"


def test_more_bytes_than_published_and_a_wrong_address_end_at_once(server: Server, tmp_path: Path) -> None:
    small = Archive("pipe_clip", len(server.content) - 10, "ab" * 32)
    with pytest.raises(DatasetError, match="has more than the"):
        acquire_category(small, tmp_path, base_url=server.url, pause_seconds=0)
    server.faults = ["404"]
    with pytest.raises(DatasetError, match="answers 404"):
        acquire(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_said_before_the_download(server: Server, tmp_path: Path) -> None:
    huge = Archive("pipe_clip", 10**15, "ab" * 32)
    with pytest.raises(DatasetError, match="make room"):
        acquire_category(huge, tmp_path, base_url=server.url)
    assert server.ranges == []


def unpack(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    unpack_category(tmp_path / "a.zip", tmp_path / "out" / "c")


@pytest.mark.parametrize("prefix", ["", "c/", "c/c/", "data/autovi/c/"])
def test_any_depth_is_flattened(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "out").mkdir()
    unpack(category_zip(prefix), tmp_path)
    assert (tmp_path / "out" / "c" / "test" / "good" / "0.png").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c"]


@pytest.mark.parametrize("name", ["../evil.png", "c/../../evil.png", "/etc/evil", "C:/evil.png", "c\\..\\evil"])
def test_a_path_that_leads_outside_unpacks_nothing(tmp_path: Path, name: str) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("c/train/good/0.png", b"1")
        file.writestr(info, b"2")
    with pytest.raises(DatasetError, match="leads outside"):
        unpack(buffer.getvalue(), tmp_path)
    assert not (tmp_path / "out" / "c").exists()
    assert not list(tmp_path.rglob("evil*"))


def test_links_bombs_and_what_is_no_archive_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("c/train")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(link, "/etc")
    with pytest.raises(DatasetError, match="link or device"):
        unpack(buffer.getvalue(), tmp_path)
    monkeypatch.setattr(unpacking, "RATIO_FREE_BYTES", 1000)
    bomb = zip_bytes({"c/train/good/0.png": b"\0" * 3_000_000}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DatasetError, match="far more than photographs"):
        unpack(bomb, tmp_path)
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(b"no zip at all", tmp_path)
    with pytest.raises(DatasetError, match="holds 0 directories"):
        unpack(zip_bytes({"readme.txt": b""}), tmp_path)
    assert not list((tmp_path / "out").glob("*"))


def test_the_addresses_are_those_of_the_record() -> None:
    assert sum(archive.size_bytes for archive in AUTOVI_ARCHIVES) == 3_969_016_757
    assert AUTOVI_ARCHIVES[0].url(acquisition.BASE_URL).startswith("https://zenodo.org/records/10459003/files/engine")
    assert [archive.category for archive in select_archives(["tank_screw"])] == ["tank_screw"]
    with pytest.raises(DatasetError, match="AutoVI has no category bolt; it has engine_wiring"):
        select_archives(["bolt"])


def test_the_command_states_the_licence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acquisition, "AUTOVI_ARCHIVES", (archive_of(server.content),))
    for expected in ("acquired", "present"):
        with pytest.raises(SystemExit) as stop:
            main(["dataset", "acquire", "--category", "pipe_clip", "--out", str(tmp_path), "--base-url", server.url])
        assert not stop.value.code
        shown = capsys.readouterr().out
        assert "CC BY-NC-SA 4.0" in shown
        assert f"pipe_clip: {expected}" in shown
