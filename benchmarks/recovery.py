"""What a fault costs: the time to finish an experiment after it, as a share of the whole experiment's time.

`python -m benchmarks.recovery [--json FILE]`, on the images in FEDPATCH_REAL_DATA. Whole processes are timed, with the
start of Python and of Prefect's server; the run that nothing happened to says how much of it that is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.children import run_child
from benchmarks.real_features import cache_directory, data_root

CATEGORY = "magnetic_tile"
CLIENTS = 5


class Place:
    """A copy of the images, a store, and the command that runs the experiment on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.store = directory / "store"
        shutil.copytree(data_root() / CATEGORY, self.data / CATEGORY)
        self.environment = {"PREFECT_HOME": str(directory / "prefect"), "FEDPATCH_RETRY_DELAYS": "0.1"}
        self.command = [
            sys.executable, "-c", "import sys; from flows.cli import main; sys.exit(main())",
            "run", "configs/real3_iid.yaml", "--json", "--out", str(directory / "run"),
            "--set", f"dataset.root={self.data}", "--set", f"runtime.store={self.store}",
            "--set", f"federated.num_clients={CLIENTS}", "--set", f"federated.min_clients={CLIENTS}",
            "--set", "federated.partitioning=time", "--set", "runtime.workers=1",
        ]  # fmt: skip

    def finish(self) -> float:
        """Run to the end; seconds."""
        seconds = run_child(self.command, environment=self.environment).wall_s
        assert (self.directory / "run" / "metrics.json").is_file()
        return seconds

    def start(self) -> subprocess.Popen[bytes]:
        """Run in a process group of its own."""
        return subprocess.Popen(
            self.command, env={**os.environ, **self.environment}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def artifacts(self, kind: str) -> list[Path]:
        """The files of one kind of artifact."""
        return sorted(path for path in (self.store / "objects" / kind).rglob("*") if path.is_file())

    def wait_for(self, process: subprocess.Popen[bytes], kind: str, number: int) -> None:
        """Wait until the run has made that many artifacts of a kind."""
        while len(self.artifacts(kind)) < number:
            if process.poll() is not None:
                raise SystemExit(f"the run ended before it made {number} artifacts of kind {kind}")
            time.sleep(0.05)


def client_failed(place: Place) -> float:
    """An image of the last client goes away while the others work, and comes back."""
    process = place.start()
    place.wait_for(process, "partition", 1)
    victim = max((place.data / CATEGORY / "train" / "good").iterdir())
    away = victim.with_suffix(".away")
    victim.rename(away)
    assert process.wait() == 1
    away.rename(victim)
    return place.finish()


def killed(place: Place) -> float:
    """kill -9 of everything when the third of the clients is at work."""
    process = place.start()
    place.wait_for(process, "patch_features", CLIENTS // 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return place.finish()


def damaged(place: Place) -> float:
    """One client's upload is overwritten."""
    path = place.artifacts("client_upload")[0]
    path.write_bytes(b"0" * path.stat().st_size)
    return place.finish()


def deleted(place: Place) -> float:
    """A fifth of the stored image features is deleted."""
    for path in place.artifacts("image_features")[::CLIENTS]:
        path.unlink()
    return place.finish()


def main() -> None:
    """Measure each fault once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=cache_directory()))
    try:
        whole_place = Place(root / "whole")
        whole = whole_place.finish()
        faults: dict[str, Callable[[], float]] = {
            "nothing happened": whole_place.finish,
            "an upload damaged": lambda: damaged(whole_place),
            "a fifth of the image features deleted": lambda: deleted(whole_place),
            "one of five clients failed": lambda: client_failed(Place(root / "failed")),
            "killed at the third of five clients": lambda: killed(Place(root / "killed")),
        }
        shares = {name: round(measure() / whole, 3) for name, measure in faults.items()}
    finally:
        shutil.rmtree(root)
    for name, share in shares.items():
        print(f"{name}: {share:.0%} of the whole run's {whole:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"whole_s": round(whole, 1), "share": shares}, indent=1) + "\n")


if __name__ == "__main__":
    main()
