"""The report's pictures are drawn once: again only after a change, or where the kept file is damaged."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_contracts.config import ExperimentConfig
from flows.experiment import centralized_experiment, federated_experiment
from tasks import galleries
from tests.conftest import experiment_values

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The categories whose pictures were drawn, in order."""
    categories: list[str] = []
    original = galleries.category_gallery

    def drawing(maps: Any, scores: Any, *arguments: Any, **keywords: Any) -> Any:
        categories.append(str(scores.category.iloc[0]))
        return original(maps, scores, *arguments, **keywords)

    monkeypatch.setattr(galleries, "category_gallery", drawing)
    return categories


def run(root: Path, tmp_path: Path, mode: str = "federated", **sections: Any) -> list[str]:
    """The pictures of the report of one run on the store of `tmp_path`."""
    values = experiment_values(root, tmp_path / "store", tmp_path / "out", **sections)
    values["federated"] = {**values["federated"], "mode": mode}
    flow = centralized_experiment if mode == "centralized" else federated_experiment
    assert flow(ExperimentConfig.model_validate(values), return_state=True).is_completed()
    return re.findall(r'data:image/[a-z]+;base64,[^"]+', (tmp_path / "out" / "report.html").read_text())


@pytest.mark.parametrize("mode", ["federated", "centralized"])
def test_an_unchanged_run_draws_nothing(mode: str, tiny_root: Path, tmp_path: Path, drawn: list[str]) -> None:
    first = run(tiny_root, tmp_path, mode)
    assert drawn == ["pipe_clip", "tank_screw"]
    assert len(first) > 4
    assert run(tiny_root, tmp_path, mode) == first
    assert drawn == ["pipe_clip", "tank_screw"]


def test_a_damaged_gallery_is_drawn_again(tiny_root: Path, tmp_path: Path, drawn: list[str]) -> None:
    first = run(tiny_root, tmp_path)
    drawn.clear()
    file = sorted((tmp_path / "store" / "objects" / "gallery").rglob("*.json"))[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run(tiny_root, tmp_path) == first
    assert len(drawn) == 1


def test_a_changed_image_is_drawn_anew_and_one_that_is_gone_is_not_kept(
    tiny_root: Path, tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    before = run(root, tmp_path)
    changed = sorted((root / "tank_screw" / "test" / "good").iterdir())[0]
    with Image.open(changed) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    drawn.clear()
    assert run(root, tmp_path) != before
    assert "tank_screw" in drawn
    drawn.clear()
    monkeypatch.setattr(galleries, "is_complete", lambda *_, **__: False)
    monkeypatch.setattr(galleries, "code_version", lambda *_: "another version of the code")
    run(root, tmp_path)
    run(root, tmp_path)
    assert drawn == ["pipe_clip", "tank_screw"] * 2
