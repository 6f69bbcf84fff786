"""Task that scores new images with a finished run."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.inspection import decisions, run_model
from pipeline_lib.inspection import session as score_session
from tasks.progress import progress_log
from tasks.stage import step


@step("score-paths")
def score_paths(
    model: Path, paths: list[Path], out: Path, category: str | None, explain: bool, target_rate: float | None
) -> list[dict[str, object]]:
    """Decisions of all images at `paths`, as JSON; page, tables and pictures go to `out`."""
    session = score_session.ScoreSession(
        run_model.open_run_model(model, target_rate=target_rate), category=category, out=out, explained=explain
    )
    images = decisions.find_images(paths, out=out)
    progress = progress_log("images scored")
    summaries = []
    for number, decision in enumerate(session.score(images), start=1):
        summaries.append(decision.summary())
        progress(number, len(images))
    return summaries
