"""The page of a call: what to look at first, at most so many, pictures beside it, nothing of the data as markup."""

from __future__ import annotations

import base64
import html
import io
import random
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_contracts.config import Promise
from pipeline_lib.bank.explanation import Neighbor, PatchExplanation
from pipeline_lib.inspection import page as page_module
from pipeline_lib.inspection.decisions import ImageDecision, common_folder, counted, urgency
from pipeline_lib.inspection.files import outlined_regions, table_row
from pipeline_lib.inspection.known_images import found_at, known_misses, looked_at, missed, other_rates
from pipeline_lib.inspection.page import DecisionPage
from pipeline_lib.inspection.pictures import explanation_picture, tile_place
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.maps.regions import regions_above
from pipeline_lib.maps.visualize import OUTLINE, TILE_PX, patch_tile
from tests.inspection_fixtures import STAND_IN


def a_row(name: str, score: float, *, threshold: float | None = 10.0, note: str = "") -> dict[str, Any]:
    decision = None if threshold is None else "defective" if score > threshold else "good"
    found = ImageDecision(Path(name), "clip", score, threshold, decision, note=note)
    return table_row(found, f"pictures/clip/{name}.jpg")


def written(out: Path, rows: list[dict[str, Any]]) -> str:
    page = DecisionPage(out / "decisions.csv", STAND_IN)
    for row in rows:
        page.add(row, (8, 6))
    page.write(len(rows) + 5)
    return (out / "index.html").read_text(encoding="utf-8").replace("\u00a0", " ")


def shown(page: str) -> list[str]:
    """File names in the order of the page."""
    return re.findall(r'<img src="pictures/clip/(\w+)\.jpg"', page)


def test_defects_come_first_the_surest_at_the_top_then_close_and_noted_images(tmp_path: Path) -> None:
    rows = [
        a_row("far_good", 2.0), a_row("sure", 30.0), a_row("near_good", 9.5), a_row("good", 8.9), a_row("just", 10.2),
        a_row("odd", 1.0, note="all pixels are the same: it shows nothing"),
    ]  # fmt: skip
    for _ in range(3):
        random.Random(0).shuffle(rows)
        assert shown(written(tmp_path, rows)) == ["sure", "just", "near_good", "odd", "good", "far_good"]


def test_it_says_in_words_what_was_decided_and_what_the_threshold_promises(tmp_path: Path) -> None:
    refused = table_row(ImageDecision(Path("<b>cut</b>.png"), None, reason="the file is <empty>"))
    page = written(tmp_path, [a_row("just", 10.25), a_row("near", 9.5), a_row("good", 2.0), refused])
    assert "<h1>2 to look at (1 defective, 1 close), 1 accepted, 1 refused</h1>" in page
    for text in (
        "Defective, but close: 2.5 % above the threshold", "Good, but close: 5.0 % below the threshold",
        "Close is less than 10 % of the threshold above or below it",
        "Good: 80 % below the threshold", "distance 10.25, threshold 10",
        "<li>Threshold from 10 normal images: of good images about 9.1 % are called defective",
        "<li>How many defects are missed is not known: ",
        "<li>To look at, as defective or close, would be 1 of 10 normal training images, scored without themselves.<",
        "By runs/first", "distance 5", "For fewer the run needs more good photographs",
        "fedpatch run own.yaml --out runs/new",
        "<b>10 normal images are too few for a nominal rate of 5 %",
        "<b>&lt;b&gt;cut&lt;/b&gt;.png</b>: the file is &lt;empty&gt;", "hold 9 images, with those of earlier calls",
    ):  # fmt: skip
        assert text in page, text
    assert "This page shows" not in page.split("<main>")[0]
    assert "<script" not in page


def test_without_a_threshold_nothing_is_decided_and_the_highest_scores_come_first(tmp_path: Path) -> None:
    page = written(
        tmp_path, [a_row(name, score, threshold=None) for name, score in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    )
    assert shown(page) == ["b", "c", "a"]
    assert "Not decided: the model has no threshold" in page


@pytest.mark.parametrize("seed", range(3))
def test_of_very_many_images_it_shows_the_surest_defects_and_says_where_the_others_are(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "SHOWN", 4)
    monkeypatch.setattr(page_module, "REFUSED_SHOWN", 2)
    rows = [a_row(f"n{number}", score) for number, score in enumerate(range(1, 31))]
    rows += [table_row(ImageDecision(Path(f"{number}.png"), None, reason="empty")) for number in range(5)]
    random.Random(seed).shuffle(rows)
    page = DecisionPage(tmp_path / "decisions-x.csv", STAND_IN)
    for row in rows:
        page.add(row, (8, 6))
        assert len(page._cards) <= 8
    page.write(35)
    text = (tmp_path / "index-x.html").read_text()
    assert shown(text) == ["n29", "n28", "n27", "n26"]  # scores 30 to 27, threshold 10
    assert "<b>This page shows 4 of 35 images</b>, 4 of the 21 to look at." in text
    assert "And 3 more, in" in text


def test_a_tile_of_the_page_is_that_of_the_explanation(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(255 - pixels).save(tmp_path / "normal.png")
    normal = Neighbor(3, 1.5, image_id="clip/train/good/normal", image_path=tmp_path / "normal.png", center=(0.7, 0.3))
    patches = [
        PatchExplanation((0.2, 0.4), (0.1, 0.1), 2.0, (Neighbor(1, 1.0, "client_0"), normal)),
        PatchExplanation((0.6, 0.6), (0.1, 0.1), 1.8, (normal,)),
    ]
    decision = ImageDecision(tmp_path / "a.png", "clip", 2.0, 1.0, "defective", pixels=pixels)
    sheet = explanation_picture(decision, patches)
    for row, column, image, center in ((0, 0, pixels, (0.2, 0.4)), (0, 2, 255 - pixels, (0.7, 0.3)),
                                       (1, 0, pixels, (0.6, 0.6)), (1, 1, 255 - pixels, (0.7, 0.3))):  # fmt: skip
        width, height, left, top = (round(side * TILE_PX) for side in tile_place(patches, row, column))
        assert (width, height) == sheet.size
        tile = patch_tile(Image.fromarray(image), center, (0.1, 0.1))
        assert sheet.crop((left, top, left + TILE_PX, top + TILE_PX)).tobytes() == tile.tobytes()
    page = DecisionPage(tmp_path / "decisions.csv", STAND_IN)
    page.add(table_row(decision, "pictures/clip/a.jpg", patches), (80, 60), patches)
    page.write(1)
    text = (tmp_path / "index.html").read_text()
    assert text.count("--sheet: url('pictures/clip/a.explained.png')") == 1
    assert text.count('class="patch"') == 5
    _, height, left, top = tile_place(patches, 1, 1)
    share = f"{100 * left / (sheet.width / TILE_PX - 1):.3f}% {100 * top / (height - 1):.3f}%"
    assert f"background-position: {share}" in text
    assert "client_0, distance 1" in text
    assert "normal, distance 1.5" in text


def test_pictures_lie_in_the_page_the_first_to_look_at_before_others_as_many_as_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures/clip").mkdir(parents=True)
    rows = [a_row("good", 2.0), a_row("sure", 30.0), a_row("near", 9.5)]
    for number, row in enumerate(rows):
        panels = Image.new("RGB", (3 * 1000, 800), (9, 9, 9))
        panels.paste((200, 10 * number, 0), (0, 0, 800, 640))
        panels.save(tmp_path / row["picture"])
        Image.new("RGB", (1000, 800), (0, 90, 200)).save(tmp_path / row["picture"].replace(".jpg", ".overlay.jpg"))
    page = DecisionPage(tmp_path / "decisions.csv", STAND_IN)
    for row in rows:
        page.add(row, (1000, 800))
    page.write(3)
    text = (tmp_path / "index.html").read_text()
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(found) == 6
    first, over = (Image.open(io.BytesIO(base64.b64decode(data))) for data in found[:2])
    assert first.size == over.size == (800, 640)
    assert np.abs(np.array(first)[300, 700] - np.array([200, 10, 0])).max() < 8  # of the surest, its own panel alone
    assert "send the whole folder)" not in text
    assert not re.search(r"<a [^>]*>\s*<img", text)  # a page that is sent alone has no picture that leads nowhere
    card = text[text.index('class="card"') :]
    assert card.index('class="verdict') < card.index("<img") < card.index('href="pictures/clip/sure.jpg"')
    monkeypatch.setattr(page_module, "EMBEDDED_BYTES", len(found[0]) + len(found[1]) + 100)
    page.write(3)
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r'<img src="(data|pictures)', text) == ["data"] * 2 + ["pictures"] * 4
    assert text.count("send the whole folder)") == 4
    assert "The pictures of 1 images are in this file" in text


def test_what_is_called_close_counts_as_to_be_looked_at_and_the_surest_comes_first(tmp_path: Path) -> None:
    rows = [a_row("b10", 2.0), a_row("b9", 2.0), a_row("near", 9.5), a_row("sure", 30.0)]
    rows.append(table_row(ImageDecision(Path("cut.png"), None, reason="empty")))
    assert [row["advice"] for row in rows] == [
        "accept", "accept", "look again: close", "look again: defective", "refused"
    ]  # fmt: skip
    assert [row["path"] for row in sorted(rows, key=urgency)] == ["sure", "near", "b9", "b10", "cut.png"]
    assert counted({"accept": 2}) == "0 to look at, 2 accepted"
    assert common_folder(["/a/b/1.png", "/a/c/2.png"]) == "/a"
    assert common_folder(["/a/1.png", "2.png"]) == ""


def test_what_a_threshold_misses_is_counted_on_the_runs_own_defective_images() -> None:
    calibration = pd.DataFrame({"category": ["clip"] * 20, "score": np.linspace(1, 2, 20)})
    model = RunModel(cast(Any, None), ("clip",), 0.05, calibration, None)
    assert missed(model, "clip").startswith("How many defects are missed is not known: the run had no known defect")
    assert looked_at(model, "clip") == (
        "To look at, as defective or close, would be 4 of 20 normal training images, scored without themselves"
    )
    model.scores = pd.DataFrame(
        {
            "category": "clip",
            "label_index": [0, 0, 1, 1, 1, 1],
            "score": [9.0, 0.2, 0.5, 3, 1.9, 3],
            "group": [*"abcdef"],
        }
    )
    said = "Of 4 known defective test images this threshold finds 2 (50 %, with 95 % confidence 7 to 93 %), and"
    assert missed(model, "clip") == f"{said} misses 2"
    assert looked_at(model, "clip") == (  # 1.9 is close to 2, 0.5 is not
        "To look at, as defective or close, would be 3 of 4 known defective test images (75 %, with 95 % confidence 19 "
        "to 99 %); 1 of 2 good test images (50 %, with 95 % confidence 1 to 99 %); 4 of 20 normal training images, "
        "scored without themselves"
    )
    model.fixed_threshold = 0.1
    assert "finds 4 (100 %, with 95 % confidence 40 to 100 %), and misses 0" in missed(model, "clip")
    model.calibration = model.fixed_threshold = None
    assert missed(model, "clip") == looked_at(model, "clip") == ""


@pytest.mark.parametrize(
    ("n_normal", "rate", "promise", "expected"),
    [
        (23, 0.05, "interpolated", (None, 0.2)),  # the least is 1 of 24
        (99, 0.05, "interpolated", (0.01, 0.2)),
        (59, 0.05, "interpolated", (0.017, 0.2)),
        (59, 0.05, "bound", (None, 0.2)),
        (99, 0.3, "interpolated", (0.06, None)),
        (3, 0.05, "interpolated", (None, 0.5)),
    ],
)
def test_another_rate_is_offered_where_the_normal_images_bear_it(
    n_normal: int, rate: float, promise: Promise, expected: tuple[float | None, float | None]
) -> None:
    calibration = pd.DataFrame({"category": "clip", "score": np.linspace(1, 2, n_normal)})
    model = RunModel(cast(Any, None), ("clip",), rate, calibration, None, promise)
    assert other_rates(model, ["clip"]) == expected
    for other in filter(None, expected):
        assert not replace(model, target_rate=other).shortfalls(["clip"])
    model.fixed_threshold = 1.5
    assert other_rates(model, ["clip"]) == (None, None)


def test_the_page_names_known_misses_and_commands_that_leave_its_own_results_alone(tmp_path: Path) -> None:
    model = replace(
        STAND_IN,
        calibration=pd.DataFrame({"category": "clip", "score": np.linspace(1, 10, 99)}),
        scores=pd.DataFrame({
            "category": "clip", "label_index": [0, 1, 1, 1], "score": [2.0, 9.2, 20.0, 3.0], "group": [*"abcd"],
            "path": ["good/a.jpg", "cracked/<b>.jpg", "cracked/c.jpg", "cracked/d.jpg"],
        }),
    )  # fmt: skip
    assert known_misses(model, ["clip"]) == ["cracked/d.jpg", "cracked/<b>.jpg"]
    assert found_at(model, 0.2, ["clip"]) == (2, 3)
    page = DecisionPage(tmp_path / "the results" / "decisions.csv", model, ["--category", "clip", "--explain"])
    page.add(a_row("a", 9.8), (8, 6))
    page.write(1)
    text = page.path.read_text(encoding="utf-8")
    assert "<code>cracked/d.jpg</code>, <code>cracked/&lt;b&gt;.jpg</code>." in text
    assert "Of the 3 known defective test images that finds 2." in text
    commands = [html.unescape(found) for found in re.findall(r"<code>(fedpatch score runs/first .*?)</code>", text)]
    beside = shlex.quote(f"{tmp_path}/the results")
    assert [shlex.split(one)[4:] for one in commands[-2:]] == [
        ["--out", f"{tmp_path}/the results_at_{rate}", "--category", "clip", "--explain", "--false-alarm-rate", rate]
        for rate in ("0.01", "0.2")
    ]
    assert not any(f"--out {beside} " in one for one in commands)


def test_what_a_threshold_promises_in_words() -> None:
    calibration = pd.DataFrame({"category": ["clip"] * 9, "score": np.linspace(1, 2, 9)})
    model = RunModel(cast(Any, None), ("clip",), 0.05, calibration, None)
    assert model.promised("clip").startswith(
        "Threshold from 9 normal images: of good images about 10.0 % are called defective, at most 28.3 % with "
    )
    assert model.promised("other") == ""
    model.categories = ("bolt", "clip")
    assert model.promised("clip").startswith("clip: threshold from 9 normal images: of good")
    model.fixed_threshold = 1.0
    assert model.promised("clip") == ""


def test_a_rate_that_cannot_be_reached_is_one_line_for_all_categories_alike() -> None:
    names = ["clip"] * 9 + ["bolt"] * 9 + ["nut"] * 8
    calibration = pd.DataFrame({"category": names, "score": np.linspace(1, 2, 26)})
    model = RunModel(cast(Any, None), ("clip", "bolt", "nut"), 0.05, calibration, None)
    too_few = "are too few for a nominal rate of 5 %: the threshold is their largest score; 19 are needed, or a higher"
    assert model.shortfalls(["clip", "bolt", "nut", "other"]) == [
        f"clip, bolt: 9 normal images {too_few} target", f"nut: 8 normal images {too_few} target"
    ]  # fmt: skip
    model.target_rate = 0.1
    assert [line.partition(":")[0] for line in model.shortfalls(["clip", "nut"])] == ["nut"]
    model.fixed_threshold = 1.0
    assert model.shortfalls(["nut"]) == []


def a_decision(score: float, *, shape: tuple[int, int] = (240, 320)) -> ImageDecision:
    """One pixel of the map is above the others, at (100, 60)."""
    anomaly_map = np.zeros(shape, np.float32)
    anomaly_map[60, 100] = score
    mask, regions = regions_above(anomaly_map, 10.0)
    return ImageDecision(
        Path("a.png"), "clip", score, 10.0, "defective" if score > 10 else "good", regions=regions, mask=mask,
        pixels=np.full((*shape, 3), 90, np.uint8), anomaly_map=anomaly_map,
    )  # fmt: skip


@pytest.mark.parametrize(("score", "is_ringed"), [(12.0, True), (9.5, True), (8.0, False)])
def test_a_place_of_a_pixel_is_ringed_and_the_highest_one_of_a_good_image_that_is_close(
    score: float, is_ringed: bool
) -> None:
    picture = np.array(outlined_regions(a_decision(score), (5.0, 15.0)))
    ring = np.argwhere((picture == OUTLINE).all(axis=2))
    on_the_line = ring[np.abs(np.hypot(*(ring - (60, 100)).T) - 240 / 24) < 2.5]
    assert (len(on_the_line) > 40) == is_ringed
    assert a_decision(score).is_close == (score == 9.5)


def test_a_place_that_is_large_enough_has_no_ring() -> None:
    decision = a_decision(12.0)
    anomaly_map = np.zeros((240, 320), np.float32)
    anomaly_map[100:160, 100:160] = 12.0
    mask, regions = regions_above(anomaly_map, 10.0)
    picture = np.array(
        outlined_regions(replace(decision, anomaly_map=anomaly_map, mask=mask, regions=regions), (5, 15))
    )
    assert not (picture[130, 130:190] == OUTLINE).all(axis=1)[:28].any()
    assert (picture[130, 158:166] == OUTLINE).all(axis=1).any()
