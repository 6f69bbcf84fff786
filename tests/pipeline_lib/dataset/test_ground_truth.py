"""defects_config.json and masks: what is read, and what each bad file is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from data_contracts.defects import DefectEntry
from data_contracts.errors import ConfigError, DatasetError
from pipeline_lib.dataset.ground_truth import (
    DefectChannel,
    DefectWeights,
    MaskError,
    category_defects,
    channels_by_value,
    load_defects_config,
    marked,
    mask_components,
    read_mask_channels,
    union_mask,
)
from tests.dataset_fixtures import DEFECTS, truncate, write_image, write_tiny_autovi, write_tiny_mvtec
from tests.reference_ground_truth import flood_fill_components

ENTRIES = [DefectEntry.model_validate(entry) for entry in DEFECTS]
FOLDER = "pipe_clip/ground_truth/scratch/0001"


def read(root: Path, weights: DefectWeights | None = None) -> list[DefectChannel]:
    return read_mask_channels(
        root, "pipe_clip", "scratch", "0001", width=64, height=48, defects=ENTRIES, defect_weights=weights
    )


def square(value: int, side: int = 4) -> np.ndarray:
    values = np.zeros((48, 64), np.uint8)
    values[2 : 2 + side, 3 : 3 + side] = value
    return values


def two_colours(grey: np.ndarray) -> Image.Image:
    """A palette image of black and the grey value 128, whose indices are 0 and 1."""
    image = Image.fromarray((grey > 0).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 128, 128])
    return image


# --- defects_config.json ---------------------------------------------------------------------------------------------


def test_the_list_and_the_object_form_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps(DEFECTS))
    assert load_defects_config(path) == ENTRIES
    by_name = {e["defect_name"]: {k: v for k, v in e.items() if k != "defect_name"} for e in DEFECTS}
    path.write_text("\ufeff" + json.dumps(by_name), encoding="utf-8")
    assert load_defects_config(path) == ENTRIES


def test_whole_number_thresholds_and_further_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps([{**DEFECTS[0], "saturation_threshold": 1, "severity": 3}]))
    (entry,) = load_defects_config(path)
    assert entry.saturation_threshold == 1.0
    assert entry.model_extra == {"severity": 3}
    assert entry.saturation_area_px(17) == 17


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('"text"', "must hold a JSON list of entries, got str"),
        ("[1]", "entry 1"),
        (
            [{k: v for k, v in DEFECTS[0].items() if k != "pixel_value"}],
            r"entry 1 \(scratch\), key pixel_value: .*required",
        ),
        ([DEFECTS[0], {**DEFECTS[1], "pixel_value": 256}], r"entry 2 \(missing\), key pixel_value: .*255, got '256'"),
        ([{**DEFECTS[0], "saturation_threshold": "much"}], r"key saturation_threshold: .*number.*got 'much'"),
        ([{**DEFECTS[0], "saturation_threshold": 0}], r"key saturation_threshold: .*greater than 0"),
        ([{**DEFECTS[0], "relative_saturation": None}], "key relative_saturation"),
        ([DEFECTS[0], {**DEFECTS[1], "pixel_value": 255}], "255 stands for both scratch and missing"),
        ({"scratch": 7}, "entry 1"),
    ],
)
def test_bad_configs_name_file_entry_and_key(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=r"defects_config\.json.*" + message):
        load_defects_config(path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    assert category_defects(tmp_path, "pipe_clip") == ENTRIES
    (tmp_path / "pipe_clip/defects_config.json").unlink()
    with pytest.raises(DatasetError, match=r"pipe_clip/defects_config\.json: No such file"):
        category_defects(tmp_path, "pipe_clip")
    assert category_defects(tmp_path, "pipe_clip", layout="mvtec") == []


# --- AutoVI masks ----------------------------------------------------------------------------------------------------


def test_each_png_is_a_channel(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    write_image(tmp_path / FOLDER / "0001.png", square(128, side=3))
    scratch, missing = read(tmp_path)
    stored = np.array(Image.open(tmp_path / FOLDER / "0000.png"))
    assert scratch.defect_name == "scratch"
    assert scratch.mask.dtype == np.bool_
    assert np.array_equal(scratch.mask, stored > 0)
    assert scratch.saturation_area_px == int(0.5 * (stored > 0).sum())
    assert missing.defect_name == "missing"
    assert (missing.mask.sum(), missing.saturation_area_px) == (9, 9)  # threshold 20 is above the area
    union = union_mask([scratch, missing], 48, 64)
    assert np.array_equal(union, scratch.mask | missing.mask)
    assert not union_mask([], 48, 64).any()


def test_good_images_and_images_without_mask_have_no_channels(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    for folder, stem in (("good", "0000"), ("scratch", "9999")):
        assert read_mask_channels(tmp_path, "pipe_clip", folder, stem, width=64, height=48, defects=ENTRIES) == []
    assert read_mask_channels(tmp_path, "any", "scratch", "0001", layout="folder", width=64, height=48) == []


@pytest.mark.parametrize("kind", ["grey", "rgb", "rgba", "transparent", "red", "grey_alpha", "palette", "deep"])
def test_pixel_formats_give_the_same_channel(tmp_path: Path, kind: str) -> None:
    write_tiny_autovi(tmp_path)
    grey = square(128)
    zero, full = np.zeros_like(grey), np.full_like(grey, 255)
    image = {
        "grey": lambda: Image.fromarray(grey),
        "rgb": lambda: Image.fromarray(np.dstack([grey] * 3)),
        "rgba": lambda: Image.fromarray(np.dstack([grey, grey, grey, full])),
        "transparent": lambda: Image.fromarray(np.dstack([grey, grey, grey, np.where(grey, 255, 0).astype(np.uint8)])),
        "red": lambda: Image.fromarray(np.dstack([grey, zero, zero])),
        "grey_alpha": lambda: Image.merge("LA", [Image.fromarray(grey), Image.fromarray(full)]),
        "palette": lambda: two_colours(grey),
        "deep": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
    }[kind]()
    image.save(tmp_path / FOLDER / "0000.png")
    (channel,) = read(tmp_path)
    assert channel.defect_name == "missing"
    assert np.array_equal(channel.mask, grey > 0)


def test_a_black_and_white_mask_has_the_value_255(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    Image.fromarray(square(255)).convert("1").save(tmp_path / FOLDER / "0000.png")
    assert [channel.defect_name for channel in read(tmp_path)] == ["scratch"]


def test_several_known_values_in_one_file_are_a_channel_each(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    values = square(128)
    values[30:35, 30:35] = 255
    write_image(tmp_path / FOLDER / "0000.png", values)
    missing, scratch = read(tmp_path)
    assert np.array_equal(missing.mask, values == 128)
    assert np.array_equal(scratch.mask, values == 255)


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (square(7), "mask_value_unknown", r"holds the value 7 .*128 \(missing\), 255 \(scratch\)"),
        (np.maximum(square(7, side=8), square(255)), "mask_value_unknown", "holds the value 7 "),
        (np.maximum(square(7, side=8), square(9)), "mask_value_unknown", "holds the values 7, 9 "),
        (np.zeros((48, 64), np.uint8), "mask_empty", "is empty"),
        (np.full((64, 48), 255, np.uint8), "mask_size", "is 48x64 pixels, its image 64x48"),
        (np.full((48, 64), 1000, np.uint16), "mask_value_unknown", "holds the value 1000"),
    ],
)
def test_bad_masks_name_file_found_and_expected(tmp_path: Path, values: np.ndarray, code: str, message: str) -> None:
    write_tiny_autovi(tmp_path)
    Image.fromarray(values).save(tmp_path / FOLDER / "0000.png")
    with pytest.raises(MaskError, match=r"scratch/0001/0000\.png " + message) as caught:
        read(tmp_path)
    assert caught.value.code == code


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_defect_drawn_in_the_alpha_channel_of_a_white_mask_is_refused(tmp_path: Path, mode: str) -> None:
    write_tiny_autovi(tmp_path)
    white = Image.new("LA" if mode == "LA" else "RGBA", (64, 48), "white")
    white.putalpha(Image.fromarray(square(255)))
    if mode == "P":
        white = Image.fromarray((square(1) > 0).astype(np.uint8), "L").convert("P")
        white.putpalette([255, 255, 255] * 2)
        white.info["transparency"] = 0
    white.save(tmp_path / FOLDER / "0000.png")
    with pytest.raises(MaskError, match=r"0000\.png has one colour, and the defect is drawn in its alpha") as caught:
        read(tmp_path)
    assert caught.value.code == "mask_alpha"


def test_labels_of_an_mvtec_mask_are_all_marked_and_grey_is_cut_at_half_of_white() -> None:
    assert marked(np.array([[0, 1, 2, 3]], np.uint8)).tolist() == [[False, True, True, True]]
    assert marked(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[False, False, True, True]]
    assert not marked(np.zeros((2, 2), np.uint8)).any()


def test_an_unreadable_mask_is_named(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    truncate(tmp_path / FOLDER / "0000.png")
    with pytest.raises(MaskError, match=r"scratch/0001/0000\.png") as caught:
        read(tmp_path)
    assert caught.value.code == "unreadable_image"


@given(
    area_px=st.integers(1, 400),
    threshold=st.floats(0.001, 500, allow_nan=False),
    relative=st.booleans(),
)
def test_saturation_areas(area_px: int, threshold: float, relative: bool) -> None:
    values = np.zeros(400, np.uint8)
    values[:area_px] = 200
    entry = DefectEntry(defect_name="d", pixel_value=200, saturation_threshold=threshold, relative_saturation=relative)
    (channel,) = channels_by_value(values.reshape(20, 20), [entry], name="m.png")
    wanted = int(threshold * area_px) if relative else int(min(threshold, area_px))
    assert channel.saturation_was_zero == (wanted == 0)
    assert channel.saturation_area_px == max(1, min(wanted, area_px))


# --- weights ---------------------------------------------------------------------------------------------------------


def test_weights_by_name_and_by_key(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    assert [channel.weight for channel in read(tmp_path, {"scratch": 2.5, "other": 9})] == [2.5]
    assert [channel.weight for channel in read(tmp_path, {"other": 9})] == [1.0]
    assert [channel.weight for channel in read(tmp_path)] == [1.0]
    entries = [DefectEntry.model_validate({**DEFECTS[0], "severity": 3})]
    (channel,) = channels_by_value(square(255), entries, defect_weights="severity", name="m.png")
    assert channel.weight == 3.0
    with pytest.raises(ConfigError, match=r"'severity'.*scratch lacks it \(it has no further keys\)"):
        read(tmp_path, "severity")
    for value in ("critical", -1, True, float("nan"), None):
        bad = [DefectEntry.model_validate({**DEFECTS[0], "severity": value})]
        with pytest.raises(ConfigError, match=r"severity of scratch .* must be a number"):
            channels_by_value(square(255), bad, defect_weights="severity", name="m.png")


# --- MVTec masks -----------------------------------------------------------------------------------------------------


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_components_are_those_of_a_flood_fill(mask: np.ndarray) -> None:
    channels = mask_components(mask, "broken", name="m.png")
    found = {frozenset(zip(*np.nonzero(channel.mask), strict=True)) for channel in channels}
    assert found == {frozenset(component) for component in flood_fill_components(mask)}
    assert all(channel.saturation_area_px == channel.mask.sum() for channel in channels)
    assert all(channel.defect_name == "broken" for channel in channels)


def test_mvtec_masks_are_split_into_parts(tmp_path: Path) -> None:
    write_tiny_mvtec(tmp_path)
    values = np.zeros((48, 64), np.uint8)
    values[0, 0] = values[1, 1] = values[40:44, 50:60] = 255
    write_image(tmp_path / "bottle/ground_truth/broken/001_mask.png", values)
    size = {"width": 64, "height": 48}
    channels = read_mask_channels(
        tmp_path, "bottle", "broken", "001", layout="mvtec", defect_weights={"broken": 2.0}, **size
    )
    assert [(channel.saturation_area_px, channel.weight) for channel in channels] == [(2, 2.0), (40, 2.0)]
    with pytest.raises(ConfigError, match="mvtec"):
        read_mask_channels(tmp_path, "bottle", "broken", "001", layout="mvtec", defect_weights="severity", **size)


def test_a_noisy_mvtec_mask_is_refused() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[::2, ::2] = True
    with pytest.raises(MaskError, match=r"m\.png falls into 2500 separate parts, at most 1000"):
        mask_components(mask, "broken", name="m.png")
