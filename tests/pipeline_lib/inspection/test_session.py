"""A session with decisions made up: what is an input, when a watched file has settled, and what one bad image costs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import FedpatchError
from pipeline_lib.dataset.image_files import LeftOut
from pipeline_lib.inspection import session as session_module
from pipeline_lib.inspection.decisions import ImageDecision, find_images
from pipeline_lib.inspection.session import ScoreSession, _WatchedFolder
from pipeline_lib.maps.visualize import Scale
from tests.dataset_fixtures import write_image
from tests.inspection_fixtures import STAND_IN

GREY = np.full((6, 8, 3), 120, np.uint8)


def made_up(model: object, path: Path, *, category: str | None = None) -> ImageDecision:
    return ImageDecision(
        path,
        "clip",
        1.0,
        2.0,
        "good",
        pixels=GREY,
        anomaly_map=np.ones((6, 8), np.float32),
        mask=np.zeros((6, 8), bool),
    )


@pytest.fixture(autouse=True)
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "decide_image", made_up)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# --- what is an input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_lies_below_out_is_never_an_input(tmp_path: Path, through_a_link: bool) -> None:
    camera = tmp_path / "camera"
    write_image(camera / "a.png", GREY)
    (tmp_path / "link").symlink_to(camera)
    given, out = (tmp_path / "link", camera / "scored") if through_a_link else (camera, tmp_path / "link" / "scored")
    for _ in range(2):
        assert names([one.path for one in ScoreSession(STAND_IN, out=out).score(find_images([given], out=out))]) == [
            "a.png"
        ]
    assert len(pd.read_csv(camera / "scored" / "decisions.csv")) == 2
    write_image(out / "copied.png", GREY)
    (camera / "shown.png").symlink_to(out / "copied.png")
    left_out = LeftOut()
    assert names(find_images([given], out=out, left_out=left_out)) == ["a.png"]
    assert dict(left_out.by_reason) == {"of the results": 2}
    for path in (out / "copied.png", camera / "shown.png"):
        path.unlink()
    assert names(find_images([given], out=camera)) == ["a.png"]  # results beside the inputs
    pictures = list((out / "pictures").rglob("*.jpg"))
    assert len(pictures) == 2
    assert find_images([out / "pictures", *pictures], out=out) == []


def test_pictures_of_earlier_results_are_no_inputs_of_another_batch(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    list(ScoreSession(STAND_IN, out=tmp_path / "monday").score([tmp_path / "a.png"]))
    assert names(find_images([tmp_path], out=tmp_path / "tuesday")) == ["a.png"]
    assert names(find_images([tmp_path])) == ["a.png"]
    write_image(tmp_path / "pictures" / "b.png", GREY)  # of a user, beside no record
    assert names(find_images([tmp_path])) == ["a.png", "b.png"]


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "deeper/b.WEBP", ".c.png", ".snapshot/d.png", ".Trash-1000/e.png", "@eaDir/f.png",
                 "deeper/#recycle/g.png"):  # fmt: skip
        write_image(tmp_path / "in" / name, GREY)
    write_image(tmp_path / "elsewhere" / "h.png", GREY)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("i.jfif", "j.pgm", "deeper/k.PGM", "deeper/l"):
        (tmp_path / "in" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    left_out = LeftOut()
    assert names(find_images([tmp_path / "in"], left_out=left_out)) == ["a.png", "b.WEBP", "gone.png"]
    assert dict(left_out.by_reason) == {
        "hidden or recycled": 5, "symlinked directory": 1, "unsupported ending": 4, "neither file nor directory": 1,
    }  # fmt: skip
    assert not caplog.records
    line = left_out.describe()
    find_images([tmp_path / "in"])
    assert caplog.messages == [line]
    assert line.startswith("left out: ")
    assert "4 unsupported ending (.pgm, .jfif, none)" in line
    assert LeftOut().describe() == ""
    assert names(find_images([tmp_path / "in" / "linked", tmp_path / "in" / ".snapshot"])) == ["h.png", "d.png"]


# --- watching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the looks by so many seconds; nothing sleeps."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_a_file_settles_by_two_equal_looks_whatever_its_time_stamp_says(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    for name, age_seconds in (("past.png", 1e6), ("now.png", 0), ("ahead.png", -3600), ("epoch.png", time.time())):
        write_image(tmp_path / name, GREY)
        stamp = time.time() - age_seconds
        os.utime(tmp_path / name, (stamp, stamp))
    folder = _WatchedFolder(tmp_path, None, 2.0)
    assert folder.look() == []
    clock(0.5)
    assert folder.look() == []  # two looks, but not far enough apart
    clock(1.6)
    assert names(folder.look()) == ["ahead.png", "epoch.png", "now.png", "past.png"]
    for _ in range(3):
        clock(5.0)
        assert folder.look() == []


def test_a_writer_that_stalls_is_waited_for(tmp_path: Path, clock: Callable[[float], None]) -> None:
    whole = write_image(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    content, camera = whole.read_bytes(), tmp_path / "camera"
    camera.mkdir()
    folder = _WatchedFolder(camera, None, 2.0)
    with (camera / "a.png").open("wb", buffering=0) as file:
        for part in range(4):
            file.write(content[part * len(content) // 4 : (part + 1) * len(content) // 4])
            assert folder.look() == []
            clock(1.5)
    assert folder.look() == []
    clock(2.0)
    assert names(folder.look()) == ["a.png"]
    stamp = (camera / "a.png").stat().st_mtime + 1
    os.utime(camera / "a.png", (stamp, stamp))  # written again
    assert folder.look() == []
    clock(2.0)
    assert names(folder.look()) == ["a.png"]


def test_a_directory_that_is_away_is_waited_for_and_its_files_are_not_decided_twice(
    tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    camera = tmp_path / "camera"
    write_image(camera / "a.png", GREY)
    folder = _WatchedFolder(camera, None, 2.0)
    folder.look()
    clock(2.0)
    assert names(folder.look()) == ["a.png"]
    camera.rename(tmp_path / "unplugged")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert folder.look() == []
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [f"{camera} is away and is waited for"]
    camera.mkdir()  # the empty place where a share is mounted
    assert folder.look() == []
    assert caplog.records[-1].getMessage() == f"{camera} is back"
    camera.rmdir()
    (tmp_path / "unplugged").rename(camera)
    shutil.copyfile(camera / "a.png", camera / "b.png")
    found = []
    for _ in range(3):
        found += folder.look()
        clock(2.0)
    assert names(found) == ["b.png"]


def test_a_watcher_forgets_files_that_are_long_gone(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "REMEMBERED", 10)
    folder = _WatchedFolder(tmp_path, None, 2.0)
    write_image(tmp_path / "stays.png", GREY)
    for number in range(40):
        path = write_image(tmp_path / f"{number:02d}.png", GREY)
        folder.look()
        clock(2.0)
        folder.look()
        path.unlink()
        folder.look()
        assert len(folder.decided) <= 12
        assert len(folder.waiting) == 0
    assert tmp_path / "stays.png" in folder.decided
    assert tmp_path / "39.png" in folder.decided


def test_watching_goes_on_beside_its_own_results_and_after_a_restart(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    for _ in range(2):
        looks = iter(range(20))
        session = ScoreSession(STAND_IN, out=tmp_path / "scored")
        decisions: Generator[ImageDecision, None, None] = session.watch(
            tmp_path, every_seconds=0.01, stop=lambda looks=looks: next(looks) > 10
        )
        assert names([decision.path for decision in decisions]) == ["a.png"]
        assert "1 accepted" in (tmp_path / "scored" / "index.html").read_text()  # of this call
    assert len(pd.read_csv(tmp_path / "scored" / "decisions.csv")) == 2


def test_a_watchers_page_follows_each_look(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    session = ScoreSession(STAND_IN, out=tmp_path / "scored")
    decisions = session.watch(tmp_path, every_seconds=0.01, stop=lambda: False)
    next(decisions)
    assert not (tmp_path / "scored" / "index.html").exists()
    write_image(tmp_path / "b.png", GREY)
    next(decisions)
    page = (tmp_path / "scored" / "index.html").read_text()
    assert f"Photographs of {tmp_path}" in page
    assert "<span>a.png</span>" in page
    assert "b.png" not in page
    decisions.close()  # as Ctrl-C does
    assert session.page_file == tmp_path / "scored" / "index.html"
    assert "<span>b.png</span>" in session.page_file.read_text()


# --- one bad image ---------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf_8_is_listed_by_an_escaped_one(tmp_path: Path) -> None:
    good = write_image(tmp_path / "in" / "a.png", GREY)
    for name in (b"caf\xe9.png", b"z.png"):
        shutil.copyfile(good, os.path.join(os.fsencode(tmp_path / "in"), name))
    shown = [f"{tmp_path}/in/{name}" for name in ("a.png", "caf\\xe9.png", "z.png")]
    decisions = list(ScoreSession(STAND_IN, out=tmp_path / "out").score(find_images([tmp_path / "in"])))
    assert json.loads(json.dumps([one.summary()["path"] for one in decisions], ensure_ascii=False).encode()) == shown
    for table in (
        pd.read_csv(tmp_path / "out" / "decisions.csv"),
        pd.read_parquet(tmp_path / "out" / "decisions.parquet"),
    ):
        assert table.path.tolist() == shown
        assert all((tmp_path / "out" / picture).is_file() for picture in table.picture)


def test_a_file_that_is_written_again_keeps_the_pictures_of_its_earlier_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "latest.png"
    for grey in (10, 120, 240, 120):
        pixels = np.full((6, 8, 3), grey, np.uint8)
        monkeypatch.setattr(
            session_module, "decide_image", lambda *a, pixels=pixels, **k: replace(made_up(*a, **k), pixels=pixels)
        )
        list(ScoreSession(STAND_IN, out=tmp_path / "out").score([latest]))
    pictures = pd.read_csv(tmp_path / "out" / "decisions.csv").picture.tolist()
    assert len(set(pictures)) == 3
    assert pictures[1] == pictures[3]
    assert len({(tmp_path / "out" / picture).read_bytes() for picture in pictures}) == 3
    assert len(list((tmp_path / "out" / "pictures").rglob("*.overlay.jpg"))) == 3


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_picture_that_cannot_be_made_costs_no_decision(
    tmp_path: Path, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    write = session_module.write_pictures

    def failing(out: Path, decision: ImageDecision, scale: Scale, patches: Any) -> str:
        if decision.path == paths[bad]:
            raise ValueError("no such colour")
        return write(out, decision, scale, patches)

    monkeypatch.setattr(session_module, "write_pictures", failing)
    decisions = list(ScoreSession(STAND_IN, out=tmp_path / "out").score(paths))
    table = pd.read_csv(tmp_path / "out" / "decisions.csv", keep_default_na=False)
    assert table.decision.tolist() == ["good"] * 3
    assert table.note.tolist() == ["no picture: no such colour" if number == bad else "" for number in range(3)]
    assert decisions[bad].summary()["note"] == "no picture: no such colour"


def test_a_model_at_fault_ends_the_batch_and_keeps_what_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(model: object, path: Path, *, category: str | None = None) -> ImageDecision:
        if path.name == "2.png":
            raise FedpatchError("its bank is damaged")
        return made_up(model, path)

    monkeypatch.setattr(session_module, "decide_image", failing)
    with pytest.raises(FedpatchError, match="damaged"):
        list(ScoreSession(STAND_IN, out=tmp_path).score([Path(f"{number}.png") for number in range(4)]))
    assert pd.read_csv(tmp_path / "decisions.csv").path.tolist() == ["0.png", "1.png"]
    assert "2 accepted" in (tmp_path / "index.html").read_text()
    assert len(pd.read_parquet(tmp_path / "decisions.parquet")) == 2
