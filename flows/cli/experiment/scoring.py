"""Command score: a trained model on new images."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from data_contracts.errors import FedpatchError
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from flows.cli.progress import show_progress
from pipeline_lib.dataset.image_files import LeftOut
from pipeline_lib.inspection.decisions import TRAINED_ON, common_folder, counted, find_images, trained_on, urgency
from pipeline_lib.inspection.known_images import told
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.inspection.session import ScoreSession


def score_images(
    model: RunModel, paths: list[Path], category: str | None, out: Path | None, *, explain: bool, as_json: bool
) -> None:
    """Score a batch and print a table or JSON. Exit status 1 when every image is refused, 0 otherwise."""
    left_out = LeftOut()
    images = find_images(paths, out=out, left_out=left_out)
    if not images:
        line = left_out.describe()
        raise FedpatchError(f"no image files below {', '.join(map(str, paths))}{f'; {line}' if line else ''}")
    if line := left_out.describe():
        print(f"fedpatch: {line}", file=sys.stderr)
    session = ScoreSession(model, category=category, out=out, explained=explain)
    found, advice = [], []
    with show_progress("images scored", quiet=as_json) as progress:
        for decision in session.score(images):
            found.append(decision.summary())
            advice.append(decision.advice)
            _say_refused(found[-1])
            progress(len(found), len(images))
    categories = sorted({str(one["category"]) for one in found if "reason" not in one})
    if as_json:
        print_json(found)
        for text in _warnings(model, found, categories):
            print(f"fedpatch: {text}", file=sys.stderr)
    else:
        folder = common_folder([str(one["path"]) for one in found])
        rows = [one | {"advice": text} for one, text in zip(found, advice, strict=True) if "reason" not in one]
        print_table(
            [_row(one, folder) for one in sorted(rows, key=urgency)], f"{folder or 'images'}, by {model.directory}"
        )
        print(counted(Counter(advice)))
        for category in categories:
            for line in told(model, category):
                print(line)
        for text in _warnings(model, found, categories):
            print(f"warning: {text}")
        if out is not None:
            print(f"decisions: {session.decisions_file}")
            print(f"page:      {session.page_file}")
            say_next("score", page=session.page_file or out)
        else:
            say_next("score, nowhere", run=model.directory)
    if all("reason" in one for one in found):
        raise SystemExit(1)


def watch_folder(
    model: RunModel, directory: Path, category: str | None, out: Path | None, *, explain: bool, as_json: bool
) -> None:
    """Score images as they come; one line (with --json one JSON object) each, until Ctrl-C."""
    session = ScoreSession(model, category=category, out=out, explained=explain)
    if not as_json:
        print(f"watching {directory}; Ctrl-C ends it", file=sys.stderr)
    with suppress(KeyboardInterrupt), closing(session.watch(directory)) as decisions:
        seen: set[object] = set()
        for summary, advice in ((decision.summary(), decision.advice) for decision in decisions):
            if "reason" not in summary and summary["category"] not in seen:
                seen.add(summary["category"])
                for text in model.shortfalls([str(summary["category"])]):
                    print(f"fedpatch: {text}", file=sys.stderr)
            if as_json:
                print(json.dumps(summary, ensure_ascii=False), flush=True)
            elif "reason" in summary:
                _say_refused(summary)
            else:
                print("  ".join(str(value) for value in _row(summary | {"advice": advice}).values()), flush=True)


def _row(summary: dict[str, object], folder: str = "") -> dict[str, object]:
    score, threshold = summary["score"], summary["threshold"]
    return {
        "advice": summary["advice"],
        "score": f"{score:.4g}",
        "threshold": None if threshold is None else f"{threshold:.4g}",
        "category": summary["category"],
        "image": str(summary["path"]).removeprefix(f"{folder}/" if folder else ""),
        "note": str(summary.get("note", "")).split(":")[0],
    }


def _warnings(model: RunModel, found: list[dict[str, Any]], categories: list[str]) -> list[str]:
    n_trained_on = sum(one.get("note", "").startswith(TRAINED_ON) for one in found)
    return [*filter(None, [trained_on(n_trained_on)]), *model.shortfalls(categories)]


def _say_refused(summary: dict[str, object]) -> None:
    if "reason" in summary:
        print(f"fedpatch: refused {summary['path']}: {summary['reason']}", file=sys.stderr)
