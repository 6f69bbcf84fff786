"""Commands on the artifact store and the place that stations share: status, show, prune."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.errors import ArtifactError, PlaceError
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from pipeline_lib.stations.exchange import ROUND_PREFIX, Exchange, open_exchange
from pipeline_lib.stations.retention import prune_exchange, shared_files
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.retention import prune_store, store_status


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
    say_next("store status")


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


def show_shared(url: str | None, sender: str | None, *, as_json: bool) -> None:
    """What each station, or one, has put into the shared place. Raises PlaceError without that place."""
    exchange = _shared_place(url)
    found = [one for one in shared_files(exchange) if sender in (None, one.sender)]
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        {
            "written (UTC)": datetime.fromtimestamp(one.written, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "from": one.sender,
            "what": one.kind,
            "files": one.files,
            "MB": f"{one.size_bytes / 1e6:.2f}",
            "round": one.round.removeprefix(ROUND_PREFIX).lstrip("0"),
            "run": one.run_id,
        }
        for one in found
    ]
    of = "" if sender is None else f" of {sender}"
    print_table(rows, f"{exchange.url}: {sum(one.size_bytes for one in found) / 1e6:.2f} MB{of}")


def _shared_place(url: str | None) -> Exchange:
    exchange = Exchange(url) if url else open_exchange()
    if exchange.is_directory and not Path(exchange.root).is_dir():
        raise PlaceError(f"the shared place: there is no directory {exchange.root}")
    return exchange


def prune_shared(url: str | None, keep_days: float, *, dry_run: bool, as_json: bool) -> None:
    """Remove runs that are over. Raises PlaceError without that place, ArtifactError where one could not be removed."""
    exchange = _shared_place(url)
    report = prune_exchange(exchange, keep_days=keep_days, dry_run=dry_run)
    if as_json:
        print_json(asdict(report))
    else:
        rows = [
            {"run": run.run_id, "files": run.files, "MB": f"{run.size_bytes / 1e6:.1f}", "days": f"{run.idle_days:.1f}"}
            | {"": "goes" if run in report.removed else "stays"}
            for run in [*report.removed, *report.kept]
        ]
        if rows:
            print_table(rows, "runs in the shared place")
        print(report.describe())
        if report.foreign:
            print(f"not of a run, not touched: {', '.join(report.foreign)}")
    if report.failed:
        raise ArtifactError("; ".join(f"{run} could not be removed: {cause}" for run, cause in report.failed.items()))
