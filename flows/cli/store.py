"""Commands on the artifact store: status, prune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.cli.printing import print_json, print_table
from pipeline_lib.artifact_store import ArtifactStore
from pipeline_lib.store_retention import prune_store, store_status


def show_status(root: Path | None, *, as_json: bool) -> None:
    """What the store holds."""
    status = store_status(ArtifactStore(root))
    if as_json:
        print_json(asdict(status))
        return
    rows = [
        {"kind": kind, "files": number, "MB": f"{status.bytes_by_kind[kind] / 1e6:.1f}"}
        for kind, number in status.files_by_kind.items()
    ]
    print_table(rows, f"{status.root}: {status.size_bytes / 1e6:.1f} MB")
    print(
        f"{status.runs} runs refer to {status.referred_bytes / 1e6:.1f} MB; {status.records} records, "
        f"{status.temporary_files} temporary files"
    )


def prune(
    root: Path | None,
    keep_days: float,
    unfinished_days: float,
    max_gb: float | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what is not needed any more."""
    report = prune_store(
        ArtifactStore(root),
        keep_days=keep_days,
        unfinished_days=unfinished_days,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        dry_run=dry_run,
    )
    if as_json:
        print_json(asdict(report))
        return
    verb = "would remove" if dry_run else "removed"
    print(
        f"{verb} {report.removed_files} files ({report.removed_bytes / 1e6:.1f} MB) and {report.removed_runs} runs; "
        f"{report.kept_bytes / 1e6:.1f} MB stay"
    )
