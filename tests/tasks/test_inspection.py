"""Scoring by name: what the task hands to the session."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import inspection


def test_what_lies_below_out_is_no_input_of_a_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new.png", "scored/left_here.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    scored: list[Path] = []

    def score(paths: list[Path]) -> list[Any]:
        scored.extend(paths)
        return []

    monkeypatch.setattr(inspection.run_model, "open_run_model", lambda *_, **__: None)
    monkeypatch.setattr(inspection.score_session, "ScoreSession", lambda *_, **__: SimpleNamespace(score=score))
    monkeypatch.setattr(inspection, "progress_log", lambda _: lambda *_: None)
    inspection.score_paths.fn(tmp_path, [tmp_path], tmp_path / "scored", None, False, None)
    assert scored == [tmp_path / "new.png"]
