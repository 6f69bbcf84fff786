"""What a station's log says of what left it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from data_contracts.manifests import ClientUploads
from pipeline_lib.storage.artifact_store import ArtifactStore
from tasks import stations
from tests.tasks.test_server import upload


@pytest.mark.parametrize(("image_bytes", "levels"), [(10_000_000, ["INFO"]), (100_000, ["INFO", "WARNING"])])
def test_a_station_says_what_it_sent_and_warns_where_its_images_have_less(
    image_bytes: int,
    levels: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stations, "get_run_logger", lambda: logging.getLogger("test"))
    made = upload(ArtifactStore(tmp_path), "station-a", np.zeros((4, 3)))
    sent = made.model_copy(update={"size_bytes": 400_000, "raw_image_bytes": image_bytes})
    with caplog.at_level(logging.INFO):
        stations.say_sent(ClientUploads(client_id="station-a", uploads=(sent,), provenance=()))
    assert [record.levelname for record in caplog.records] == levels
    assert f"station station-a sent its rows, 0.4 MB for {image_bytes / 1e6:g} MB of images" in caplog.text
    assert ("lower model.coreset_percentage" in caplog.text) == (len(levels) == 2)
