"""A backbone that cannot be used is refused before an image is read, with the shape that came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, WeightsError
from flows.cli import main
from pipeline_lib.features.backbone import build_network
from pipeline_lib.features.extractor import FeatureExtractor, is_feature_map
from pipeline_lib.planning.backbone_trial import patch_grid, try_backbone, unweighted
from tests.conftest import ROOT

SWIN = "timm/swin_tiny_patch4_window7_224"
VIT = "timm/vit_tiny_patch16_224"


def config(
    backbone: str, layers: list[str] | None = None, size: tuple[int, int] = (224, 224), **model: Any
) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "model": {"backbone": backbone, "layers": layers, "weights": "random", **model},
            "preprocessing": {"small_size": size, "large_size": size},
        }
    )


@pytest.mark.parametrize(
    ("image", "shape", "fits"),
    [
        ((224, 224), (1, 192, 28, 28), True),
        ((224, 224), (1, 28, 28, 192), False),  # channels last
        ((400, 1000), (1, 8, 125, 50), False),  # turned
        ((400, 1000), (1, 8, 50, 125), True),
        ((333, 401), (1, 8, 41, 51), True),  # one side down, the other up
        ((333, 401), (1, 8, 42, 50), True),
        ((333, 401), (1, 8, 44, 50), False),
        ((299, 299), (1, 8, 35, 35), True),  # without padding
        ((750, 1000), (1, 8, 1, 1), True),
        ((224, 224), (2, 8, 28, 28), False),
        ((224, 224), (1, 197, 192), False),
    ],
)
def test_what_is_a_feature_map(image: tuple[int, int], shape: tuple[int, ...], fits: bool) -> None:
    assert is_feature_map(shape, (1, 3, *image)) == fits


def test_channels_last_is_read_as_timm_says() -> None:
    settings = unweighted(config(SWIN, ["layers.1", "layers.2"]))
    assert patch_grid(settings, 224, 224) == (28, 28, 192 + 384)  # 784 patches
    settings = settings.model_copy(update={"layers": ("layers.1",), "neighborhood_size": 1})
    network: Any = build_network(settings)
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = network.layers[1](network.layers[0](network.patch_embed(images)))
    assert expected.shape == (1, 28, 28, 192)
    found = FeatureExtractor(settings=settings)(images)
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("backbone", "layers", "size", "message"),
    [
        (VIT, ["head"], (224, 224), r"'head' gives no feature map, but shape \(1, 1000\)"),
        (
            "timm/mixer_s32_224",
            ["blocks.5"],
            (400, 400),
            r"failed when it was tried on an image of 400x400 .*doesn't match model \(224\)",
        ),
        ("efficientnet_lite0", ["classifier"], (64, 64), r"'classifier' gives no feature map, but shape \(1, 1000\)"),
        ("efficientnet_lite0", ["blocks.9"], (64, 64), "no layer 'blocks.9'"),
    ],
)
def test_what_cannot_be_used(
    tiny_root: Path, backbone: str, layers: list[str], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        try_backbone(config(backbone, layers, size), tiny_root)


def test_sizes_of_categories_that_are_not_there_do_not_count(tiny_root: Path, tmp_path: Path) -> None:
    values = config("timm/mixer_s32_224").model_dump(mode="json")
    values["preprocessing"]["size_by_category"] = {"no_such_category": (400, 400)}
    fine = ExperimentConfig.model_validate(values)
    try_backbone(fine, tiny_root)
    try_backbone(config(VIT, ["head"]), tmp_path)  # no data set: the run says what is wrong with that


def test_weights_of_another_network(tiny_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="1 tensors, the network has"):
        try_backbone(
            config("efficientnet_lite0", size=(64, 64), weights="pretrained", weights_path=str(path)), tiny_root
        )


@pytest.mark.parametrize("command", [["plan"], ["run"], ["run", "--force"]])
def test_commands_say_it_in_one_line_before_anything_runs(
    prefect_server: None, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    values = {
        "dataset.root": tiny_root, "runtime.store": tmp_path / "store", "runtime.out": tmp_path / "out",
        "model.backbone": VIT, "model.layers": '["head"]', "model.weights": "random",
        "preprocessing.small_size": "[224, 224]", "preprocessing.large_size": "[224, 224]",
    }  # fmt: skip
    name, *flags = command
    sets = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
    with pytest.raises(SystemExit) as ended:
        main([name, str(ROOT / "configs/demo.yaml"), *flags, *sets])
    assert ended.value.code == 1
    *found, line = capsys.readouterr().err.splitlines()
    begins = ["demo: starting"] if name == "run" else []
    assert [one.split(",")[0].split(" ", one[0].isdigit())[-1] for one in found] == [*begins, "layout autovi"]
    assert "'head' gives no feature map, but shape (1, 1000)" in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()
