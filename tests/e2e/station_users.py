"""Machines of a plant on one host: each station and the coordinator is a user with a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import prefect
import yaml

from tests.conftest import ROOT
from tests.dataset_fixtures import write_tiny_autovi
from tests.e2e.prefect_stack import Stack

POOL = "stations"
COORDINATOR = "coordinator"
PROBE = "import flows.stations, torch, PIL._imaging"


class Plant:
    """Directories below `root`: one a machine, which its user alone can enter, and the shared place of their group."""

    def __init__(self, stack: Stack, root: Path, stations: list[str], python: str) -> None:
        self.stack, self.root, self.stations, self.python = stack, root, stations, python
        self.shared = root / "shared"
        self.machines = [*stations, COORDINATOR]
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def group(self) -> str:
        return f"fedpatch-{os.getpid()}"

    def user(self, machine: str) -> str:
        """The user that a machine's worker runs as."""
        return f"fp-{machine}-{os.getpid()}"

    def home(self, machine: str) -> Path:
        return self.root / machine

    def environment(self, machine: str) -> dict[str, str]:
        """What the machine's worker knows: its own places, the shared one, the server."""
        home = self.home(machine)
        own = {"FEDPATCH_DATASET": str(home / "data"), "FEDPATCH_STATION": machine}
        return {
            **{k: v for k, v in self.stack.environment.items() if not k.startswith("FEDPATCH_")},
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),  # <tmp>/runner_storage belongs to the first user's worker
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PYTHONPATH": python_path(),
            "FEDPATCH_RETRY_DELAYS": "0.1",
            "FEDPATCH_STORE": str(home / "store"),
            "FEDPATCH_EXCHANGE": str(self.shared),
            **(own if machine in self.stations else {}),
        }

    def as_user(self, machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as the machine's user."""
        return subprocess.run(
            [self.python, *arguments], cwd=ROOT, env=self.environment(machine), user=self.user(machine),
            group=self.group, extra_groups=[], capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def start(self, machine: str) -> None:
        """Start the machine's worker on its own queue, as `setpriv --reuid ... prefect worker start` does."""
        with (self.stack.home / f"{machine}.log").open("ab") as log:
            self.workers[machine] = subprocess.Popen(
                [self.python, "-m", "prefect", "worker", "start", "--pool", POOL, "--work-queue", machine],
                cwd=ROOT, env=self.environment(machine), user=self.user(machine), group=self.group, extra_groups=[],
                umask=0o002, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def write_data(self, station: str, *, seed: int, **sizes: int) -> None:
        """Give a station images, which belong to it."""
        data = write_tiny_autovi(
            self.home(station) / "data", train=sizes.get("train", 4), good=3, defective=2, seed=seed
        )
        for path in [data, *data.rglob("*")]:
            shutil.chown(path, self.user(station), self.group)

    def deploy(self) -> None:
        """A deployment and a queue for each station, and for the coordinator."""
        known = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
        by_flow: dict[str, dict[str, Any]] = {block["entrypoint"].rpartition(".")[2]: block for block in known}

        def block(flow: str, name: str, queue: str) -> dict[str, Any]:
            """One of prefect.yaml's, copied as the docs say."""
            copied = by_flow[flow]
            pool = {**copied["work_pool"], "name": POOL, "work_queue_name": queue}
            return {**copied, "name": name, "work_pool": pool}

        blocks = [block("station_client", station, station) for station in self.stations]
        blocks.append(block("station_coordinator", "plant", COORDINATOR))
        file = self.root / "plant.yaml"
        file.write_text(yaml.safe_dump({"name": "plant", "deployments": blocks}))
        self.stack.prefect("deploy", "--all", "--no-prompt", "--prefect-file", str(file))


def python_path() -> str:
    """Where a Python that is not the tests' own finds the project and what it needs."""
    return os.pathsep.join([str(ROOT), str(Path(prefect.__file__).parent.parent)])


def python_for_all() -> str | None:
    """A Python of this version that any user may run with the project and its packages; None where there is none."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        try:
            done = subprocess.run(
                [python, "-c", PROBE], cwd=ROOT, env={"PATH": os.environ["PATH"], "PYTHONPATH": python_path()},
                user="nobody", extra_groups=[], capture_output=True, timeout=120, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


def why_not() -> str | None:
    """Why there can be no plant of several users here, or None."""
    if os.getuid() != 0:
        return "users can be made by root alone; run the tests as root to have this one run"
    if not shutil.which("useradd"):
        return "there is no useradd"
    if python_for_all() is None:
        return f"no Python {sys.version_info.major}.{sys.version_info.minor} with the project that other users may run"
    return None


@contextmanager
def made_plant(stack: Stack, stations: list[str]) -> Iterator[Plant]:
    """Users, group and directories, removed with the block, workers ended."""
    python = python_for_all()
    assert python is not None
    plant = Plant(stack, Path(tempfile.mkdtemp(prefix="fedpatch-plant-")), stations, python)
    plant.root.chmod(0o755)
    try:
        subprocess.run(["groupadd", "--system", plant.group], check=True)
        for machine in plant.machines:
            home = plant.home(machine)
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--home-dir", str(home), "--gid", plant.group,
                 "--shell", "/usr/sbin/nologin", plant.user(machine)], check=True,
            )  # fmt: skip
            home.mkdir(mode=0o700)
            for path in (home, home / "tmp"):
                path.mkdir(exist_ok=True)
                shutil.chown(path, plant.user(machine), plant.group)
        plant.shared.mkdir()
        shutil.chown(plant.shared, plant.user(COORDINATOR), plant.group)
        plant.shared.chmod(0o2770)
        yield plant
    finally:
        for worker in plant.workers.values():
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        for machine in plant.machines:
            subprocess.run(["userdel", "--force", plant.user(machine)], check=False, capture_output=True)
        subprocess.run(["groupdel", plant.group], check=False, capture_output=True)
        shutil.rmtree(plant.root, ignore_errors=True)
