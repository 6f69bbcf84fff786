"""The value range of each category: decided once, from its training images, and kept to."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError
from data_contracts.settings import Reading
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset, AutoVISubset
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.reading import decide_reading, without_brighter
from pipeline_lib.features.image_batches import reading_of
from tests.dataset_fixtures import write_deep_png, write_image, write_tiff

AUTO = PreprocessingConfig()


def rows(*images: tuple[int, int], category: str = "c") -> pd.DataFrame:
    """Training images with (bit depth, largest value)."""
    return pd.DataFrame(
        [
            {"category": category, "split": "train", "problem": "", "path": f"{category}/{number}.png",
             "bit_depth": depth, "max_value": value}
            for number, (depth, value) in enumerate(images)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([(8, 255), (8, 3)], 255),
        ([(8, 0)], 255),
        ([(16, 200)], 255),
        ([(16, 256)], 1023),
        ([(16, 1023), (16, 5)], 1023),
        ([(16, 1024)], 4095),
        ([(16, 4095)], 4095),
        ([(16, 4096)], 16383),
        ([(16, 16383)], 16383),
        ([(16, 16384)], 65535),
        ([(16, 65535)], 65535),
        ([(12, 300)], 4095),
        ([(12, 300), (16, 9000)], 16383),
    ],
)
def test_auto_is_the_smallest_usual_depth_that_holds_the_training_images(
    images: list[tuple[int, int]], expected: int
) -> None:
    assert decide_reading(rows(*images), AUTO) == Reading(orientation="applied", value_ranges={"c": expected})


def test_each_category_has_its_own_and_test_images_have_no_say() -> None:
    index = pd.concat([rows((16, 900), category="a"), rows((8, 255), category="b"), rows((16, 60000), category="b")])
    index["split"] = ["train", "train", "test"]
    assert decide_reading(index, AUTO).value_ranges == {"a": 1023, "b": 255}
    untrained = rows((16, 900), category="z").assign(split="test")
    assert decide_reading(pd.concat([index, untrained]), AUTO).value_ranges == {"a": 1023, "b": 255, "z": 255}
    number = PreprocessingConfig(value_range=3000, orientation="stored")
    assert decide_reading(index, number) == Reading(orientation="stored", value_ranges={"a": 3000, "b": 3000})
    assert decide_reading(index, PreprocessingConfig(value_range="container")).value_ranges == {}


def test_mixed_depths_are_an_error_with_counts_and_examples() -> None:
    index = rows((8, 255), (16, 900), (16, 900), (16, 900), (16, 900))
    with pytest.raises(
        DatasetError,
        match=r"images of c differ in bit depth: 1 with 8 bits \(c/0\.png\); 4 with 16 bits \(c/1\.png, c/2\.png, "
        r"c/3\.png, \.\.\.\).*value_range",
    ):
        decide_reading(index, AUTO)
    assert decide_reading(index, PreprocessingConfig(value_range=1023)).value_ranges == {"c": 1023}


def write_root(root: Path, *, test: np.ndarray, train: np.ndarray) -> Path:
    write = {np.dtype(np.uint16): write_deep_png, np.dtype(np.uint8): write_image}
    for number in range(3):
        write[train.dtype](root / f"c/train/good/{number}.png", train)
    write[test.dtype](root / "c/test/good/a.png", test)
    return root


TWELVE = np.linspace(0, 3000, 48).reshape(6, 8).astype(np.uint16)


def test_8_bits_in_training_and_12_in_test_set_the_test_image_aside(tmp_path: Path) -> None:
    index = index_dataset(write_root(tmp_path, train=(TWELVE >> 4).astype(np.uint8), test=TWELVE))
    reading = decide_reading(index, AUTO)
    problems = without_brighter(index, reading.value_ranges).problem.tolist()
    assert problems[:3] == ["", "", ""]
    assert "a.png: it holds the value 3000, and the value range of its category is 0 to 255" in problems[3]
    assert without_brighter(index, {}).equals(index)
    assert without_brighter(index, {"c": 4095}).equals(index)


def test_the_index_holds_what_the_range_is_decided_from(tmp_path: Path) -> None:
    write_tiff(tmp_path / "c/train/good/a.tif", TWELVE, bits=12)
    write_image(tmp_path / "c/train/good/b.png", np.full((6, 8, 3), (9, 8, 7), np.uint8))
    index = index_dataset(tmp_path)
    columns = ["bit_depth", "max_value", "is_constant", "is_grey", "pages"]
    assert index[columns].to_numpy().tolist() == [[12, 3000, 0, 1, 1], [8, 9, 1, 0, 1]]


def test_the_data_set_of_the_library_reads_as_a_run_does(tmp_path: Path) -> None:
    write_root(tmp_path, train=TWELVE, test=TWELVE // 4)
    dark = np.floor((TWELVE // 4).astype(float) * 255 / 4095 + 0.5)
    test = AutoVIDataset(tmp_path, split="test")
    assert np.array_equal(np.array(test[0]["image"])[..., 0], dark)
    given = AutoVIDataset(tmp_path, split="test", reading=Reading(value_ranges={"c": 16383}))
    assert np.array(given[0]["image"]).max() == round(750 * 255 / 16383)
    train = AutoVIDataset(tmp_path)
    assert reading_of(AutoVISubset(train, [0])) == train.reading == Reading(
        orientation="applied", value_ranges={"c": 4095}
    )  # fmt: skip
    assert reading_of([train[0]]) == Reading()
    assert AutoVIDataset(tmp_path, split="test", reading=Reading(value_ranges={"c": 255})).quarantined[0][1]
