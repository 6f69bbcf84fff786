"""A tenth of AutoVI as the guide describes it: WideResNet-50-2 at the native sizes, 10 %, five clients.

Images are made up in AutoVI's counts and sizes, weights are random: sizes and times are those of any weights. A run
is `fedpatch run configs/autovi_iid.yaml`; beside another checkout its rows are picks, which every checkout has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.children import Outcome, run_child
from benchmarks.real_features import cache_directory
from benchmarks.rows import Row
from data_contracts.defects import AUTOVI_COUNTS
from pipeline_lib.dataset.synthetic.dataset import synthesize_dataset

PART, QUICK_PART = 10, 40
MEMORY_GB, DISK_GB, TIMES_FASTER = 8.0, 6.0, 3.0
HERE = Path(__file__).parents[1]
AFTER_FEATURES = ("clients", "aggregate", "calibrate", "score", "measure")  # of a run whose features are there


def autovi_tenth(*, quick: bool) -> list[Row]:
    """The largest memory and disk of a whole run that does not keep features."""
    root = Path(tempfile.mkdtemp(dir=cache_directory()))
    try:
        disk = _DiskPeak(root)
        disk.start()
        outcome = _run(HERE, root, "run", "runtime.keep_features=false", quick=quick)
        disk.stop.set()
        disk.join()
        timings = _metrics(root / "run")["timings_s"]
    finally:
        shutil.rmtree(root)
    figures = {"wall_s": round(outcome.wall_s), "timings_s": timings}
    return [
        _limit("autovi_tenth_memory", outcome.peak_anonymous_mb / 1000, MEMORY_GB, figures, quick=quick),
        _limit("autovi_tenth_disk", disk.bytes / 1e9, DISK_GB, {}, quick=quick),
    ]


def autovi_tenth_against(other: Path, *, quick: bool) -> list[Row]:
    """All that a run computes after the features, here and in another checkout, one after the other, once."""
    root = Path(tempfile.mkdtemp(dir=cache_directory()))
    try:
        sides = {}
        for name, checkout in (("own", HERE), ("peer", other)):
            own = ["model.rows=picks"] if checkout == HERE else []
            _run(checkout, root / name, "features", "model.coreset_percentage=0.0005", "decision.blocks=0", quick=quick)
            _run(checkout, root / name, "run", *own, quick=quick)
            timings = _metrics(root / name / "run")["timings_s"]
            sides[name] = {stage: timings[stage] for stage in AFTER_FEATURES}
        equal = _answer(root / "own" / "run") == _answer(root / "peer" / "run")
    finally:
        shutil.rmtree(root)
    ratio = sum(sides["peer"].values()) / sum(sides["own"].values())
    return [
        Row(
            name="autovi_tenth",
            peer=f"the checkout {other}",
            ratio_median=round(ratio, 2),
            ratio_min=round(ratio, 2),
            repetitions=1,
            equal_results=equal,
            wanted=TIMES_FASTER,
            work=f"all after the features of {_work(quick=quick)}",
            figures=sides,
        )
    ]


def _run(checkout: Path, root: Path, name: str, *settings: str, quick: bool) -> Outcome:
    """A run in root/name, with the store root/store."""
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from flows.cli import main; sys.exit(main())"
    command = [
        sys.executable, "-P", "-W", "ignore", "-c", program, str(checkout),
        "run", str(checkout / "configs" / "autovi_iid.yaml"), "--json", "--force", "--out", str(root / name),
    ]  # fmt: skip
    threads = os.environ["OMP_NUM_THREADS"]
    (root / "prefect").mkdir(parents=True, exist_ok=True)
    given = [f"dataset.root={_images(quick=quick)}", f"runtime.store={root / 'store'}", "model.weights=random"]
    for setting in (*given, f"runtime.workers={threads}", *settings):
        command += ["--set", setting]
    return run_child(command, environment={"PREFECT_HOME": str(root / "prefect"), "OMP_NUM_THREADS": "1"})


def _images(*, quick: bool) -> Path:
    """Made-up images, drawn once."""
    part = QUICK_PART if quick else PART
    root = cache_directory() / f"autovi-1-{part}"
    for category, counts in AUTOVI_COUNTS.items():
        if not (root / category).is_dir():
            synthesize_dataset(root, categories=[category], images=round(counts["train"] / part))
    return root


def _metrics(run: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return found


def _answer(run: Path) -> dict[str, str]:
    """SHA-256 of the banks and of the scores."""
    files = [*sorted((run / "banks").glob("*.npz")), run / "scores.parquet"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _work(*, quick: bool) -> str:
    return f"a {'fortieth' if quick else 'tenth'} of AutoVI's images, made up, WideResNet-50-2, 10 %, five clients"


def _limit(name: str, found_gb: float, wanted: float, figures: dict[str, object], *, quick: bool) -> Row:
    return Row(
        name=name,
        peer="GB at most",
        ratio_median=round(found_gb, 2),
        ratio_min=round(found_gb, 2),
        repetitions=1,
        equal_results=True,
        wanted=wanted,
        direction="at most",
        work=f"a whole run of {_work(quick=quick)}; features not kept",
        figures=figures,
    )


class _DiskPeak(threading.Thread):
    """The most that files below a directory take, those without a name that are mapped included."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.bytes = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(2):
            self.bytes = max(self.bytes, _named_bytes(self.root) + _mapped_bytes(self.root))


def _named_bytes(root: Path) -> int:
    """Each inode once: the run directory links to the store."""
    sizes = {}
    for directory, _, names in os.walk(root):
        for name in names:
            try:
                info = os.stat(os.path.join(directory, name))
            except OSError:
                continue
            sizes[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(sizes.values())


def _mapped_bytes(root: Path) -> int:
    """Of deleted files that were below `root`, as they are mapped by processes."""
    sizes: dict[str, int] = {}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            if str(root) in line and line.endswith("(deleted)"):
                first, last = (int(one, 16) for one in line.split()[0].split("-"))
                inode = line.split()[4]
                sizes[inode] = max(sizes.get(inode, 0), last - first)
    return sum(sizes.values())
