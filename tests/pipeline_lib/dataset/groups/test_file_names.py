"""Groups in file names: written down where they are clear, and only there."""

from __future__ import annotations

import re

import pytest

from pipeline_lib.dataset.groups.file_names import pattern_of_names

PLACES = [f"{305000 + 12500 * place}_{45 * (place % 8):03d}" for place in range(12)]
SCREWS = [f"01_2008{n:04d}1100_{place}_crop_2.jpg" for n, place in enumerate(PLACES * 20)]


def test_a_field_that_comes_back_is_a_pattern_that_finds_it() -> None:
    pattern = pattern_of_names({"screw": SCREWS, "cookie": [f"normal-{n}.png" for n in range(30)]})
    assert pattern is not None
    found = [re.search(pattern, f"screw/train/good/{name}") for name in SCREWS]
    assert [match[1] for match in found if match] == [name.split("_")[2] for name in SCREWS]
    assert re.search(pattern, "cookie/train/good/normal-1.png") is None


@pytest.mark.parametrize(
    "names",
    [
        [f"{n:04d}.png" for n in range(40)],  # each by itself
        [f"{n % 20:04d}.png" for n in range(60)],  # numbers that begin anew in each folder
        [f"exp{n % 6}_num_{n}.jpg" for n in range(120)],  # exposures, not tiles
        [f"202401{1 + n % 20:02d}_{n}.png" for n in range(100)],  # days
        [f"{n % 12}_{n % 15}_{n}.png" for n in range(240)],  # two fields that group otherwise
        [f"part{n % 20}_{n}.png" if n % 2 else f"{n}.png" for n in range(100)],  # names of two kinds
        [],
    ],
)
def test_what_is_not_clear_is_left_to_people(names: list[str]) -> None:
    assert pattern_of_names({"a": names}) is None


def test_two_categories_that_speak_differently_have_no_common_pattern() -> None:
    parts = [f"part{n % 20}_{n}.png" for n in range(100)]
    assert pattern_of_names({"a": SCREWS, "b": parts}) is None
    assert pattern_of_names({"a": parts, "b": [f"x{n}_{n}.png" for n in range(50)]}) is None  # it would say it of b too
    assert pattern_of_names({"a": parts, "b": parts}) is not None
