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


def run(root: Path, store: Path, mode: str = "federated") -> list[str]:
    """The pictures of the report of one run."""
    values = experiment_values(root, store, store.parent / "out", federated={"mode": mode})
    flow = centralized_experiment if mode == "centralized" else federated_experiment
    assert flow(ExperimentConfig.model_validate(values), return_state=True).is_completed()
    return pictures(store.parent / "out")


def pictures(out: Path) -> list[str]:
    return re.findall(r'data:image/[a-z]+;base64,[^"]+', (out / "report.html").read_text())


def test_an_unchanged_run_draws_nothing_and_a_damaged_gallery_is_drawn_again(
    tiny_root: Path, finished: Path, store: Path, drawn: list[str]
) -> None:
    first = pictures(finished / "run")
    assert len(first) > 4
    assert run(tiny_root, store) == first
    assert drawn == []
    file = sorted((store / "objects" / "gallery").rglob("*.json"))[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run(tiny_root, store) == first
    assert len(drawn) == 1


@pytest.mark.slow
def test_a_changed_image_is_drawn_anew_and_one_that_is_gone_is_not_kept(
    tiny_root: Path, tmp_path: Path, store: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    before = run(root, store, "centralized")
    assert drawn == ["pipe_clip", "tank_screw"]
    assert run(root, store, "centralized") == before
    assert drawn == ["pipe_clip", "tank_screw"]
    changed = sorted((root / "tank_screw" / "test" / "good").iterdir())[0]
    with Image.open(changed) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    drawn.clear()
    assert run(root, store, "centralized") != before
    assert "tank_screw" in drawn
    drawn.clear()
    monkeypatch.setattr(galleries, "is_complete", lambda *_, **__: False)
    monkeypatch.setattr(galleries, "code_version", lambda *_: "another version of the code")
    run(root, store, "centralized")
    run(root, store, "centralized")
    assert drawn == ["pipe_clip", "tank_screw"] * 2
