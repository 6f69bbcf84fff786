"""What the artifact store holds, and what may go: a run registers what it refers to, everything else ages out."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.manifests import Manifest
from pipeline_lib.artifact_store import TEMPORARY_SUFFIX, ArtifactStore
from pipeline_lib.features import image_manifests

GRACE_SECONDS = 6 * 3600.0
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class StoreStatus:
    """What a store holds."""

    root: str
    size_bytes: int
    files_by_kind: dict[str, int]
    bytes_by_kind: dict[str, int]
    temporary_files: int
    records: int
    runs: int
    referred_bytes: int


@dataclass(frozen=True)
class PruneReport:
    """What was removed, or would be."""

    removed_files: int
    removed_bytes: int
    kept_bytes: int
    removed_runs: int
    dry_run: bool


def register_run(store: ArtifactStore, run_id: str, manifests: Iterable[Manifest], *, run_directory: str) -> None:
    """Note which artifacts a finished run refers to; the image features behind its patch features count too."""
    paths = set()
    for manifest in manifests:
        paths.add(manifest.path)
        if manifest.kind == "patch_features":
            paths.update(image.path for image in image_manifests(store.read_table(manifest)))
    store.remember("runs", run_id, {"time": time.time(), "run_directory": run_directory, "paths": sorted(paths)})


def store_status(store: ArtifactStore) -> StoreStatus:
    """Sizes by kind, records, registered runs and what they refer to."""
    files, sizes = Counter[str](), Counter[str]()
    for path in _files(store.root / "objects"):
        kind = path.relative_to(store.root / "objects").parts[0]
        files[kind] += 1
        sizes[kind] += path.stat().st_size
    runs = _runs(store)
    referred = {path for run in runs.values() for path in run["paths"]}
    present = [store.root / path for path in referred]
    return StoreStatus(
        root=str(store.root),
        size_bytes=sum(path.stat().st_size for path in _files(store.root)),
        files_by_kind=dict(sorted(files.items())),
        bytes_by_kind=dict(sorted(sizes.items())),
        temporary_files=sum(path.name.endswith(TEMPORARY_SUFFIX) for path in _files(store.root)),
        records=sum(1 for _ in _files(store.root / "records")),
        runs=len(runs),
        referred_bytes=sum(path.stat().st_size for path in present if path.is_file()),
    )


def prune_store(
    store: ArtifactStore,
    *,
    keep_days: float,
    max_bytes: int | None = None,
    dry_run: bool = False,
    now: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> PruneReport:
    """Remove what no run of the last `keep_days` refers to; the oldest runs go first until `max_bytes` is met.

    Files younger than `grace_seconds` stay, so that a run in progress loses nothing. Records and lock files of that age
    go with them: a record whose artifact is gone is dropped on its next use anyway.
    """
    now = time.time() if now is None else now
    runs = {key: run for key, run in _runs(store).items() if now - run["time"] <= keep_days * DAY_SECONDS}
    if max_bytes is not None:
        runs = _within(store, runs, max_bytes)
    referred = {path for run in runs.values() for path in run["paths"]}
    removed: list[Path] = []
    kept_bytes = 0
    removed_bytes = 0
    for path in sorted(_files(store.root)):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        relative = path.relative_to(store.root).as_posix()
        if now - stat.st_mtime < grace_seconds or not _may_go(relative, referred, runs):
            kept_bytes += stat.st_size
            continue
        removed.append(path)
        removed_bytes += stat.st_size
        if not dry_run:
            path.unlink(missing_ok=True)
    removed_runs = sum("/runs/" in f"/{path.relative_to(store.root).as_posix()}" for path in removed)
    return PruneReport(len(removed), removed_bytes, kept_bytes, removed_runs, dry_run)


def _may_go(relative: str, referred: set[str], runs: Mapping[str, Any]) -> bool:
    top, _, rest = relative.partition("/")
    if relative.endswith(TEMPORARY_SUFFIX):
        return True
    if top == "objects":
        return relative not in referred
    if top == "index" and rest.startswith("runs/"):
        return Path(relative).stem not in runs
    return top == "locks"


def _within(store: ArtifactStore, runs: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """The newest runs whose artifacts together take at most `max_bytes`."""
    kept: dict[str, Any] = {}
    paths: set[str] = set()
    total = 0
    for key, run in sorted(runs.items(), key=lambda item: -float(item[1]["time"])):
        new = set(run["paths"]) - paths
        size = sum((store.root / path).stat().st_size for path in new if (store.root / path).is_file())
        if total + size > max_bytes:
            break
        kept[key] = run
        paths |= new
        total += size
    return kept


def _runs(store: ArtifactStore) -> dict[str, Any]:
    found: dict[str, Any] = defaultdict(dict)
    for path in _files(store.root / "index" / "runs"):
        if path.suffix == ".json":
            try:
                found[path.stem] = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
    return dict(found)


def _files(root: Path) -> Iterable[Path]:
    return (path for path in root.rglob("*") if path.is_file()) if root.is_dir() else ()
