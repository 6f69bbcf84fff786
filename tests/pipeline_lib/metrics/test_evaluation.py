"""Measuring a category from a run's maps and from files: known maps, broken masks, missing maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from data_contracts.config import ExperimentConfig, PreprocessingConfig
from data_contracts.errors import ConfigError, DatasetError, ImageError
from data_contracts.settings import EvaluationSettings
from pipeline_lib.dataset.groups.halves import half_of
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.maps.map_files import MapScale, resize_map, write_npy_map, write_png_map, write_tiff_map
from pipeline_lib.maps.saved_maps import smooth_map
from pipeline_lib.metrics.evaluation import (
    CategoryEvaluation,
    evaluate_category,
    evaluate_map_files,
    metrics_document,
    stored_maps,
)
from tests.dataset_fixtures import write_image, write_tiny_autovi, write_tiny_folder, write_tiny_mvtec

LIMITS = ("0.01", "0.05", "0.1", "0.3", "1.0")


def settings(**values: Any) -> EvaluationSettings:
    config = ExperimentConfig.model_validate({"seed": 1, "evaluation": {"bootstrap": 20}})
    return EvaluationSettings.of(config).model_copy(update=values)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_autovi(tmp_path / "data", train=2, good=6, defective=5)


def truth_of(root: Path, row: dict[str, Any]) -> np.ndarray:
    """float32 (height, width): 1 where any mask file marks the pixel."""
    union = np.zeros((row["height"], row["width"]), np.float32)
    for path in (root / row["category"] / "ground_truth" / row["label"] / Path(row["path"]).stem).glob("*.png"):
        union = np.maximum(union, np.array(Image.open(path)) > 0)
    return union


def evaluate(
    root: Path, make_map: Callable[[dict[str, Any]], np.ndarray], *, on_bad_image: str = "skip", **values: Any
) -> CategoryEvaluation:
    rows = category_test_table(index_dataset(root), "pipe_clip")
    maps = {row["image_id"]: make_map(row) for row in rows.to_dict("records")}
    loaders = {image_id: lambda values=values: values for image_id, values in maps.items()}
    scores = {image_id: float(values.max()) for image_id, values in maps.items()}
    return evaluate_category(rows, root, loaders, scores, settings(**values), on_bad_image=on_bad_image)


def write_maps(root: Path, out: Path, make_map: Callable[[dict[str, Any]], np.ndarray], suffix: str = ".npy") -> None:
    for row in index_dataset(root, splits=("test",)).to_dict("records"):
        path = out / row["category"] / "test" / row["label"] / f"{Path(row['path']).stem}{suffix}"
        match suffix:
            case ".npy":
                write_npy_map(path, make_map(row))
            case ".tiff":
                write_tiff_map(path, make_map(row))
            case ".png":
                write_png_map(path, make_map(row), scale=MapScale(0.0, 4 / 65535))


def noise(row: dict[str, Any]) -> np.ndarray:
    """A map that finds a part of the defects; different for every image, the same on every call."""
    rng = np.random.default_rng(int(row["sha256"][:8], 16))
    coarse = rng.normal(1, 0.3, (6, 8)).clip(0, 3).astype(np.float32)
    return resize_map(coarse, row["height"], row["width"])


def test_the_truth_as_map_scores_one_everywhere(root: Path) -> None:
    result = evaluate(root, lambda row: truth_of(root, row))
    metrics = result.metrics["all"]
    assert (metrics.image_auroc, metrics.image_ap, metrics.pixel_auroc) == (1, 1, 1)
    assert metrics.auc_spro == pytest.approx(dict.fromkeys(LIMITS, 1.0), abs=1e-12)
    assert (metrics.n_good, metrics.n_defective) == (6, 10)
    assert set(metrics.by_defect) == set(metrics.by_folder) == {"scratch", "missing"}
    assert result.warnings == []


def test_a_constant_map_scores_what_chance_does(root: Path) -> None:
    metrics = evaluate(root, lambda row: np.ones((row["height"], row["width"]), np.float32)).metrics["all"]
    assert (metrics.image_auroc, metrics.pixel_auroc) == (0.5, 0.5)
    for limit in LIMITS:
        assert metrics.auc_spro[limit] == pytest.approx(float(limit) / 2)


def test_the_halves_share_out_all_images(root: Path) -> None:
    result = evaluate(root, noise)
    whole, development, report = (result.metrics[subset] for subset in ("all", "development", "report"))
    assert whole.n_good == development.n_good + report.n_good == 6
    assert whole.n_defective == development.n_defective + report.n_defective == 10
    rows = category_test_table(index_dataset(root), "pipe_clip")
    even = [int(digest[0], 16) % 2 == 0 for digest in rows[rows.label_index == 0].sha256]
    assert development.n_good == sum(even)
    assert set(result.table.subset) == {"all", "development", "report"}
    assert set(result.curves.curve) == {"spro_fpr", "roc", "precision_recall"}


def test_images_of_one_group_widen_the_intervals_and_few_groups_are_warned_of(root: Path) -> None:
    rows = category_test_table(index_dataset(root), "pipe_clip")
    rng = np.random.default_rng(0)
    maps = {row["image_id"]: rng.random((row["height"], row["width"]), np.float32) for row in rows.to_dict("records")}
    loaders = {image_id: (lambda own=own: own) for image_id, own in maps.items()}
    scores = {image_id: float(i) for i, image_id in enumerate(rows.image_id.sample(frac=1, random_state=3))}

    def measured(group_of: dict[str, str]) -> CategoryEvaluation:
        return evaluate_category(rows, root, loaders, scores, settings(), group_of=group_of)

    alone = measured({})
    assert not any("groups" in warning for warning in alone.warnings)
    pairs = measured(
        {
            image_id: f"{label}{i // 2}"
            for i, (image_id, label) in enumerate(zip(rows.image_id, rows.label, strict=True))
        }
    )
    assert [warning for warning in pairs.warnings if "test images of pipe_clip are of" in warning]
    own, wider = (found.metrics["all"] for found in (alone, pairs))
    assert own.image_auroc == wider.image_auroc
    assert np.ptp(wider.ci95["image_auroc"]) > np.ptp(own.ci95["image_auroc"])  # type: ignore[arg-type]
    assert pairs.sample.group_index is not None


def test_images_are_told_apart_by_the_score_not_by_the_map(root: Path) -> None:
    rows = category_test_table(index_dataset(root), "pipe_clip")
    loaders = {image_id: lambda: np.zeros((48, 64), np.float32) for image_id in rows.image_id}
    scores = dict(zip(rows.image_id, rows.label_index.astype(float), strict=True))
    metrics = evaluate_category(rows, root, loaders, scores, settings()).metrics["all"]
    assert metrics.image_auroc == 1
    assert metrics.pixel_auroc == 0.5


def test_a_mask_that_does_not_fit_costs_its_image_and_nothing_else(root: Path) -> None:
    whole = evaluate(root, lambda row: truth_of(root, row)).metrics["all"]
    mask = root / "pipe_clip/ground_truth/scratch/0001/0000.png"
    write_image(mask, np.full((20, 30), 255, np.uint8))
    unmasked: list[str] = []

    def truth(row: dict[str, Any]) -> np.ndarray:
        if row["image_id"] == "pipe_clip/test/scratch/0001":
            unmasked.append(row["image_id"])
            return np.full((row["height"], row["width"]), 5, np.float32)  # would be false alarms, were it counted
        return truth_of(root, row)

    result = evaluate(root, truth)
    metrics = result.metrics["all"]
    assert len(unmasked) == 1
    assert metrics.auc_spro == pytest.approx(whole.auc_spro, abs=1e-12)
    assert metrics.pixel_auroc == 1
    assert (metrics.n_defective, metrics.image_auroc) == (10, 1)  # as an image it counts
    text = "\n".join(result.warnings)
    assert f"{mask} is 30x20 pixels, its image 64x48" in text
    assert "left out of the pixel metrics" in text
    assert len(result.warnings) == len(set(result.warnings))
    with pytest.raises(ImageError, match="is 30x20 pixels"):
        evaluate(root, truth, on_bad_image="fail")


def test_defective_images_without_a_mask_are_listed(root: Path) -> None:
    (root / "pipe_clip/ground_truth/missing/0002/0000.png").unlink()
    result = evaluate(root, noise)
    assert [w for w in result.warnings if "no usable mask" in w] == [
        "pipe_clip/test/missing/0002 has no usable mask: left out of the pixel metrics"
    ]


def test_weights_shift_the_weighted_figure_alone(root: Path) -> None:
    def half_right(row: dict[str, Any]) -> np.ndarray:
        return truth_of(root, row) if row["label"] == "scratch" else noise(row) / 10

    plain, weighted = (
        evaluate(root, half_right, defect_weights=weights).metrics["all"] for weights in ({}, {"scratch": 9.0})
    )
    assert plain.auc_spro == weighted.auc_spro
    assert plain.auc_spro_weighted is None
    assert weighted.auc_spro_weighted is not None
    assert weighted.auc_spro_weighted["0.05"] > weighted.auc_spro["0.05"]  # type: ignore[operator]


def test_stored_maps_are_resized_then_smoothed(root: Path) -> None:
    rows = category_test_table(index_dataset(root), "pipe_clip")
    grids = np.random.default_rng(0).random((len(rows), 6, 8), dtype=np.float32)
    table = pd.DataFrame({"image_id": rows.image_id[::-1], "score": np.arange(len(rows))[::-1]})
    loaders, scores = stored_maps(rows, grids, table, 1.5)
    for position, image_id in enumerate(rows.image_id):
        loaded = loaders[image_id]()
        assert loaded.shape == (48, 64)
        assert np.array_equal(loaded, ndimage.gaussian_filter(resize_map(grids[position], 48, 64), 1.5))
        assert scores[image_id] == position
    unsmoothed, _ = stored_maps(rows, grids, table, 0.0)
    assert np.array_equal(unsmoothed[rows.image_id[3]](), resize_map(grids[3], 48, 64))


def test_smoothing_is_a_gaussian_in_pixels() -> None:
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    blurred = smooth_map(point, 2.0)
    assert blurred.dtype == np.float32
    assert blurred.sum() == pytest.approx(1, rel=1e-4)
    assert blurred[20, 24] / blurred[20, 20] == pytest.approx(np.exp(-(4**2) / (2 * 2.0**2)), rel=1e-3)
    assert smooth_map(point, 0) is point


# --- anyone's maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".tiff", ".png"])
def test_map_files_are_measured_as_the_same_maps_in_memory(root: Path, tmp_path: Path, suffix: str) -> None:
    write_maps(root, tmp_path / "maps", noise, suffix)
    (result,) = evaluate_map_files(root, tmp_path / "maps", settings())
    expected = evaluate(root, noise).metrics["all"]
    got = result.metrics["all"]
    tolerance = 1e-3 if suffix == ".png" else 0  # 16 bits a pixel
    assert got.image_auroc == pytest.approx(expected.image_auroc, abs=tolerance)
    assert got.pixel_auroc == pytest.approx(expected.pixel_auroc, abs=tolerance)
    for limit in LIMITS:
        assert got.auc_spro[limit] == pytest.approx(expected.auc_spro[limit], abs=10 * tolerance)
    assert 0.2 < expected.pixel_auroc < 0.8  # type: ignore[operator]  # neither perfect nor useless maps


def test_halves_of_map_files_part_no_group(root: Path, tmp_path: Path) -> None:
    write_maps(root, tmp_path / "maps", noise)
    (result,) = evaluate_map_files(root, tmp_path / "maps", settings(), group={"pattern": "test/(good|.)"})
    sizes = {half_of("", f"pipe_clip/{label}"): 0 for label in ("good", "s", "m")}
    for label, n in (("good", 6), ("s", 5), ("m", 5)):
        sizes[half_of("", f"pipe_clip/{label}")] += n
    for half in ("development", "report"):
        found = result.metrics[half]
        assert found.n_good + found.n_defective == sizes.get(half, 0)
    with pytest.raises(ConfigError, match="found is for runs"):
        evaluate_map_files(root, tmp_path / "maps", settings(), group="found")


def test_small_maps_are_resized_and_smoothed_as_asked(root: Path, tmp_path: Path) -> None:
    def coarse(row: dict[str, Any]) -> np.ndarray:
        return noise(row)[::8, ::8]

    write_maps(root, tmp_path / "maps", coarse)
    (result,) = evaluate_map_files(root, tmp_path / "maps", settings(smoothing_sigma=2.0))
    expected = evaluate(root, lambda row: smooth_map(resize_map(coarse(row), row["height"], row["width"]), 2.0))
    assert result.metrics["all"] == expected.metrics["all"]


def test_what_a_run_sets_aside_needs_no_map(root: Path, tmp_path: Path) -> None:
    for path in (root / "pipe_clip" / "train" / "good").iterdir():
        write_image(path, np.full((48, 64), 1000, np.uint16))
    write_maps(root, tmp_path / "maps", noise)
    write_image(root / "pipe_clip" / "test" / "good" / "bright.png", np.full((48, 64), 1024, np.uint16))
    (result,) = evaluate_map_files(root, tmp_path / "maps", settings())
    assert result.metrics["all"].n_good == 6
    (warning,) = [text for text in result.warnings if "bright" in text]
    assert "pipe_clip/test/good/bright.png: " in warning
    assert "0 to 1023" in warning
    with pytest.raises(ImageError, match=r"1 of 17 maps of pipe_clip are missing: .*bright"):
        evaluate_map_files(
            root, tmp_path / "maps", settings(), preprocessing=PreprocessingConfig(value_range="container")
        )


def test_squeezed_maps_are_stretched_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    def squeezed(row: dict[str, Any]) -> np.ndarray:
        return noise(row)[:, ::2]

    write_maps(root, tmp_path / "maps", squeezed)
    with pytest.raises(ImageError, match=r"the map is 32 wide and 48 high, its image 64 and 48.*--stretch-maps"):
        evaluate_map_files(root, tmp_path / "maps", settings())
    (result,) = evaluate_map_files(root, tmp_path / "maps", settings(), stretch_maps=True)
    expected = evaluate(root, lambda row: resize_map(squeezed(row), row["height"], row["width"]))
    assert result.metrics["all"] == expected.metrics["all"]


def test_all_categories_with_maps_or_those_that_are_named(tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "data", categories=("pipe_clip", "pipe_staple", "tank_screw"), train=1)
    write_maps(root, tmp_path / "maps", noise)
    for path in (tmp_path / "maps/tank_screw/test").rglob("*.npy"):
        path.unlink()
    (tmp_path / "maps/notes").mkdir()
    named = evaluate_map_files(root, tmp_path / "maps", settings(), categories=("pipe_staple",))
    assert [result.category for result in named] == ["pipe_staple"]
    with pytest.raises(ImageError, match=r"10 of 10 maps of tank_screw are missing: .*looked in"):
        evaluate_map_files(root, tmp_path / "maps", settings())


def test_missing_maps_are_counted_and_named(root: Path, tmp_path: Path) -> None:
    write_maps(root, tmp_path / "maps", noise)
    for name in ("good/0001", "scratch/0000"):
        (tmp_path / "maps/pipe_clip/test" / f"{name}.npy").unlink()
    with pytest.raises(ImageError, match=r"2 of 16 maps of pipe_clip are missing: .*good/0001.*scratch/0000"):
        evaluate_map_files(root, tmp_path / "maps", settings())


@pytest.mark.parametrize(
    ("maps", "categories", "message"),
    [
        ("nowhere", None, "there is no directory of maps"),
        ("empty", None, r"holds no maps: expected <category>/test/<folder>/<stem>"),
        ("empty", ("no_such",), "no category no_such"),
    ],
)
def test_nothing_to_measure_is_an_error_that_says_what_is_expected(
    root: Path, tmp_path: Path, maps: str, categories: tuple[str, ...] | None, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        evaluate_map_files(root, tmp_path / maps, settings(), categories=categories)


def test_other_layouts_are_measured_as_far_as_they_have_masks(tmp_path: Path) -> None:
    mvtec = write_tiny_mvtec(tmp_path / "mvtec")
    write_maps(mvtec, tmp_path / "mvtec_maps", noise)
    (result,) = evaluate_map_files(mvtec, tmp_path / "mvtec_maps", settings(layout="mvtec"))
    assert result.metrics["all"].auc_spro["0.3"] is not None
    folder = write_tiny_folder(tmp_path / "folder/part")
    for row in index_dataset(tmp_path / "folder", layout="folder", splits=("test",)).to_dict("records"):
        write_npy_map(tmp_path / "folder_maps/part/test" / row["label"] / f"{Path(row['path']).stem}.npy", noise(row))
    (result,) = evaluate_map_files(tmp_path / "folder", tmp_path / "folder_maps", settings(layout="folder"))
    assert result.metrics["all"].image_auroc is not None
    assert result.metrics["all"].auc_spro["0.3"] is None
    assert folder.is_dir()


def test_the_document_averages_over_categories_and_is_json(root: Path) -> None:
    metrics = evaluate(root, noise).metrics["report"]
    perfect = evaluate(root, lambda row: truth_of(root, row)).metrics["report"]
    document = metrics_document(
        {"a": metrics, "b": perfect}, experiment="x", config_hash="0" * 16, seed=1, subset="report"
    )
    assert document.subset == "report"
    assert document.mean.pixel_auroc == pytest.approx((metrics.pixel_auroc + 1) / 2)  # type: ignore[operator]
    assert json.loads(document.model_dump_json())["categories"]["b"]["pixel_auroc"] == 1
