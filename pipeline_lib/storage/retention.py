"""What the artifact store holds, and what may go: a run registers what it refers to, the rest ages out by last use."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.manifests import Manifest
from data_contracts.numbers import require_number
from pipeline_lib.storage.artifact_store import TEMPORARY_SUFFIX, ArtifactStore
from pipeline_lib.storage.file_lock import remove_if_unlocked
from pipeline_lib.storage.references import RECIPE_SUFFIX, image_manifests

GRACE_SECONDS = 6 * 3600.0
DAY_SECONDS = 86_400.0
UNFINISHED_DAYS = 7.0  # how long a failed run can be retried without redoing its finished clients
RUNS = "index/runs/"
NOTES = ("records/", "index/")  # what names artifacts


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
    """Note which artifacts a finished run refers to; image features behind its patch features count, and recipes."""
    paths = set()
    for manifest in manifests:
        paths.add(manifest.path)
        if manifest.kind == "patch_features":
            images = [image.path for image in image_manifests(store.read_table(manifest))]
            recipes = [path + RECIPE_SUFFIX for path in images]
            paths.update(images, (recipe for recipe in recipes if (store.root / recipe).is_file()))
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
    unfinished_days: float = UNFINISHED_DAYS,
    max_bytes: int | None = None,
    dry_run: bool = False,
    now: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> PruneReport:
    """Remove artifacts that are not needed any more; age is the time since they were last written, read or reused.

    What a run of the last `keep_days` refers to stays. What no registered run refers to, such as the finished clients
    of a run that failed and may be retried, stays for `unfinished_days`. With `max_bytes` the artifacts together take
    at most that much: those of no run go first, the longest unused before the others, then the oldest runs. Records go
    with their artifacts. Nothing used within `grace_seconds` goes, so that a run in progress loses nothing, and no lock
    that is held. Raises ConfigError for days or bytes below 0.
    """
    require_number("keep_days", keep_days, at_least=0)
    require_number("unfinished_days", unfinished_days, at_least=0)
    if max_bytes is not None:
        require_number("max_bytes", max_bytes, at_least=0)
    now = time.time() if now is None else now
    files = _sizes_and_ages(store.root, now)
    registered = _runs(store)
    runs = {key: run for key, run in registered.items() if now - run["time"] <= keep_days * DAY_SECONDS}
    if max_bytes is not None:
        runs = _within(files, runs, max_bytes)
    referred = {path for run in runs.values() for path in run["paths"]}
    of_old_runs = {path for key, run in registered.items() if key not in runs for path in run["paths"]} - referred
    loose = {path for path in files if path.startswith("objects/")} - referred
    going = {p for p in loose if p in of_old_runs or files[p].age >= unfinished_days * DAY_SECONDS}
    if max_bytes is not None:
        kept = sum(files[path].size for path in referred if path in files)
        going |= _beyond({path: files[path] for path in loose - going}, max_bytes - kept)
    going = {path for path in going if files[path].age >= grace_seconds}
    old = {path for path, file in files.items() if file.age >= grace_seconds} - loose - referred
    old_runs = {path for path in old if path.startswith(RUNS) and Path(path).stem not in runs}
    going |= old_runs | {path for path in old if path.endswith(TEMPORARY_SUFFIX)}
    present = set(files) - going
    present |= {path.removesuffix(RECIPE_SUFFIX) for path in present}
    notes = {path for path in old - old_runs if path.startswith(NOTES) and not path.startswith(RUNS)}
    going |= {path for path in notes if _lacks_artifacts(store.root / path, present)}
    locks = {path for path in old if path.startswith("locks/")}
    if not dry_run:
        for path in going:
            (store.root / path).unlink(missing_ok=True)
        locks = {path for path in locks if remove_if_unlocked(store.root / path)}
    going |= locks
    removed_bytes = sum(files[path].size for path in going)
    kept_bytes = sum(file.size for file in files.values()) - removed_bytes
    return PruneReport(len(going), removed_bytes, kept_bytes, len(old_runs), dry_run)


@dataclass(frozen=True)
class _File:
    size: int
    age: float  # seconds since its last use


def _sizes_and_ages(root: Path, now: float) -> dict[str, _File]:
    """Every file of the store by its path below the root."""
    found = {}
    for path in sorted(_files(root)):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found[path.relative_to(root).as_posix()] = _File(stat.st_size, now - stat.st_mtime)
    return found


def _within(files: Mapping[str, _File], runs: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """The newest runs whose artifacts together take at most `max_bytes`."""
    kept: dict[str, Any] = {}
    paths: set[str] = set()
    total = 0
    for key, run in sorted(runs.items(), key=lambda item: -float(item[1]["time"])):
        new = set(run["paths"]) - paths
        size = sum(files[path].size for path in new if path in files)
        if total + size > max_bytes:
            break
        kept[key] = run
        paths |= new
        total += size
    return kept


def _beyond(files: Mapping[str, _File], max_bytes: int) -> set[str]:
    """What is too much, the longest unused first."""
    total = sum(file.size for file in files.values())
    too_much = set()
    for path in sorted(files, key=lambda path: -files[path].age):
        if total <= max_bytes:
            break
        too_much.add(path)
        total -= files[path].size
    return too_much


def _lacks_artifacts(note: Path, present: set[str]) -> bool:
    """Whether a record or an index entry names an artifact that is not there, or cannot be read."""
    try:
        named = set(_artifact_paths(json.loads(note.read_bytes())))
    except (OSError, ValueError):
        return True
    return not named <= present


def _artifact_paths(value: Any) -> Iterator[str]:
    """The artifact paths anywhere in a JSON value, also in strings that hold JSON, as Prefect's records do."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _artifact_paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from _artifact_paths(item)
    elif isinstance(value, str):
        if value.startswith("objects/"):
            yield value
        elif value[:1] in ("{", "["):
            try:
                yield from _artifact_paths(json.loads(value))
            except ValueError:
                return


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
