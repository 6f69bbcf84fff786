"""docs/stations.md, two stations with good parts only: its blocks as they stand, each in a shell of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data_contracts.results import MetricsDocument
from pipeline_lib.configuration.files import load_run_config
from tests.conftest import ROOT
from tests.dataset_fixtures import tiny_pixels, write_image
from tests.docs.documented_commands import FENCE
from tests.e2e.prefect_stack import BIN, Stack

pytestmark = pytest.mark.e2e

SECTION = "## Two stations, good parts only\n"


class Terminals(Stack):
    """The page's terminals on one machine, for a user whose home is `home`, on a free port."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        text = (ROOT / "docs/stations.md").read_text(encoding="utf-8").split(SECTION)[1].split("\n## ")[0]
        self.server_block, self.coordinator, self.a, self.b, self.run, self.score = (
            body for _, body in FENCE.findall(text)
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "FEDPATCH_"))}
        self.environment = kept | {
            "HOME": str(home),
            "PREFECT_SERVER_API_PORT": str(self.port),  # as the page says for another port
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.checkout = home / "checkout"
        self.checkout.mkdir()
        shutil.copy(ROOT / "prefect.yaml", self.checkout)

    def put_in(self, block: str) -> list[str]:
        """A shell with a block of the page: with this environment, port and photographs, ending at an error."""
        assert ". .venv/bin/activate\n" in block
        block = block.replace(". .venv/bin/activate", f'PATH="{BIN}:$PATH"').replace(":4200/", f":{self.port}/")
        return ["bash", "-euc", re.sub(r"\b(?:PHOTOS_[AB]|NEW_PHOTOS)\b", lambda found: f"~/{found[0]}", block)]

    def open(self, name: str, block: str) -> subprocess.Popen[bytes]:
        """A terminal that stays open."""
        with (self.home / f"{name}.log").open("wb") as log:
            shell = subprocess.Popen(
                self.put_in(block), cwd=self.checkout, env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.processes.append(shell)
        return shell

    def workers(self, pool: str) -> set[str]:
        """Work queues that a worker asks for."""
        queues = self.api(f"/work_pools/{pool}/queues/filter", {})
        return {queue["name"] for queue in queues if queue["status"] == "READY"}


def test_the_blocks_of_the_page_end_with_new_photographs_scored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, count in (("PHOTOS_A", 10), ("PHOTOS_B", 15), ("NEW_PHOTOS", 3)):
        for number in range(count):
            write_image(tmp_path / folder / f"{number:03d}.png", tiny_pixels(rng, (96, 48)))
    plant = Terminals(tmp_path)
    try:
        server = plant.open("server", plant.server_block)
        plant._wait_for(lambda: plant.api("/health"), alive=server)
        coordinator = plant.open("coordinator", plant.coordinator)
        plant._wait_for(lambda: plant.workers("local"), alive=coordinator)
        for name, block in (("station-a", plant.a), ("station-b", plant.b)):
            station = plant.open(name, block)
            plant._wait_for(lambda name=name: name in plant.workers("stations"), alive=station)
        done = subprocess.run(
            plant.put_in(plant.run + plant.score), cwd=plant.checkout, env=plant.environment, capture_output=True,
            text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-3000:]} {done.stderr[-3000:]} {plant.logs()}"
    finally:
        plant.stop()
    (run,) = plant.checkout.glob("runs/two_stations-*")
    document = MetricsDocument.model_validate_json((run / "metrics.json").read_text())
    sent = {name: client.train_images for name, client in document.federation.clients.items()}
    assert sent == {"station-a": 8, "station-b": 12}  # a fifth is for the test
    assert load_run_config(run)[0].preprocessing.size_by_category["part"] != (400, 400)
    assert (plant.checkout / "scored/index.html").is_file()
    assert re.search(r"\d accepted$", done.stdout, re.MULTILINE)
