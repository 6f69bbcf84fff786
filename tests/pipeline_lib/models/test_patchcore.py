"""PatchCore as one object: the same bank as a run, every kind of input, saving and loading."""

from __future__ import annotations

import doctest
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

import pipeline_lib.models.patchcore
from data_contracts.config import PreprocessingConfig
from data_contracts.errors import ArtifactError, ConfigError, DatasetError, FedpatchError, ImageError, WeightsError
from data_contracts.manifests import Cells
from data_contracts.settings import CoresetSettings, ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_images
from pipeline_lib.client.rounds import select_client_coreset
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.features.extraction import extract_features, image_rows
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.image_batches import iter_images
from pipeline_lib.features.preprocessing import get_transforms
from pipeline_lib.maps.map_files import resize_map
from pipeline_lib.models.patchcore import PatchCore
from pipeline_lib.models.saved_model import load_extractor, read_model, write_model
from pipeline_lib.storage.artifact_store import ArtifactStore
from tests.dataset_fixtures import truncate, write_tiny_autovi

SIZE = (64, 64)
UNEVEN = 65, 62  # which are no multiples of 32: its cells do not share the image out evenly


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8 (8, 48, 64, 3): smooth pictures with a little noise."""
    ramp = np.linspace(60, 160, 64)[None, None, :, None]
    noisy = ramp + np.random.default_rng(0).normal(0, 4, (8, 48, 64, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(extractor: FeatureExtractor, pixels: np.ndarray) -> PatchCore:
    return PatchCore(extractor, coreset_percentage=0.2, seed=3).fit(pixels)


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(pipeline_lib.models.patchcore).attempted > 5
    assert doctest.testmod(pipeline_lib.models.patchcore).failed == 0


def test_the_same_bank_and_scores_as_a_run_from_the_same_images(
    tiny_root: Path, tmp_path: Path, extractor: FeatureExtractor
) -> None:
    """The stages of a run, by the library's own functions, and the class: bit for bit."""
    index = index_dataset(tiny_root, categories=["pipe_clip"])
    store = ArtifactStore(tmp_path / "store")
    config = parse_config({"seed": 5, "model": {"coreset_percentage": 0.1}})
    train = extract_features(
        image_rows(index[index.split == "train"], tiny_root), store, extractor, {"pipe_clip": UNEVEN}
    )
    test_rows = category_test_table(index, "pipe_clip")
    test = extract_features(image_rows(test_rows, tiny_root), store, extractor, {"pipe_clip": UNEVEN})
    (coreset,) = select_client_coreset(train, store, "centralized", CoresetSettings.of(config, "centralized"))
    scored = score_images(test, store, MemoryBank(coreset.arrays["rows"]), ScoringSettings.of(config))

    model = PatchCore(extractor, coreset_percentage=0.1, seed=5, image_size=UNEVEN)
    model.fit(AutoVIDataset(tiny_root, ["pipe_clip"]))
    assert np.array_equal(model.memory_bank.features, coreset.arrays["rows"])
    assert model.statistics["covering_radius"] == coreset.covering_radius
    assert (model.statistics["n_images"], model.statistics["n_patches"]) == (9, 9 * 8 * 9)
    prediction = model.predict(AutoVIDataset(tiny_root, ["pipe_clip"], split="test"))
    assert np.array_equal(prediction.scores, scored.scores)
    expected = [resize_map(values, 48, 64, scored.cells) for values in scored.maps]  # at the files' own size
    assert np.array_equal(prediction.anomaly_maps, np.stack(expected))
    assert scored.cells == extractor.cells(UNEVEN[::-1], (8, 9)) != Cells.even((8, 9))


def test_a_data_loader_of_transformed_samples_gives_the_same_model(
    tiny_root: Path, extractor: FeatureExtractor
) -> None:
    settings = extractor.settings
    preprocessing = PreprocessingConfig(small_size=SIZE)
    transform = get_transforms("pipe_clip", mean=settings.mean, std=settings.std, config=preprocessing)
    loader: Any = DataLoader(AutoVIDataset(tiny_root, ["pipe_clip"], transform=transform), batch_size=4)  # type: ignore[arg-type]
    by_loader = PatchCore(extractor, coreset_percentage=0.1).fit(loader)
    by_files = PatchCore(extractor, coreset_percentage=0.1, image_size=preprocessing).fit(
        AutoVIDataset(tiny_root, ["pipe_clip"])
    )
    assert by_loader.category == by_files.category == "pipe_clip"
    assert np.array_equal(by_loader.memory_bank.features, by_files.memory_bank.features)
    test = AutoVIDataset(tiny_root, ["pipe_clip"], split="test", transform=transform)
    maps, scores = by_loader.predict(DataLoader(test, batch_size=3))  # type: ignore[arg-type]
    assert maps.shape == (10, 64, 64)
    assert scores[[sample[1] == 1 for sample in test.samples]].min() > scores[:4].max()


def test_every_kind_of_input_is_the_same_image(model: PatchCore, pixels: np.ndarray) -> None:
    expected = model.predict(pixels)
    tensor = torch.from_numpy(pixels)
    inputs: list[Any] = [
        tensor,
        list(pixels),
        [Image.fromarray(image) for image in pixels],
        [pixels[:3], tensor[3:]],
        {"image": pixels},
        [{"image": image, "path": "x.png"} for image in pixels],
        (batch for batch in (pixels[:5], pixels[5:])),
        pixels[:, ::-1][:, ::-1],  # not contiguous
    ]
    normalized = tensor.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
    for images in [*inputs, normalized, normalized.numpy(), {"image": normalized, "category": ["a"] * 8}]:
        maps, scores = model.predict(images)
        assert np.array_equal(scores, expected.scores)
        assert np.array_equal(maps, expected.anomaly_maps)
    alone = model.predict(pixels[2])
    assert (alone.anomaly_maps.shape, alone.scores[0]) == ((1, 48, 64), expected.scores[2])
    assert model.predict([]).scores.shape == (0,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8), dtype=np.uint8), r"image 0 is uint8 of shape \(2, 8, 8\); an image is uint8"),
        (np.zeros((8, 8)), r"float64 of shape \(8, 8\)"),
        (np.zeros((1, 64, 64, 3)), r"float64 of shape \(64, 64, 3\)"),
        ("images/", "open files first"),
        (7, "got a int for images; accepted are a data set, a DataLoader"),
        ({"picture": 1}, "needs the key image, this one has picture"),
        ({"image": np.zeros((2, 8, 8, 3), dtype=np.uint8), "category": "a"}, "2 images needs as many values of cat"),
    ],
)
def test_what_is_no_image_is_refused(model: PatchCore, images: Any, message: str) -> None:
    with pytest.raises(FedpatchError, match=message):
        model.predict(images)


def test_images_of_two_sizes_are_scored_one_by_one_but_not_in_one_array(model: PatchCore, pixels: np.ndarray) -> None:
    mixed = [pixels[0], pixels[1, :40]]
    with pytest.raises(FedpatchError, match=r"sizes \[\(40, 64\), \(48, 64\)\]; give those of one size"):
        model.predict(mixed)
    scored = list(model.score(mixed))
    assert [item.anomaly_map().shape for item in scored] == [(48, 64), (40, 64)]
    assert scored[0].score == model.predict(pixels[0]).scores[0]


def test_a_defect_is_found_where_it_is(model: PatchCore, pixels: np.ndarray) -> None:
    broken = pixels[:2].copy()
    broken[1, 8:24, 40:56] = 255
    maps, scores = model.predict(broken)
    assert scores[1] > 1.5 * scores[0]
    y, x = np.unravel_index(maps[1].argmax(), maps[1].shape)
    assert 4 <= y < 28
    assert 36 <= x < 60
    assert maps[0].max() < maps[1].max()  # not rescaled to its own range


def test_options_reach_the_scores(extractor: FeatureExtractor, pixels: np.ndarray, model: PatchCore) -> None:
    def scores(**options: Any) -> np.ndarray:
        return PatchCore(extractor, coreset_percentage=0.2, seed=3, **options).fit(pixels).predict(pixels).scores

    plain = model.predict(pixels).scores
    assert np.array_equal(scores(), plain)
    assert (scores(num_neighbors=3) > plain).all()
    assert (scores(num_neighbors=3, image_score="reweighted") < plain).all()
    assert (scores(image_score="top_share", top_share=0.1) < plain).all()
    assert np.allclose(scores(search="ivf"), plain, rtol=0.3)
    assert np.array_equal(scores(use_faiss=False), plain)
    other = PatchCore(extractor, coreset_percentage=0.2, seed=4).fit(pixels)
    assert not np.array_equal(other.memory_bank.features, model.memory_bank.features)
    blurred = PatchCore.of_rows(
        model.memory_bank.features,
        extractor,
        PatchCore(extractor, smoothing_sigma=3.0).inference,
    ).predict(pixels)
    assert np.array_equal(blurred.scores, plain)
    assert (blurred.anomaly_maps.max(axis=(1, 2)) < model.predict(pixels).anomaly_maps.max(axis=(1, 2))).all()


@pytest.mark.parametrize("options", [{"coreset_percentage": 0}, {"num_neighbors": 0}, {"image_score": "reweighted"}])
def test_options_out_of_range_are_refused(extractor: FeatureExtractor, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PatchCore(extractor, **options)


def test_without_images_or_without_fit(extractor: FeatureExtractor) -> None:
    model = PatchCore(extractor)
    with pytest.raises(DatasetError, match="fit got no readable image"):
        model.fit([])
    with pytest.raises(FedpatchError, match=r"no memory bank yet; call fit"):
        model.predict([])


def test_features_that_are_not_finite_are_named(model: PatchCore) -> None:
    images = torch.zeros(2, 3, 64, 64)
    images[1, 0, 5, 5] = float("nan")
    with pytest.raises(DatasetError, match="image 1: its features are not finite"):
        model.predict(images)


def test_an_image_that_goes_bad_is_left_out_of_fit_and_stops_predict(
    tmp_path: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = AutoVIDataset(write_tiny_autovi(tmp_path, train=5))
    truncate(Path(dataset.samples[2][0]))
    model = PatchCore(extractor, image_size=SIZE)
    with caplog.at_level(logging.WARNING):
        model.fit(dataset)
    assert model.statistics["n_images"] == 4
    assert "0002.png" in caplog.text
    with pytest.raises(ImageError, match=r"0002.png: truncated or damaged"):
        model.predict(dataset)
    assert len(list(model.score(dataset, on_bad_image="skip"))) == 4


def test_sizes_by_category_need_the_category(pixels: np.ndarray) -> None:
    sizes = PreprocessingConfig(small_size=(64, 32), large_size=(96, 64))
    images = list(iter_images(pixels[:1], image_size=sizes, category="tank_screw"))
    assert images[0].values.shape == (64, 96, 3)
    assert (images[0].info.height, images[0].info.width) == (48, 64)
    with pytest.raises(FedpatchError, match="comes without a category"):
        list(iter_images(pixels, image_size=sizes))


# --- saving and loading ----------------------------------------------------------------------------------------------


def test_a_saved_model_predicts_the_same(tmp_path: Path, extractor: FeatureExtractor, pixels: np.ndarray) -> None:
    model = PatchCore(
        extractor, coreset_percentage=0.3, num_neighbors=2, image_score="reweighted", search="hnsw",
        smoothing_sigma=1.0, image_size=(96, 64),
    ).fit(pixels)  # fmt: skip
    model.save(tmp_path / "model")
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix not in ("", ".npz", ".json")]
    loaded = PatchCore.load(tmp_path / "model")
    assert loaded.inference == model.inference
    assert loaded.memory_bank.index is not model.memory_bank.index
    expected, got = model.predict(pixels), loaded.predict(pixels)
    assert np.array_equal(expected.anomaly_maps, got.anomaly_maps)
    assert np.array_equal(expected.scores, got.scores)
    again = PatchCore.load(tmp_path / "model", extractor=extractor)
    assert again.extractor is extractor
    top = PatchCore(extractor, coreset_percentage=0.3, image_score="top_share", top_share=0.2).fit(pixels)
    top.save(tmp_path / "top")
    assert np.array_equal(PatchCore.load(tmp_path / "top").predict(pixels).scores, top.predict(pixels).scores)
    reseeded = PatchCore.load(tmp_path / "model", extractor=FeatureExtractor("efficientnet_lite0", seed=9))
    assert np.array_equal(reseeded.predict(pixels).anomaly_maps, expected.anomaly_maps)  # of the same weights
    other = FeatureExtractor("efficientnet_lite0", ["blocks.2"])
    with pytest.raises(ArtifactError, match="the given extractor is"):
        PatchCore.load(tmp_path / "model", extractor=other)


def test_damage_is_found_on_loading(tmp_path: Path, model: PatchCore) -> None:
    model.save(tmp_path / "model")
    bank = tmp_path / "model" / "banks" / "all.npz"
    content = bank.read_bytes()
    bank.write_bytes(content[:-200] + bytes(200))
    with pytest.raises(ArtifactError, match=r"all.npz is damaged"):
        PatchCore.load(tmp_path / "model")
    bank.unlink()
    with pytest.raises(ArtifactError, match=r"all.npz cannot be read: No such file"):
        PatchCore.load(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    for text in ("{", "[]", "{}", '{"schema_version": 9}', path.read_text().replace('"layers"', '"layer"')):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"model.json does not describe a trained model"):
            PatchCore.load(tmp_path / "model")
    with pytest.raises(ArtifactError, match="holds no trained model"):
        PatchCore.load(tmp_path)


def test_a_run_directory_is_a_model(tmp_path: Path, extractor: FeatureExtractor, pixels: np.ndarray) -> None:
    """model.json as a run writes it: no word on scoring, which its config.yaml holds."""
    model = PatchCore(extractor, coreset_percentage=0.2).fit(pixels)
    model.category = "pipe_clip"
    model.save(tmp_path)
    written = json.loads((tmp_path / "model.json").read_text())
    del written["inference"]
    (tmp_path / "model.json").write_text(json.dumps(written))
    config = {"inference": {"num_neighbors": 3, "smoothing_sigma": 2}, "preprocessing": {"small_size": [96, 64]}}
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({**config, "federated": {"turns": "relay"}})
    )  # a key that went
    loaded = PatchCore.load(tmp_path)
    assert loaded.category == "pipe_clip"
    assert loaded.inference.scoring.num_neighbors == 3
    assert loaded.inference.smoothing_sigma == 2
    assert next(iter(loaded.score(pixels))).grid_map.shape == (8, 12)  # resized to 96 x 64 by its category
    with pytest.raises(ArtifactError, match="no memory bank 'tank_screw'; it has pipe_clip"):
        PatchCore.load(tmp_path, "tank_screw")


def test_a_model_that_does_not_say_its_alignment_scores_as_patchcore_does(tmp_path: Path, pixels: np.ndarray) -> None:
    """Earlier models do not; their maps are resized as if each cell looked at the middle of its share."""
    earlier = FeatureExtractor("efficientnet_lite0", alignment="corners_as_patchcore")
    made = PatchCore(earlier, coreset_percentage=0.2, image_size=UNEVEN).fit(pixels)
    made.save(tmp_path)
    written = json.loads((tmp_path / "model.json").read_text())
    assert written["backbone"].pop("alignment") == "corners_as_patchcore"
    (tmp_path / "model.json").write_text(json.dumps(written))
    loaded = PatchCore.load(tmp_path)
    assert loaded.extractor.settings.identity() == earlier.settings.identity()
    for one, map_of_loaded in zip(made.score(pixels), loaded.predict(pixels).anomaly_maps, strict=True):
        expected = torch.nn.functional.interpolate(torch.tensor(one.grid_map)[None, None], (48, 64), mode="bilinear")
        assert np.array_equal(map_of_loaded, expected[0, 0].numpy())


def test_the_weights_must_be_those_of_the_bank(
    tmp_path: Path, extractor: FeatureExtractor, model: PatchCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = extractor.settings.model_copy(update={"weights_path": tmp_path / "moved.pth"})
    assert load_extractor(moved).settings.weights_path == extractor.settings.weights_path  # found on this machine
    (tmp_path / "moved.pth").write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=r"made with efficientnet_lite0 weights of SHA-256 .* put the same file"):
        load_extractor(moved)
    random = FeatureExtractor("resnet18", weights="random", seed=4)
    rebuilt = load_extractor(random.settings)
    pixels = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert torch.equal(rebuilt.extract(pixels)[0], random.extract(pixels)[0])


def test_several_banks_ask_which(tmp_path: Path, model: PatchCore) -> None:
    rows = {"features": model.memory_bank.features}
    write_model(tmp_path, model.extractor.settings, model.inference, {"a": rows, "b": rows})
    with pytest.raises(FedpatchError, match="memory banks a, b; say which"):
        PatchCore.load(tmp_path)
    assert PatchCore.load(tmp_path, "b").category == "b"
    assert set(read_model(tmp_path).banks) == {"a", "b"}
    write_model(tmp_path, model.extractor.settings, model.inference, {"all": rows})
    assert PatchCore.load(tmp_path, "whatever").category == "whatever"
