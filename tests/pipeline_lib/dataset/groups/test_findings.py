"""What validation says of near copies: the pairs, once for each test image, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from data_contracts.validation import Finding
from pipeline_lib.dataset.groups.assignment import assign_groups
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.dataset.groups.thumbnails import Thumbnails
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.validation import validate_dataset
from tests.dataset_fixtures import write_image
from tests.pipeline_lib.dataset.groups.test_near_copies import as_pictures, textures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 scenes: training has 0 to 19, test 20 to 29; scene 3 and scenes 20 to 27 are in test once more, darker."""
    root = tmp_path_factory.mktemp("data")
    scenes = textures(30)
    for number, scene in enumerate(scenes):
        write_image(root / f"a/{'train' if number < 20 else 'test'}/good/{number:02d}_a.png", as_pictures(scene))
    for number in (3, *range(20, 28)):
        write_image(root / f"a/test/good/{number:02d}_b.png", as_pictures(0.7 * scenes[number] + 20))
    return root


def findings(root: Path, rule: Any = None) -> dict[str, list[Finding]]:
    pictures = Thumbnails()
    index = index_dataset(root, look=pictures.add)
    groups = None if rule is None else assign_groups(index, rule, {})
    report = validate_dataset(index, root, thumbnails=pictures.to_arrays(), groups=groups)
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.code, []).append(finding)
    return found


def test_near_copies_across_training_and_test_and_across_halves_are_named_in_pairs(root: Path) -> None:
    found = findings(root)
    (seen,) = found["near_copy_across_splits"]
    assert (seen.severity, seen.path) == ("warning", "a/test/good/03_b.png")
    assert seen.message.startswith("nearly the same as a/train/good/03_a.png of training (correlation 0.9")
    assert "dataset.group" in seen.advice
    index = index_dataset(root)
    half = {Path(path).name: half_of(digest) for path, digest in zip(index.path, index.sha256, strict=True)}
    parted = {n for n in range(20, 28) if half[f"{n}_a.png"] != half[f"{n}_b.png"]}
    assert parted  # of eight scenes some are
    assert {int(Path(one.path).name[:2]) for one in found["near_copy_across_halves"]} == parted
    assert all(half[Path(one.path).name] == "report" for one in found["near_copy_across_halves"])
    for one in found["near_copy_across_halves"]:
        assert ".png of the test set, in its other half, (correlation" in one.message
        assert "The test set is halved by the images' SHA-256" in one.advice
        assert "Between training and test no near copies" not in one.advice  # there is one


def test_beside_near_copies_in_the_test_set_training_is_said_to_be_clean(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "clean")
    (tmp_path / "clean/a/test/good/03_b.png").unlink()
    found = findings(tmp_path / "clean")
    assert "near_copy_across_splits" not in found
    (advice,) = {one.advice for one in found["near_copy_across_halves"]}
    assert advice.startswith("Between training and test no near copies were found. The test set is halved")
    assert "--set dataset.group=found" in advice


def test_halves_by_group_part_no_near_copies_and_a_large_group_is_said(root: Path) -> None:
    found = findings(root, {"pattern": r"/(\d\d)_"})
    assert "near_copy_across_halves" not in found
    assert len(found["near_copy_across_splits"]) == 1  # which no group mends
    assert "large_group" not in found
    (large,) = findings(root, {"pattern": "_(b)"})["large_group"]
    assert large.message.startswith("group a/b holds 9 of the 39 images of a")


def test_a_group_is_in_one_half_and_an_image_without_one_in_that_of_its_file() -> None:
    assert {half_of(digest, "a/7") for digest in ("0f", "1f", "ee", "ff")} == {half_of("00", "a/7")}
    assert [half_of(digest) for digest in ("0f", "1f", "ee", "ff")] == ["development", "report"] * 2
    halves = [half_of("", f"a/{n}") for n in range(200)]
    assert 70 < halves.count("report") < 130


def test_equal_pictures_are_a_finding_of_their_own(tmp_path: Path) -> None:
    for number, scene in enumerate(textures(12)):
        write_image(tmp_path / f"a/train/good/{number:02d}.png", as_pictures(scene))
    write_image(tmp_path / "a/test/good/00.png", as_pictures(textures(12)[5]))
    found = findings(tmp_path)
    assert "near_copy_across_splits" not in found
    assert len(found["duplicate_across_splits"]) == 1
