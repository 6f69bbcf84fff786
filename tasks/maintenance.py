"""Tasks that keep the artifact store and the place that stations share small."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from pipeline_lib.stations.exchange import open_exchange
from pipeline_lib.stations.retention import prune_exchange
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.storage.retention import prune_store
from tasks.stage import step


@step("prune-store")
def prune_artifacts(store: Path, keep_days: float, unfinished_days: float, max_gb: float | None) -> str:
    """Remove what is not needed any more, and say how much that was."""
    report = prune_store(
        ArtifactStore(store),
        keep_days=keep_days,
        unfinished_days=unfinished_days,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
    )
    text = (
        f"{store}: removed {report.removed_files} files ({report.removed_bytes / 1e6:.1f} MB) and "
        f"{report.removed_runs} registered runs, kept {report.kept_bytes / 1e6:.1f} MB"
    )
    create_markdown_artifact(key="store-prune", markdown=text)
    return text


@step("prune-shared-place")
def prune_shared_place(keep_days: float) -> str:
    """Remove the runs of stations to which nobody wrote for `keep_days` from $FEDPATCH_EXCHANGE, and say which."""
    report = prune_exchange(open_exchange(), keep_days=keep_days)
    text = report.describe()
    create_markdown_artifact(key="shared-place-prune", markdown=text)
    return text
