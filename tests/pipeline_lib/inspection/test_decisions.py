"""A finished run on new images: the run's own scores again, decisions, refusals, regions, explanations, watching."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ArtifactError, ConfigError, FedpatchError
from data_contracts.settings import ImageReading
from flows.cli import main
from flows.experiment import centralized_experiment, federated_experiment
from flows.scoring import score_images
from pipeline_lib.dataset.images import load_image, read_stored
from pipeline_lib.inspection import decisions as decisions_module
from pipeline_lib.inspection.decisions import decide_image, file_notes, find_images
from pipeline_lib.inspection.pictures import explain
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.inspection.session import ScoreSession
from pipeline_lib.maps.regions import regions_above
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_image, write_tiny_autovi


@pytest.fixture(scope="module")
def runs(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`central`, a centralized run of two categories on `data`, and `federated`, one of pipe_clip by picks."""
    root = tmp_path_factory.mktemp("runs")
    write_tiny_autovi(root / "data", categories=("pipe_clip", "tank_screw"), train=9, good=4, defective=3)
    shutil.copytree(finished / "store", root / "store")  # of the same images
    central = experiment_values(root / "data", root / "store", root / "central", federated={"mode": "centralized"})
    assert centralized_experiment(ExperimentConfig.model_validate(central), return_state=True).is_completed()
    federated = experiment_values(
        root / "data",
        root / "store",
        root / "federated",
        dataset={"categories": ["pipe_clip"]},
        model={"rows": "picks"},
    )
    assert federated_experiment(ExperimentConfig.model_validate(federated), return_state=True).is_completed()
    return root


@pytest.mark.parametrize(
    ("values", "value_range", "note"),
    [
        (np.eye(8, dtype=np.uint8), 255, ""),
        (np.zeros((8, 8), np.uint8), 255, "all pixels are the same: it shows nothing"),
        (np.eye(8, dtype=np.uint8), 4095, "8 bits a value, the training images have more"),
        (np.eye(8, dtype=np.uint16), 255, "16 bits a value, the training images have 8"),
        (np.eye(8, dtype=np.uint16), None, ""),
    ],
)
def test_what_a_readable_file_should_be_looked_at_for(
    values: np.ndarray, value_range: int | None, note: str, tmp_path: Path
) -> None:
    stored = read_stored(write_image(tmp_path / "a.png", values).read_bytes(), name="a.png")
    assert "; ".join(file_notes(stored, ImageReading(value_range=value_range))) == note


def test_the_run_scores_its_test_images_as_it_did_before(runs: Path) -> None:
    model = open_run_model(runs / "central")
    scores = pd.read_parquet(runs / "central" / "scores.parquet")
    for row in scores.iloc[::3].itertuples():
        decision = decide_image(model, runs / "data" / row.path)
        assert decision.category == row.category
        assert decision.score == pytest.approx(row.score, rel=1e-6)
        assert decision.threshold is not None
        assert decision.decision == ("defective" if row.score > decision.threshold else "good")
        assert (len(decision.regions) > 0) == (decision.decision == "defective")


def test_the_threshold_follows_the_rate_and_can_be_given(runs: Path) -> None:
    strict, loose = (open_run_model(runs / "central", target_rate=rate).threshold("pipe_clip") for rate in (0.1, 0.5))
    assert strict is not None
    assert loose is not None
    assert loose < strict
    assert open_run_model(runs / "central", threshold=1.5).threshold("pipe_clip") == 1.5
    for rate in (0.0, 1.0, -0.1, math.nan, math.inf):
        with pytest.raises(
            ConfigError, match=r"the false-alarm rate is .*; it accepts a finite number above 0 and below 1"
        ):
            open_run_model(runs / "central", target_rate=rate)
    for threshold in (math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigError, match=r"the threshold is .*; it accepts a finite number$"):
            open_run_model(runs / "central", threshold=threshold)


def call(arguments: list[str]) -> int:
    """Exit status of `fedpatch ARGUMENTS`."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def an_image(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.full((height, width, 3), 120, np.uint8)).save(path)
    return path


def test_images_that_do_not_fit_are_refused_with_the_reason(runs: Path, tmp_path: Path) -> None:
    model = open_run_model(runs / "central")
    size = size_of(next((runs / "data" / "pipe_clip" / "train" / "good").iterdir()))
    wide = decide_image(model, an_image(tmp_path / "wide.png", 3 * size[0], size[1]), category="pipe_clip")
    assert (wide.score, wide.decision) == (None, None)
    assert "times as wide as high; the training images of pipe_clip have" in wide.reason
    small = decide_image(model, an_image(tmp_path / "s.png", size[0] // 4, size[1] // 4), category="pipe_clip")
    assert "less than half" in small.reason
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert "cannot read image" in decide_image(model, broken, category="pipe_clip").reason
    nameless = decide_image(model, an_image(tmp_path / "fine.png", *size))
    assert nameless.category is None
    assert "give --category" in nameless.reason
    with pytest.raises(FedpatchError, match="knows pipe_clip, tank_screw, not cookie"):
        decide_image(model, broken, category="cookie")


def test_an_image_of_something_else_is_marked_foreign(runs: Path, tmp_path: Path) -> None:
    size = size_of(next((runs / "data" / "pipe_clip" / "train" / "good").iterdir()))
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    decision = decide_image(open_run_model(runs / "central"), tmp_path / "noise.png", category="pipe_clip")
    assert decision.decision == "defective"
    assert decision.note.startswith("foreign: ")


def test_a_photograph_that_the_model_was_made_from_is_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = pd.read_parquet(runs / "central" / "dataset_index.parquet")
    own = index[index.category == "pipe_clip"]
    camera = tmp_path / "camera"
    camera.mkdir()
    for split, name in (("train", "known.png"), ("test", "other.png")):
        row = own[(own.split == split) & (own.label_index == 0)].iloc[0]
        shutil.copyfile(runs / "data" / row.path, camera / name)
    image_id = own[own.split == "train"].image_id.iloc[0]
    arguments = ["score", str(runs / "central"), str(camera), "--category", "pipe_clip", "--out", str(tmp_path / "out")]
    assert call(arguments) == 0
    said = "1 image is a training image of the run: its score says nothing of other parts"
    assert f"warning: {said}" in capsys.readouterr().out
    assert f"<b>{said}.</b>" in (tmp_path / "out" / "index.html").read_text()
    table = pd.read_csv(tmp_path / "out" / "decisions.csv", keep_default_na=False)
    known, other = (table[table.path == str(camera / name)].iloc[0] for name in ("known.png", "other.png"))
    assert known.note.startswith(f"a training image: the run learned from it, as {image_id};")
    assert known.advice in ("look again: note", "look again: close", "look again: defective")
    assert "training" not in other.note
    assert call([*arguments[:-2], "--json"]) == 0
    assert said in capsys.readouterr().err


def test_damaged_calibration_scores_are_an_error(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "central", tmp_path / "run")
    (tmp_path / "run" / "calibration.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"calibration\.parquet is damaged"):
        open_run_model(tmp_path / "run")


def test_regions_are_parts_with_area_box_and_peak() -> None:
    values = np.zeros((6, 8), np.float32)
    values[1:3, 2:5] = 2.0
    values[2, 3] = 3.0
    values[5, 7] = 5.0
    mask, regions = regions_above(values, 1.0)
    assert int(mask.sum()) == 7
    first, second = regions
    assert (first.area_px, first.peak_score) == (1, 5.0)
    assert (second.area_px, second.left, second.top, second.right, second.bottom) == (6, 2, 1, 5, 3)
    assert (second.peak_x, second.peak_y) == (3, 2)


def a_defective_one(runs: Path) -> Path:
    scores = pd.read_parquet(runs / "central" / "scores.parquet")
    own = scores[scores.category == "pipe_clip"]
    return runs / "data" / str(own.sort_values("score").path.iloc[-1])


def test_neighbours_name_their_image_where_the_run_held_all_images(runs: Path, tmp_path: Path) -> None:
    model = open_run_model(runs / "central")
    decision = decide_image(model, a_defective_one(runs))
    patches = explain(model, decision)
    assert patches[0].score == pytest.approx(decision.score)
    nearest = patches[0].neighbors[0]
    assert nearest.distance == pytest.approx(decision.score, rel=1e-5)
    assert nearest.image_id is not None
    assert nearest.image_id.startswith("pipe_clip/train/good/")
    assert nearest.image_path is not None
    assert nearest.image_path.is_file()
    at_server = open_run_model(runs / "federated")
    found = explain(at_server, decide_image(at_server, a_defective_one(runs)))[0].neighbors[0]
    assert found.client in {"client_0", "client_1", "client_2"}  # on this machine: its image is known
    partition = pd.read_parquet(runs / "federated" / "partition.parquet").set_index("image_id").client_id
    assert partition[found.image_id] == found.client
    assert found.origin == f"{found.image_id} ({found.client})"
    shutil.copytree(runs / "federated", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("provenance"))
    elsewhere = open_run_model(tmp_path / "elsewhere")  # as of stations
    found = explain(elsewhere, decide_image(elsewhere, a_defective_one(runs)))[0].neighbors[0]
    assert (found.image_id, found.image_path) == (None, None)
    assert found.origin in {"client_0", "client_1", "client_2"}


def test_the_report_of_a_run_says_why_and_shows_normal_images_where_all_clients_are_here(runs: Path) -> None:
    central, federated = ((runs / run / "report.html").read_text() for run in ("central", "federated"))
    for page in (central, federated):
        assert 'class="card why"' in page
        assert re.search(r'alt="Normal patch of pipe_clip/train/good/\w+( \(client_\d\))? in its surroundings', page)
    assert "(client_" not in central
    assert re.search(r"Normal patch of pipe_clip/train/good/\w+ \(client_\d\)", federated)
    assert "on one machine" in federated
    assert "on one machine" not in central


@pytest.mark.parametrize(("run", "category"), [("central", "tank_screw"), ("federated", "pipe_clip")])
def test_provenance_leads_to_the_very_patch_or_to_one_that_the_mean_stands_for(
    runs: Path, run: str, category: str
) -> None:
    from pipeline_lib.features.image_batches import iter_images, iter_patches

    model = open_run_model(runs / run)
    patchcore = model.patchcore(category)
    table = model.provenance(category)
    assert table is not None
    assert sorted(table.bank_row) == list(range(len(patchcore.memory_bank)))
    row = table.iloc[5]
    path = runs / "data" / category / "train" / "good" / f"{row.image_id.rsplit('/', 1)[1]}.png"
    sample = {"image": load_image(path), "category": category, "path": str(path)}
    (item,) = iter_patches(patchcore.extractor, iter_images([sample], image_size=patchcore.inference.image_size))
    patch, own = item.patches[row.patch_index], patchcore.memory_bank.features[row.bank_row]
    if run == "federated":  # of picks
        np.testing.assert_array_equal(patch, own)
    else:
        metrics = json.loads((runs / run / "metrics.json").read_text())
        (client,) = metrics["federation"]["clients"].values()
        assert 0 < np.linalg.norm(patch - own) <= client["covering_radius"]


def test_the_command_writes_table_and_pictures_and_prints_json(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = runs / "data" / "pipe_clip" / "test"
    arguments = ["score", str(runs / "central"), str(test), "--out", str(tmp_path), "--explain", "--json"]
    assert call(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(find_images([test])) == 10
    assert all(set(one) - {"note"} == {"path", "category", "score", "threshold", "decision"} for one in found)
    table = pd.read_parquet(tmp_path / "decisions.parquet")
    assert table.decision.tolist() == [one["decision"] for one in found]
    flagged = table[table.decision == "defective"].iloc[0]
    assert flagged.area_px > 0
    assert json.loads(flagged.regions)[0]["peak_score"] > flagged.threshold * 0.5
    assert json.loads(flagged.nearest_normal)[0]["neighbors"][0]["image_id"].startswith("pipe_clip/train")
    for ending in (".jpg", ".overlay.jpg", ".explained.png"):
        assert (tmp_path / (flagged.picture.removesuffix(".jpg") + ending)).is_file()
    csv = pd.read_csv(tmp_path / "decisions.csv", keep_default_na=False)
    assert len(csv) == 10
    assert csv.map(lambda cell: len(str(cell))).to_numpy().max() < 300
    nearest = pd.read_csv(tmp_path / "nearest_normal.csv")
    first = nearest[(nearest.path == flagged.path) & (nearest.patch == 1) & (nearest["rank"] == 1)].iloc[0]
    assert csv.nearest_normal[first.row] == first.image_id
    assert first.distance == pytest.approx(first.score, rel=1e-5)
    page = (tmp_path / "index.html").read_text()
    assert "pipe_clip: threshold from 9 normal images" in page
    linked = {link for link in re.findall(r'(?:src|href)="([^"#]+)"', page) if not link.startswith("data:")}
    assert all((tmp_path / link).exists() for link in linked)
    assert {flagged.picture, "decisions.csv", "pictures/"} <= linked
    assert "--sheet: url('data:image/jpeg;base64," in page
    assert csv.advice[csv.decision == "defective"].eq("look again: defective").all()
    known = json.loads((runs / "central" / "metrics.json").read_text())["categories"]["pipe_clip"]["decision"]
    missed = f"of {known['n_defective']} known defective test images this threshold finds {known['found']} ("
    assert missed in page
    scale = open_run_model(runs / "central").colour_scale("pipe_clip", 1.0)
    assert f"<span>distance {scale[0]:.4g}</span>" in (runs / "central" / "report.html").read_text()  # as in the report


def test_the_command_names_refused_images_and_what_is_wrong(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert call(["score", "--model", str(runs / "federated"), str(bad), str(a_defective_one(runs))]) == 0
    shown = capsys.readouterr()
    assert "1 refused" in shown.out
    assert "Threshold from 9 normal images" in shown.out
    assert f"fedpatch: refused {bad}: cannot read image" in shown.err
    for arguments, message in (
        (["score", str(runs / "federated"), str(bad)], "the file is empty"),
        (["score", str(runs / "federated")], "give images or directories"),
        (["score", str(runs / "data"), str(bad)], "holds no trained model"),
        (["score", str(runs / "federated"), str(tmp_path / "none")], "there is no file or directory"),
        (["score", str(runs / "federated"), str(bad), "--explain"], "say where they go with --out"),
        (["score", str(runs / "federated"), str(bad), "--false-alarm-rate", "2"], "above 0 and below 1"),
    ):
        assert call(arguments) == 1
        assert message in capsys.readouterr().err


def test_bad_names_and_bad_images_cost_no_other_decision_and_a_second_batch_adds_to_the_first(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera"
    (camera / ".snapshot").mkdir(parents=True)
    for name in (b"a.png", b"caf\xe9.png", b"odd.png", b"z.png", b".snapshot/a.png"):
        shutil.copyfile(a_defective_one(runs), os.path.join(os.fsencode(camera), name))
    for name in (b"cut-\xe9.png", b"i.jfif"):
        Path(os.fsdecode(os.path.join(os.fsencode(camera), name))).write_bytes(b"")

    def read(path: Path) -> bytes:
        if path.name == "odd.png":
            raise MemoryError("no more")
        return path.read_bytes()

    monkeypatch.setattr(decisions_module, "read_bytes", read)
    arguments = ["score", str(runs / "federated"), str(camera), "--out", str(camera / "scored"), "--json"]
    for number in (1, 2):
        assert call(arguments) == 0
        shown = capsys.readouterr()
        assert "left out: " in shown.err
        assert "1 unsupported ending (.jfif)" in shown.err
        found = {Path(one["path"]).name: one for one in json.loads(shown.out)}
        assert [*found] == ["a.png", "caf\\xe9.png", "cut-\\xe9.png", "odd.png", "z.png"]
        assert found["a.png"]["score"] == found["caf\\xe9.png"]["score"] == found["z.png"]["score"]
        assert "the file is empty" in found["cut-\\xe9.png"]["reason"]
        assert found["odd.png"]["reason"] == "it cannot be scored: MemoryError: no more"
        table = pd.read_csv(camera / "scored" / "decisions.csv")
        assert table.path.map(lambda path: Path(path).name).tolist() == [*found] * number
        assert "regions" not in table
        assert len(pd.read_csv(camera / "scored" / "regions.csv")) == table.n_regions.sum() > 0
    assert call([*arguments[:2], str(camera / ".snapshot" / "none"), *arguments[3:]]) == 1


def test_a_watched_folder_is_scored_as_it_fills(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    source = a_defective_one(runs)

    def put(name: str) -> None:
        shutil.copyfile(source, folder / name)
        ahead = time.time() + 3600
        os.utime(folder / name, (ahead, ahead))

    put("a.png")
    session = ScoreSession(open_run_model(runs / "federated"), out=tmp_path / "out")
    done = threading.Event()
    decisions: Iterator[Any] = session.watch(folder, every_seconds=0.01, stop=done.is_set)
    assert next(decisions).path.name == "a.png"
    put("b.png")
    assert next(decisions).path.name == "b.png"
    done.set()
    assert list(decisions) == []
    assert pd.read_parquet(tmp_path / "out" / "decisions.parquet").path.map(lambda p: Path(p).name).tolist() == [
        "a.png",
        "b.png",
    ]
    with pytest.raises(FedpatchError, match="no directory"):
        next(session.watch(tmp_path / "nowhere"))


def test_the_flow_gives_the_decisions_and_fails_with_nothing_but_refused(runs: Path, tmp_path: Path) -> None:
    state: Any = score_images(
        model=runs / "federated", paths=[a_defective_one(runs)], out=tmp_path / "out", return_state=True
    )
    assert state.is_completed()
    assert json.loads(state.result())[0]["category"] == "pipe_clip"
    assert (tmp_path / "out" / "decisions.csv").is_file()
    (tmp_path / "x.png").write_bytes(b"")
    state = score_images(model=runs / "federated", paths=[tmp_path / "x.png"], out=tmp_path / "o", return_state=True)
    assert state.is_failed()
    assert "all 1 images are refused" in state.message
