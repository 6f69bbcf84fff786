"""Two stations without one defective image, and a configuration that says nothing of a federation."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.experiment.runs import show_runs
from pipeline_lib.configuration.files import load_run_config
from pipeline_lib.inspection.run_model import open_run_model
from tests.dataset_fixtures import write_tiny_autovi
from tests.station_fixtures import STATIONS, coordinate, document_of, values

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of different sizes: the second station has more images."""
    root = tmp_path_factory.mktemp("good_plants")
    for seed, station in enumerate(STATIONS[:2]):
        write_tiny_autovi(root / station, train=3 + seed, good=2, defective=0, seed=seed)
    return root


def test_what_a_run_of_stations_says_of_itself_where_its_configuration_does_not(
    calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = values(tmp_path)
    del given["federated"]
    state = coordinate(given, STATIONS[:2])
    assert state.is_completed(), state.message
    out = tmp_path / "run"
    config, _ = load_run_config(out)
    assert config.federated.mode == "federated"
    document = document_of(out)
    assert document.config_hash == config.config_hash()
    assert document.federation.mode == "federated"
    page = (out / "report.html").read_text()
    assert "Training images stay with the clients" in page
    assert "min_clients: all" in page
    untrue_of_stations = ("num_clients", "partitioning", "qc_sample_ratio")
    for untrue in (
        "lie in one place",
        "One place holds all images",
        "nothing is uploaded",
        "baseline",
        *untrue_of_stations,
    ):
        assert untrue not in page, untrue
    capsys.readouterr()
    show_runs([out], markdown=False, as_json=False)
    shown = capsys.readouterr()
    decision = document.categories["pipe_clip"].decision
    assert decision is not None
    assert f"{decision.false_alarms} of 4: " in shown.out
    assert "AUROC" not in shown.out
    assert "fedpatch benchmark" not in shown.err
    model = open_run_model(out)
    assert model.of_stations
    assert "from 7 normal images (3 of station-a, 4 of station-b)" in model.promised("pipe_clip")
