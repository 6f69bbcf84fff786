"""Groups by a pattern, by a file, and as they are found; what cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.groups.assignment import (
    assign_groups,
    group_by_image,
    large_groups,
    named_groups,
    rule_fingerprint,
)


def index(*paths: str, problem: str = "") -> pd.DataFrame:
    rows = []
    for path in paths:
        category, split, label, name = path.split("/")
        stem = name.rpartition(".")[0]
        rows.append({"image_id": f"{category}/{split}/{label}/{stem}", "category": category, "split": split,
                     "path": path, "problem": problem})  # fmt: skip
    return pd.DataFrame(rows)


SCREWS = index(
    "screw/train/good/01_2008_305_090_crop.jpg",
    "screw/test/good/01_2009_305_090_crop.jpg",
    "screw/test/pit/01_2010_395_270_crop.jpg",
    "tile/train/good/exp0.jpg",
)


def groups(table: pd.DataFrame, rule: Any) -> list[str | None]:
    found = group_by_image(assign_groups(table, rule, {}))
    return [found.get(image_id) for image_id in table.image_id]


def test_a_pattern_names_the_group_by_its_brackets_or_as_a_whole_within_a_category() -> None:
    assert groups(SCREWS, {"pattern": r"_(\d+_\d+)_crop"}) == ["screw/305_090", "screw/305_090", "screw/395_270", None]
    assert groups(SCREWS, {"pattern": r"\d\d\d_crop"}) == ["screw/090_crop", "screw/090_crop", "screw/270_crop", None]
    assert groups(SCREWS, {"pattern": "train|test"})[0] == "screw/train"  # the folders belong to what is searched
    assert named_groups(SCREWS, {"pattern": r"(\d+)_crop"}) == dict(
        zip(SCREWS.image_id[:3], ["screw/090", "screw/090", "screw/270"], strict=True)
    )
    assert named_groups(SCREWS, "found") == {}
    assert named_groups(SCREWS, None) is None


def test_a_file_names_images_by_path_or_by_a_name_that_one_image_has(tmp_path: Path) -> None:
    as_json, as_csv = tmp_path / "groups.json", tmp_path / "groups.csv"
    as_json.write_text(json.dumps({"01_2008_305_090_crop.jpg": 7, "screw/test/good/01_2009_305_090_crop.jpg": "7"}))
    as_csv.write_text("image,group\n01_2010_395_270_crop.jpg,a\nexp0.jpg,\nnot_there.jpg,b\n")
    assert groups(SCREWS, {"file": str(as_json)}) == ["screw/7", "screw/7", None, None]
    assert groups(SCREWS, {"file": str(as_csv)}) == [None, None, "screw/a", None]
    before = rule_fingerprint({"file": str(as_csv)})
    as_csv.write_text(as_csv.read_text() + "exp1.jpg,c\n")
    assert rule_fingerprint({"file": str(as_csv)}) != before
    assert rule_fingerprint("found") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0001.png": 1}', r"names 0001.png, which is the name of 2 images; give their paths"),
        ('{"other.png": 1}', r"names none of the images; it holds other.png"),
        ("[1, 2]", "is neither JSON of"),
        ("{", "is neither JSON of"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "groups.json"
    file.write_text(content)
    table = index("a/train/good/0001.png", "a/test/good/0001.png")
    with pytest.raises(DatasetError, match=message):
        assign_groups(table, {"file": str(file)}, {})


def test_a_pattern_that_fits_nothing_and_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"found in no image's path, such as screw/train/good"):
        assign_groups(SCREWS, {"pattern": "part(\\d+)"}, {})
    with pytest.raises(DatasetError, match="cannot read"):
        assign_groups(SCREWS, {"file": str(tmp_path / "none.csv")}, {})
    (tmp_path / "other.csv").write_text("file,part\nx,1\n")
    with pytest.raises(DatasetError, match="CSV with the columns image and group"):
        assign_groups(SCREWS, {"file": str(tmp_path / "other.csv")}, {})


def test_found_groups_are_chains_of_near_copies_and_unreadable_images_have_none() -> None:
    rng = np.random.default_rng(3)
    paths = [f"a/train/good/{i:02d}.png" for i in range(60)] + ["a/test/good/00.png", "a/test/good/01.png"]
    table = pd.concat([index(*paths), index("a/test/good/broken.png", problem="empty")], ignore_index=True)
    pictures = rng.integers(0, 256, (62, 48, 48)).astype(np.uint8)
    pictures[60] = (0.5 * pictures[4] + rng.normal(size=(48, 48)) * 3 + 60).clip(0, 255)  # 4 in another light
    pictures[9] = (0.8 * pictures[4] + rng.normal(size=(48, 48)) * 3).clip(0, 255)
    arrays = {"image_ids": table.image_id.to_numpy(np.str_)[:62], "thumbnails": pictures}
    found = group_by_image(assign_groups(table, "found", arrays))
    assert found == dict.fromkeys(["a/train/good/04", "a/train/good/09", "a/test/good/00"], "a/like train/good/04")


def test_a_group_above_a_tenth_of_its_category_is_said() -> None:
    table = index(*[f"a/train/good/{i:02d}_{i % 9}.png" for i in range(20)], "b/train/good/00_1.png")
    (first, second) = large_groups(table, assign_groups(table, {"pattern": r"_(0|1|2\d)\."}, {}))[:2]
    assert first == ("group a/0 holds 3 of the 20 images of a, more than a tenth: what goes by group has few to go by")
    assert second.startswith("group a/1 holds 3 of the 20")
    assert large_groups(table, assign_groups(table, {"pattern": "/(..)_"}, {})) == []
