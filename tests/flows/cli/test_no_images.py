"""A directory in which no layout finds an image: every command says where images lie, and what makes a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from tests.conftest import experiment_values
from tests.dataset_fixtures import write_image, write_tiny_folder

COMMANDS = [
    "dataset validate", "dataset stats", "dataset stats --normalization", "dataset preview", "init", "plan",
]  # fmt: skip
SHAPES = {
    "loose": (".",),
    "in train": ("train",),
    "in train of a category": ("part/train",),
    "by names of their own": ("ok", "nok"),
    "no image": (),
}


@pytest.fixture(params=SHAPES)
def directories(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Path]]:
    """(what a user points at, the directories below it that hold images)."""
    root = tmp_path / "camera a"
    (root / "empty").mkdir(parents=True)
    places = [root / name for name in SHAPES[request.param]]
    for place in places:
        for number in range(3):
            write_image(place / f"img{number}.png", np.full((8, 8, 3), 10 * number, np.uint8))
    return root, places


@pytest.mark.parametrize("command", COMMANDS)
def test_where_images_lie_and_what_makes_a_data_set_of_them(
    command: str,
    directories: tuple[Path, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, places = directories
    monkeypatch.chdir(tmp_path)
    arguments = [*command.split(), str(root)]
    if command == "plan":
        (tmp_path / "own.yaml").write_text(
            f"dataset: {{root: '{root}', layout: auto}}\nmodel: {{backbone: efficientnet_lite0}}\n"
        )
        arguments[-1] = "own.yaml"
    if command == "dataset preview":
        arguments += ["--out", "preview.jpg"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code not in (0, None)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for place in places:
        assert f"{place} (3)" in said
    if not places:
        assert "it holds no image (" in said
    elif len(places) == 1:
        assert f"`fedpatch dataset import --good '{places[0]}' --category NAME --out DATA`" in said
    else:
        assert "`fedpatch dataset import --good DIR --defective DIR --category NAME --out DATA`" in said


@pytest.mark.usefixtures("prefect_server")
def test_a_run_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "camera/train"
    write_image(place / "a.png", np.zeros((8, 8, 3), np.uint8))
    values = experiment_values(place.parent, tmp_path / "store", tmp_path / "out", dataset={"layout": "auto"})
    (tmp_path / "own.yaml").write_text(json.dumps(values))
    with pytest.raises(SystemExit, match="1"):
        main(["run", str(tmp_path / "own.yaml")])
    assert f"images lie in {place} (1); `fedpatch dataset import" in capsys.readouterr().err


def test_what_import_makes_of_them_is_a_data_set_without_a_table_of_no_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_tiny_folder(tmp_path / "part") / "good"
    for words in (
        ["import", "--good", good, "--category", "part", "--out", tmp_path / "data"],
        ["stats", tmp_path / "data"],
    ):
        with pytest.raises(SystemExit, match="0"):
            main(["dataset", *map(str, words)])
        shown = capsys.readouterr().out
        assert "part" in shown
        assert "masks" not in shown
