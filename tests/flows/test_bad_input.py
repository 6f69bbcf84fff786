"""Bad input to a whole run: each piece of it is named, and costs itself and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.results import MetricsDocument
from flows.experiment import federated_experiment
from tests.conftest import experiment_values
from tests.dataset_fixtures import DEFECTS, truncate, write_image

pytestmark = pytest.mark.usefixtures("prefect_server")

INTACT, DAMAGED, EMPTY = "tank_screw", "pipe_clip", "pipe_staple"
TRUNCATED = f"{DAMAGED}/test/good/0001.png"
TRUNCATED_IN_TRAINING = f"{DAMAGED}/train/good/0002.png"
SMALL_MASK = f"{DAMAGED}/ground_truth/scratch/0001/0000.png"
OTHER_VALUE = f"{DAMAGED}/ground_truth/missing/0001/0000.png"
CLIENTS = {"clips": [DAMAGED], "tanks": [INTACT], "staples": [EMPTY]}


def run(root: Path, store: Path, out: Path, **sections: Any) -> Any:
    federated = {"partitioning": "category", "client_assignments": CLIENTS}
    values = experiment_values(root, store, out, federated=federated, **sections)
    return federated_experiment(ExperimentConfig.model_validate(values), return_state=True)


def damage(root: Path) -> None:
    """Everything that is wrong with a data set and can be survived, in one category, and a category without images."""
    truncate(root / TRUNCATED)
    truncate(root / TRUNCATED_IN_TRAINING)
    write_image(root / SMALL_MASK, np.full((20, 30), 255, np.uint8))
    mask = np.zeros((48, 64), np.uint8)
    mask[5:20, 5:20] = 77
    write_image(root / OTHER_VALUE, mask)
    entries = [{**DEFECTS[0], "saturation_threshold": 1}, DEFECTS[1]]  # 1, not 1.0
    (root / DAMAGED / "defects_config.json").write_text(json.dumps(entries))
    for folder in ("train/good", "test/good"):
        (root / EMPTY / folder).mkdir(parents=True)
    (root / EMPTY / "defects_config.json").write_text(json.dumps(DEFECTS))


@pytest.fixture(scope="module")
def directories(finished: Path, tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(run directory of the whole data set, of the damaged one, name and message of the damaged run's state)."""
    directory = tmp_path_factory.mktemp("bad_input")
    shutil.copytree(finished / "store", directory / "store")
    shutil.copytree(tiny_root, directory / "data")
    damage(directory / "data")
    run(tiny_root, directory / "store", directory / "whole", dataset={"categories": [DAMAGED, INTACT]})
    state = run(directory / "data", directory / "store", directory / "damaged")
    return directory / "whole", directory / "damaged", f"{state.name}: {state.message}"


def document(directory: Path) -> MetricsDocument:
    return MetricsDocument.model_validate_json((directory / "metrics.json").read_text())


def test_the_rest_of_the_run_is_intact(directories: tuple[Path, Path, str]) -> None:
    whole, damaged, state = directories
    assert re.fullmatch(r"Completed: image AUROC [\d.]+, AUC-sPRO@0.05 [\d.]+; without images: staples", state)
    assert document(damaged).categories[INTACT] == document(whole).categories[INTACT]
    left = document(damaged).categories[DAMAGED]
    assert (left.n_good, left.n_defective) == (3, 6)  # the truncated image is gone; without a mask it still counts
    assert left.image_auroc is not None
    assert left.auc_spro["0.05"] is not None
    for name in ("banks/pipe_clip.npz", "banks/tank_screw.npz", "report.html"):
        assert (damaged / name).is_file(), name


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("unreadable_image", TRUNCATED),
        ("unreadable_image", TRUNCATED_IN_TRAINING),
        ("mask_size", f"{SMALL_MASK} is 30x20 pixels, its image 64x48"),
        ("mask_value_unknown", f"{OTHER_VALUE} holds the value 77"),
        ("empty_category", f"{EMPTY}: no readable training image"),
    ],
)
def test_each_damage_is_named_for_people(directories: tuple[Path, Path, str], code: str, message: str) -> None:
    text = (directories[1] / "validation.txt").read_text()
    assert code in text
    assert message in text


def test_masks_that_are_left_out_are_warnings_of_the_result(directories: tuple[Path, Path, str]) -> None:
    warnings = document(directories[1]).warnings
    for mask in (SMALL_MASK, OTHER_VALUE):
        (warning,) = [line for line in warnings if mask in line]
        assert "left out of the pixel metrics" in warning
    assert any("2 images cannot be read" in line for line in warnings)
    assert f"{EMPTY} has no readable test images and is not measured" in warnings


def test_a_saturation_of_1_is_taken_for_1_0(directories: tuple[Path, Path, str]) -> None:
    assert "no_defects_config" not in (directories[1] / "validation.txt").read_text()
    assert set(document(directories[1]).categories[DAMAGED].by_defect) == {"missing", "scratch"}


def test_damaged_images_end_the_run_where_that_is_asked_for(
    directories: tuple[Path, Path, str], tmp_path: Path
) -> None:
    root = directories[1].parent
    state = run(
        root / "data", root / "store", tmp_path / "run", dataset={"on_bad_image": "fail", "categories": [DAMAGED]}
    )
    assert state.is_failed()
    assert TRUNCATED_IN_TRAINING in str(state.result(raise_on_failure=False))


def test_a_client_without_images_is_named_and_does_not_count_among_all(
    directories: tuple[Path, Path, str], tmp_path: Path
) -> None:
    federation = document(directories[1]).federation
    assert (sorted(federation.clients), federation.skipped_clients) == (["clips", "tanks"], ["staples"])
    assert federation.failed_clients == {}
    assert any("client staples has no images" in warning for warning in document(directories[1]).warnings)
    root = directories[1].parent
    values = experiment_values(root / "data", root / "store", tmp_path / "run")
    values["federated"] |= {"partitioning": "category", "client_assignments": CLIENTS, "min_clients": 3}
    state = federated_experiment(ExperimentConfig.model_validate(values), return_state=True)
    assert state.is_failed()
    assert "min_clients is 3, clients with images: 2; without images: staples" in state.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"weights_path": "/nowhere/weights.pt"}, "/nowhere/weights.pt"),
        ({"backbone": "no_such_net"}, "no_such_net"),
    ],
)
def test_weights_that_are_not_there_end_the_run_with_one_line(
    tiny_root: Path, tmp_path: Path, backbone: dict[str, str], message: str
) -> None:
    state = run(tiny_root, tmp_path / "store", tmp_path / "run", model=backbone)
    assert state.is_failed()
    error = str(state.result(raise_on_failure=False))
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "run").exists()
