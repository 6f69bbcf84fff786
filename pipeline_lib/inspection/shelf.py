"""Models that are in use: a directory of copies of run directories, and a pointer to the one that scores.

::

    models/<id>/            what scoring needs of a run: model.json, banks, thresholds, configuration, metrics
    models/current          a link to the one in use: fedpatch score models/current IMAGES...
    models/history.json     what was promoted when; written before the link is moved

There is no service: whoever can write the directory can promote.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.errors import ArtifactError, FedpatchError
from data_contracts.results import MetricsDocument
from pipeline_lib.models.model_file import (
    COLOUR_SCALES_FILE,
    CURRENT,
    GROUPS_FILE,
    MODEL_FILE,
    PROVENANCE_DIRECTORY,
    SCORES_FILE,
    read_metrics,
    read_model_file,
)
from pipeline_lib.storage.artifact_store import write_file
from pipeline_lib.storage.files import safe_name, write_json_file

HISTORY = "history.json"
FILES = ("config.yaml", "calibration.parquet", "dataset_index.parquet", "metrics.json", "metrics_report.json",
         "environment.json", "report.html", SCORES_FILE, GROUPS_FILE, COLOUR_SCALES_FILE)  # fmt: skip
DIRECTORIES = ("banks", PROVENANCE_DIRECTORY)


@dataclass(frozen=True)
class ShelvedModel:
    """One model on the shelf."""

    model_id: str
    directory: Path
    is_current: bool
    promoted: str  # when, UTC
    metrics: MetricsDocument | None


def list_models(shelf: Path) -> list[ShelvedModel]:
    """All models, the last promoted first. Empty where there is no shelf yet."""
    current, when = current_id(shelf), {entry["model_id"]: entry["at"] for entry in _history(shelf)}
    directories = [path.parent for path in shelf.glob(f"*/{MODEL_FILE}") if path.parent.name != CURRENT]
    found = [ShelvedModel(d.name, d, d.name == current, when.get(d.name, ""), read_metrics(d)) for d in directories]
    return sorted(found, key=lambda model: (model.promoted, model.model_id), reverse=True)


def promote(run_directory: Path, shelf: Path) -> str:
    """Copy what scoring needs of a run onto the shelf and point to it; returns its id.

    A model that is on the shelf already (by id or directory) is pointed to again. Raises ArtifactError for a run
    without a model or with a damaged file; the pointer then stays where it was.
    """
    known = {model.model_id for model in list_models(shelf)}
    if run_directory.resolve().parent == shelf.resolve() and run_directory.resolve().name in known:
        model_id = run_directory.resolve().name
    elif not run_directory.exists() and str(run_directory) in known:
        model_id = str(run_directory)
    else:
        model_id = _copy(run_directory, shelf)
    check_model(shelf / model_id)
    _point(shelf, model_id, "promote")
    return model_id


def rollback(shelf: Path) -> tuple[str, str]:
    """Point to the model that was in use before; returns (id that was in use, id that is in use now).

    Raises FedpatchError where there is none, or where it was removed.
    """
    stack = _stack(_history(shelf))
    if len(stack) < 2:
        raise FedpatchError(f"{shelf} has no earlier model to go back to; fedpatch model list shows what it has")
    before, target = stack[-1], stack[-2]
    check_model(shelf / target)
    _point(shelf, target, "rollback")
    return before, target


def current_id(shelf: Path) -> str | None:
    """The id of the model in use."""
    link = shelf / CURRENT
    return os.readlink(link) if link.is_symlink() else None


def check_model(directory: Path) -> None:
    """Raise ArtifactError unless the model, all its banks and its calibration scores are intact."""
    read_model_file(directory)
    from pipeline_lib.inspection.run_model import open_run_model  # with torch, which the shelf's list does without

    model = open_run_model(directory)
    for bank in model.saved.banks:
        model.saved.bank_rows(bank)


def _copy(run_directory: Path, shelf: Path) -> str:
    check_model(run_directory)
    content = (run_directory / MODEL_FILE).read_bytes()
    metrics = read_metrics(run_directory)
    name = safe_name(metrics.experiment if metrics else run_directory.resolve().name)
    model_id = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"
    target = shelf / model_id
    if not target.exists():
        unfinished = shelf / f".{model_id}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in FILES:
            if (run_directory / file).is_file():
                shutil.copyfile(run_directory / file, unfinished / file)
        for directory in DIRECTORIES:
            if (run_directory / directory).is_dir():
                shutil.copytree(run_directory / directory, unfinished / directory)
        write_file(unfinished / MODEL_FILE, content)
        unfinished.replace(target)
    return model_id


def _point(shelf: Path, model_id: str, action: str) -> None:
    entry = {"model_id": model_id, "action": action, "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")}
    write_json_file(shelf / HISTORY, [*_history(shelf), entry])
    temporary = shelf / f".{CURRENT}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(model_id)
    temporary.replace(shelf / CURRENT)


def _history(shelf: Path) -> list[dict[str, Any]]:
    path = shelf / HISTORY
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_bytes())
        return [{key: str(entry[key]) for key in ("model_id", "action", "at")} for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); mend or remove it, {shelf / CURRENT} still works") from error


def _stack(history: list[dict[str, Any]]) -> list[str]:
    """Models in use, oldest first, as rollbacks left them; the same twice in a row counts once."""
    stack: list[str] = []
    for entry in history:
        if entry["action"] == "rollback":
            stack = stack[:-1]
        elif not stack or stack[-1] != entry["model_id"]:
            stack.append(entry["model_id"])
    return stack
