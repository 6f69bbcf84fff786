"""Maps written as files: where they lie, what measuring them gives, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import ImageError
from data_contracts.settings import EvaluationSettings
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.maps.map_files import read_map, resize_map
from pipeline_lib.maps.saved_maps import ImageMap, MapFormat, read_scores, smooth_map, write_category_maps
from pipeline_lib.metrics.evaluation import evaluate_map_files
from pipeline_lib.models.anomaly_scorer import AnomalyScorer
from pipeline_lib.models.patchcore import PatchCore

SETTINGS = EvaluationSettings.of(parse_config({"evaluation": {"bootstrap": 0}}))


def made_up(number: int) -> ImageMap:
    grid = np.random.default_rng(number).random((6, 8), dtype=np.float32)
    return ImageMap("scratch", f"{number:04d}", 48, 64, grid, float(grid.max()))


@pytest.mark.parametrize("map_format", ["npy", "tiff", "png"])
def test_maps_are_resized_blurred_and_come_back(tmp_path: Path, map_format: MapFormat) -> None:
    maps = [made_up(number) for number in range(3)]
    assert write_category_maps(tmp_path, "clip", maps, map_format=map_format, sigma_px=1.5) == 3
    scale = json.loads((tmp_path / "clip/scale.json").read_text()) if map_format == "png" else {"step": 0.0}
    for item in maps:
        expected = smooth_map(resize_map(item.grid_map, 48, 64), 1.5)
        written = tmp_path / "clip/test/scratch" / f"{item.stem}.{map_format}"
        values = read_map(written)
        if map_format == "png":
            values = scale["offset"] + scale["step"] * values
        assert np.abs(values - expected).max() <= 0.51 * scale["step"]
    assert read_scores(tmp_path, "clip") == {f"scratch/{item.stem}": item.score for item in maps}


def test_maps_that_were_there_are_replaced_in_whatever_format(tmp_path: Path) -> None:
    write_category_maps(tmp_path, "clip", [made_up(0), made_up(1)], map_format="png")
    write_category_maps(tmp_path, "clip", [made_up(0)], map_format="npy")
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["clip/scores.json", "clip/test/scratch/0000.npy"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="two test images of clip are called scratch/0000"):
        write_category_maps(tmp_path, "clip", [made_up(0), made_up(0)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON object"),
        ('{"a/b": "high"}', "expected a JSON object"),
        ('{"a/b": NaN}', "the scores of a/b are not finite"),
    ],
)
def test_scores_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/scores.json").write_text(text)
    with pytest.raises(ImageError, match=message):
        read_scores(tmp_path, "clip")
    assert read_scores(tmp_path, "other") is None


def test_an_anomaly_scorer_writes_what_the_evaluator_measures(
    tiny_root: Path, tmp_path: Path, extractor: FeatureExtractor
) -> None:
    model = PatchCore(extractor, coreset_percentage=0.1, image_size=(64, 64))
    model.fit(AutoVIDataset(tiny_root, ["pipe_clip"]))
    test = AutoVIDataset(tiny_root, ["pipe_clip"], split="test")
    table = AnomalyScorer(model, map_format="npy").generate_anomaly_maps(test, tmp_path)
    maps, scores = model.predict(test)
    assert table.score.tolist() == scores.tolist()
    assert table.path.tolist() == [sample[0] for sample in test.samples]
    for (path, _, category, folder), values in zip(test.samples, maps, strict=True):
        assert np.array_equal(read_map(tmp_path / category / "test" / folder / f"{Path(path).stem}.npy"), values)
    (result,) = evaluate_map_files(tiny_root, tmp_path, SETTINGS)
    assert result.metrics["all"].image_auroc == 1.0
    assert (result.metrics["all"].n_good, result.metrics["all"].n_defective) == (4, 6)
    scores_file = tmp_path / "pipe_clip/scores.json"
    scores_file.write_text(json.dumps({key: -value for key, value in json.loads(scores_file.read_text()).items()}))
    (result,) = evaluate_map_files(tiny_root, tmp_path, SETTINGS)
    assert result.metrics["all"].image_auroc == 0.0  # the scores beside the maps are those that count
    scores_file.write_text("{}")
    with pytest.raises(ImageError, match=r"scores.json has no score for good/0000"):
        evaluate_map_files(tiny_root, tmp_path, SETTINGS)
    scores_file.unlink()
    (result,) = evaluate_map_files(tiny_root, tmp_path, SETTINGS)
    assert result.metrics["all"].image_auroc == 1.0
