"""The configuration that a data set of one's own begins with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import DatasetError
from flows.cli import main
from pipeline_lib.configuration.files import load_config
from pipeline_lib.planning.experiment import plan_experiment
from pipeline_lib.planning.first_configuration import first_configuration, proposed_size
from tests.dataset_fixtures import write_image, write_tiny_autovi, write_tiny_folder


@pytest.mark.parametrize(
    ("native", "proposed"),
    [
        ((64, 48), (64, 64)),
        ((1130, 460), (640, 256)),
        ((4000, 3000), (448, 352)),
        ((900, 900), (384, 384)),
        ((20, 900), (64, 896)),
    ],
)
def test_sizes_keep_the_shape_in_steps_of_the_stride(native: tuple[int, int], proposed: tuple[int, int]) -> None:
    assert proposed_size(*native) == proposed


def test_it_is_read_planned_and_names_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tiny_autovi(tmp_path / "line 1", categories=("bracket", "01"))
    for path in (root / "bracket/train/good").iterdir():
        write_image(path, np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(SystemExit) as done:
        main(["init", str(root), "--out", str(tmp_path / "own.yaml")])
    assert not done.value.code
    out, said = capsys.readouterr()
    assert out.splitlines()[0] == (
        "taken: 01: train/good = 6, test/good = 4 normal; test/missing = 3, test/scratch = 3 known defective"
    )
    assert f"not judged yet? keep such images outside {root}" in said
    assert f"fedpatch dataset validate {tmp_path / 'own.yaml'}" in said
    assert f"fedpatch run {tmp_path / 'own.yaml'} --out runs/first" in said
    config = load_config(tmp_path / "own.yaml")
    assert (config.name, config.dataset.root, config.dataset.layout) == ("line_1", root, "autovi")
    assert config.preprocessing.size_by_category == {"01": (64, 64), "bracket": (320, 256)}
    plan = plan_experiment(config, root)
    assert {name: part.images for name, part in plan.train.items()} == {"01": 6, "bracket": 6}
    with pytest.raises(SystemExit) as refused:
        main(["init", str(root), "--out", str(tmp_path / "own.yaml")])
    assert refused.value.code == 1
    assert "is there already" in capsys.readouterr().err


def test_it_says_what_images_are_taken_for_and_doubts_names_of_what_nobody_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiny_folder(tmp_path / "photos")
    with pytest.raises(SystemExit):
        main(["init", str(root), "--out", str(tmp_path / "first.yaml")])
    taken = "photos: good = 10 normal (8 for training, 2 for the test); defective = 3 known defective"
    assert capsys.readouterr().out.splitlines()[:-1] == [f"taken: {taken}"]
    assert f"  # {taken}\n" in (tmp_path / "first.yaml").read_text()
    (root / "defective").rename(root / "New 2026-11")
    with pytest.raises(SystemExit):
        main(["init", str(root), "--out", str(tmp_path / "second.yaml")])
    assert "warning: photos/New 2026-11 sounds as if nobody had judged its images" in capsys.readouterr().out
    for path in (root / "New 2026-11").iterdir():
        path.unlink()
    only_good = first_configuration(root)
    assert only_good.taken == ["photos: good = 10 normal (8 for training, 2 for the test); none defective"]
    assert not only_good.unjudged
    assert load_config(tmp_path / "first.yaml").federated.mode == "centralized"


def test_groups_that_file_names_show_are_written_down_and_others_stay_a_comment(tmp_path: Path) -> None:
    for number in range(48):
        write_image(tmp_path / f"clear/a/good/p{number % 12}_{number}.png", np.zeros((64, 64, 3), np.uint8))
        write_image(tmp_path / f"unclear/a/good/{number}.png", np.zeros((64, 64, 3), np.uint8))
    files = {}
    for name in ("clear", "unclear"):
        (tmp_path / f"{name}.yaml").write_text(first_configuration(tmp_path / name).text)
        files[name] = load_config(tmp_path / f"{name}.yaml")
    rule = files["clear"].dataset.group
    assert isinstance(rule, dict)
    assert re.search(rule["pattern"], "a/good/p11_35.png")[1] == "p11"  # type: ignore[index]
    assert files["clear"].federated.partition_groups
    assert (files["unclear"].dataset.group, files["unclear"].federated.partition_groups) == (None, False)
    text = (tmp_path / "unclear.yaml").read_text()
    assert "  # group: {pattern: '/(\\d+)_'}  # if several show one part: 17_a.jpg, 17_b.jpg" in text
    (tmp_path / "unclear.yaml").write_text(text.replace("# group:", "group:"))
    example = load_config(tmp_path / "unclear.yaml").dataset.group
    assert isinstance(example, dict)
    assert re.findall(example["pattern"], "good/17_a.jpg good/17_b.jpg") == ["17", "17"]


def test_categories_without_training_images_are_left_out_and_none_is_an_error(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "part")
    (tmp_path / "empty/good").mkdir(parents=True)
    assert '"empty"' not in first_configuration(tmp_path).text
    for path in (tmp_path / "part/good").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"no image of part can be read: cannot read image .*img"):
        first_configuration(tmp_path)
    for path in (tmp_path / "part/good").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"no category in .* has good training images \(layout folder, shown by"):
        first_configuration(tmp_path)
