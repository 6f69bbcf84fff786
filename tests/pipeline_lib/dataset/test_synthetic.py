"""Made-up data: AutoVI's layout, repeatable bytes, masks that mark what a defect changes, and a sensible difficulty."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

from data_contracts.defects import AUTOVI_CATEGORIES, AUTOVI_COUNTS, AUTOVI_SMALL_CATEGORIES, DefectEntry
from data_contracts.errors import ConfigError, DatasetError
from pipeline_lib.dataset.layout import find_categories
from pipeline_lib.dataset.synthetic import dataset as synthetic
from pipeline_lib.dataset.synthetic.canvas import Look
from pipeline_lib.dataset.synthetic.dataset import draw_picture, picture_counts, synthesize_dataset
from pipeline_lib.dataset.synthetic.defects import choose_faults
from tests.reference_patchcore import greedy_k_center, image_scores, load_backbone, patch_features

SCALE = 0.25


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_dataset(tmp_path_factory.mktemp("synthetic") / "autovi", images=8, scale=SCALE, seed=3)


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- layout ------------------------------------------------------------------------------------------------------


def test_layout_is_autovis(root: Path) -> None:
    assert sorted(path.name for path in root.iterdir()) == sorted(AUTOVI_CATEGORIES)
    for category in AUTOVI_CATEGORIES:
        size = (100, 100) if category in AUTOVI_SMALL_CATEGORIES else (250, 188)
        directory = root / category
        folders = AUTOVI_COUNTS[category]["defects"]
        assert {p.name for p in directory.iterdir()} == {"train", "test", "ground_truth", "defects_config.json"}
        assert [p.name for p in (directory / "train").iterdir()] == ["good"]
        assert {p.name for p in (directory / "test").iterdir()} == {"good", *folders}
        assert {p.name for p in (directory / "ground_truth").iterdir()} == set(folders)
        for (split, folder), count in picture_counts(category, 8).items():
            names = sorted(p.name for p in (directory / split / folder).iterdir())
            assert names == [f"{number:04d}.png" for number in range(count)]
            for name in names:
                with Image.open(directory / split / folder / name) as image:
                    assert (image.mode, image.size) == ("RGB", size)
            if folder != "good":
                stems = sorted(p.name for p in (directory / "ground_truth" / folder).iterdir())
                assert stems == [name.removesuffix(".png") for name in names]


def mask_files(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("*/ground_truth/*/*/*.png"))


def test_masks_are_grey_with_their_entrys_value(root: Path) -> None:
    seen: set[str] = set()
    for path in mask_files(root):
        category, _, folder = path.relative_to(root).parts[:3]
        config = [DefectEntry(**e) for e in json.loads((root / category / "defects_config.json").read_text())]
        names = {entry.pixel_value: entry.defect_name for entry in config}
        with Image.open(path) as image, Image.open(root / category / "test" / folder / f"{path.parent.name}.png") as of:
            assert image.mode == "L"
            assert image.size == of.size
            values = set(np.unique(np.array(image)).tolist())
        (value,) = values - {0}
        assert 0 in values
        if folder != "multiple":
            assert names[value] == folder
        seen.add(f"{category}/{names[value]}")
    assert {"engine_wiring/fastening", "pipe_clip/operator", "tank_screw/missing"} <= seen


def test_multiple_has_two_or_three_different_channels(root: Path) -> None:
    for category, most in (("engine_wiring", 3), ("underbody_pipes", 2)):
        for image in sorted((root / category / "ground_truth" / "multiple").iterdir()):
            values = [int(np.array(Image.open(path)).max()) for path in sorted(image.iterdir())]
            assert [path.name for path in sorted(image.iterdir())] == [f"{c:04d}.png" for c in range(len(values))]
            assert 2 <= len(set(values)) == len(values) <= most
    numbers = {len(choose_faults("engine_wiring", "multiple", Look((0, n), time=0.5))) for n in range(40)}
    assert numbers == {2, 3}


def test_config_mixes_absolute_and_relative_and_scales_the_absolute(root: Path, tmp_path: Path) -> None:
    configs = {c: json.loads((root / c / "defects_config.json").read_text()) for c in AUTOVI_CATEGORIES}
    assert {entry["relative_saturation"] for config in configs.values() for entry in config} == {True, False}
    assert all(entry["severity"] for config in configs.values() for entry in config)
    half = synthesize_dataset(tmp_path, categories=["engine_wiring"], images=2, scale=2 * SCALE)
    larger = json.loads((half / "engine_wiring" / "defects_config.json").read_text())
    for small, large in zip(configs["engine_wiring"], larger, strict=True):
        factor = 1 if small["relative_saturation"] else 4
        assert large["saturation_threshold"] == pytest.approx(factor * small["saturation_threshold"], rel=0.02)


def test_counts_are_autovis_own_by_default() -> None:
    for category in AUTOVI_CATEGORIES:
        counts = picture_counts(category, None)
        own = AUTOVI_COUNTS[category]
        assert counts.pop(("train", "good")) == own["train"]
        assert counts.pop(("test", "good")) == own["good"]
        assert {folder: count for (_, folder), count in counts.items()} == own["defects"]


@pytest.mark.parametrize("images", [2, 9, 20, 101])
def test_counts_for_a_number_of_images(images: int) -> None:
    for category in AUTOVI_CATEGORIES:
        counts = picture_counts(category, images)
        own = AUTOVI_COUNTS[category]["defects"]
        assert counts["train", "good"] == counts["test", "good"] == images
        assert all(counts["test", folder] >= (1 if own[folder] <= 5 else 2) for folder in own)
        least = sum(1 if count <= 5 else 2 for count in own.values())
        assert sum(counts["test", folder] for folder in own) == max(least, images // 2)


# --- repeatable --------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_whatever_is_selected_in_whatever_order(root: Path, tmp_path: Path) -> None:
    again = synthesize_dataset(tmp_path, categories=["underbody_pipes", "engine_wiring"], images=8, scale=SCALE, seed=3)
    assert sorted(p.name for p in again.iterdir()) == ["engine_wiring", "underbody_pipes"]
    for category in ("engine_wiring", "underbody_pipes"):
        assert digests(again / category) == digests(root / category)


def test_another_seed_and_every_number_give_other_pictures(root: Path) -> None:
    pictures = {
        draw_picture("pipe_clip", split, "good", number, 8, scale=SCALE, seed=seed)[0].tobytes()
        for split in ("train", "test")
        for number in range(3)
        for seed in (3, 4)
    }
    assert len(pictures) == 12


# --- what the masks mark -----------------------------------------------------------------------------------------

DEFECTS = [(category, folder) for category in AUTOVI_CATEGORIES for folder in AUTOVI_COUNTS[category]["defects"]]


@pytest.mark.parametrize(("category", "folder"), DEFECTS)
def test_masks_cover_what_the_defect_changes_and_little_else(
    category: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        picture, channels = draw_picture(category, "test", folder, number, 4, scale=0.5, seed=1)
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "choose_faults", lambda *_: [])
            clean, no_channels = draw_picture(category, "test", folder, number, 4, scale=0.5, seed=1)
        assert no_channels == []
        marked = np.any([mask for _, mask in channels], axis=0)
        change = np.abs(np.asarray(picture, dtype=np.int64) - np.asarray(clean, dtype=np.int64)).max(axis=2)
        near = binary_dilation(marked, iterations=4)  # the blur carries a change over the region's edge
        assert change[~near].max() <= 8
        assert change[marked].mean() > 10 * max(change[~near].mean(), 0.01)
        for _, mask in channels:
            assert 0.0001 < mask.mean() < 0.35


def test_a_missing_screw_is_marked_whole() -> None:
    for number in range(6):
        _, channels = draw_picture("underbody_screw", "test", "missing", number, 6, scale=1.0, seed=0)
        ((_, mask),) = channels
        screw_px = np.pi * (0.058 * 750) ** 2
        assert 0.95 * screw_px < mask.sum() < 1.2 * screw_px  # the screw and the edge of its shadow


# --- light and time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_colour_drifts_slowly_over_time(split: str) -> None:
    warmth = []
    for number in range(40):
        picture, _ = draw_picture("pipe_clip", split, "good", number, 40, scale=0.1, seed=0)
        red, _, blue = np.asarray(picture, dtype=np.float64).mean(axis=(0, 1))
        warmth.append(red / blue)
    early, late = np.mean(warmth[:10]), np.mean(warmth[-10:])
    assert 1.03 < late / early < 1.15
    assert np.abs(np.diff(warmth)).mean() < 0.5 * abs(late - early) + 0.02


# --- difficulty --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_offline_backbone_is_clearly_above_chance_and_clearly_below_perfect(tmp_path: Path) -> None:
    """Image AUROC of a plain PatchCore with a 1 % coreset; 20 training images a category at a quarter of the size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        root = synthesize_dataset(tmp_path, images=20, scale=SCALE, seed=0)
        backbone = load_backbone()
        aurocs = {}
        for category in AUTOVI_CATEGORIES:
            train = patch_features(backbone, sorted((root / category / "train" / "good").iterdir()))
            rows = train.reshape(-1, train.shape[-1])
            bank = greedy_k_center(rows, round(0.01 * len(rows)))
            test = sorted((root / category / "test").glob("*/*.png"))
            labels = [path.parent.name != "good" for path in test]
            aurocs[category] = roc_auc_score(labels, image_scores(patch_features(backbone, test), bank))
    finally:
        torch.set_num_threads(threads)
    assert sum(0.65 <= auroc <= 0.97 for auroc in aurocs.values()) >= 4, aurocs
    assert min(aurocs.values()) > 0.55, aurocs
    assert 0.7 < np.mean(list(aurocs.values())) < 0.95, aurocs


# --- calls -------------------------------------------------------------------------------------------------------


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    synthesize_dataset(
        tmp_path,
        categories=["pipe_staple"],
        images=3,
        scale=0.1,
        progress=lambda done, total: calls.append((done, total)),
    )
    pictures = len([p for p in tmp_path.rglob("*.png") if "ground_truth" not in p.parts])
    assert calls == [(done, pictures) for done in range(1, pictures + 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"categories": ["pipe_clip", "bolt"]}, r"categories is \['pipe_clip', 'bolt'\]; it accepts engine_wiring"),
        ({"categories": []}, r"categories is \[\]"),
        ({"images": 1}, r"images is 1; at least 2"),
        ({"scale": 0.01}, r"scale is 0.01; it accepts 0.08 to 4"),
        ({"scale": float("nan")}, r"scale is nan"),
        ({"seed": -1}, r"seed is -1; it accepts 0 and above"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        synthesize_dataset(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_category_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pipe_clip").mkdir()
    with pytest.raises(DatasetError, match="pipe_clip is there already; delete it or choose another directory"):
        synthesize_dataset(tmp_path, categories=["engine_wiring", "pipe_clip"], images=2, scale=0.1)
    assert not (tmp_path / "engine_wiring").exists()


def test_an_interrupted_call_leaves_no_half_category_and_the_next_one_goes_on(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    wanted = {"categories": ["pipe_clip", "pipe_staple"], "images": 2, "scale": 0.1}
    with pytest.raises(KeyboardInterrupt):
        synthesize_dataset(tmp_path / "a", progress=interrupt, **wanted)  # type: ignore[arg-type]
    assert list(find_categories(tmp_path / "a")) == ["pipe_clip"]
    synthesize_dataset(tmp_path / "a", categories=["pipe_staple"], images=2, scale=0.1)
    synthesize_dataset(tmp_path / "b", **wanted)  # type: ignore[arg-type]
    files = [{p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
             for root in (tmp_path / "a", tmp_path / "b")]  # fmt: skip
    assert files[0] == files[1]
