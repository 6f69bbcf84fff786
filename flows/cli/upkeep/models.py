"""Commands model list, compare, promote, rollback: the shelf of models that are in use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_contracts.earlier_versions import REMOVED_KEYS
from data_contracts.errors import ArtifactError
from data_contracts.results import HEADLINES, CategoryMetrics, MetricValues
from flows.cli.next_steps import say_next
from flows.cli.printing import print_json, print_table
from pipeline_lib.configuration.files import load_run_config
from pipeline_lib.inspection.shelf import ShelvedModel, list_models, promote, rollback
from pipeline_lib.models.model_file import CURRENT, read_metrics
from pipeline_lib.results.tables import headline_cells, per_cent


def shelf_of(models: Path | None) -> Path:
    """--models, else $FEDPATCH_MODELS, else ./models."""
    return models or Path(os.environ.get("FEDPATCH_MODELS") or "models")


def show_models(shelf: Path, *, as_json: bool) -> None:
    """A row a model; the one in use is marked."""
    found = list_models(shelf)
    if as_json:
        print_json([_summary(model) for model in found])
    elif not found:
        print(f"no models in {shelf}; put one there with fedpatch model promote RUN_DIR")
    else:
        print_table([_row(model) for model in found], f"{shelf} (per cent, means over categories, all of test)")


def promote_run(run_directory: Path, shelf: Path, *, as_json: bool) -> None:
    """Put a run on the shelf and point to it."""
    _say(shelf, {"current": promote(run_directory, shelf)}, as_json=as_json)


def roll_back(shelf: Path, *, as_json: bool) -> None:
    """Point to the model before."""
    before, now = rollback(shelf)
    _say(shelf, {"current": now, "before": before}, as_json=as_json)


def compare_models(first: Path, second: Path, shelf: Path, *, as_json: bool) -> None:
    """Metrics and thresholds of two models by category, and the settings in which they differ."""
    models = [_directory(name, shelf) for name in (first, second)]
    documents = [read_metrics(directory) for directory in models]
    rows = []
    for directory, document in zip(models, documents, strict=True):
        if document is None:
            raise ArtifactError(f"{directory} has no metrics.json that can be read")
        rows += [{"category": c, "model": directory.name, **_measures(v)} for c, v in document.categories.items()]
    rows.sort(key=lambda row: str(row["category"]))
    one, other = (_settings(directory) for directory in models)
    differing = _differences(one, other)
    if as_json:
        print_json({"metrics": rows, "settings": differing})
        return
    print_table(rows, "per cent [95 % interval], all test images")
    for key, (here, there) in differing.items():
        print(f"{key}: {here} | {there}")
    say_next("model compare", run=second)


def _settings(directory: Path) -> dict[str, Any]:
    """All settings of a run by section; keys that are gone as they were, without a section."""
    config, removed = load_run_config(directory)
    still_done = {f"{section}.{key}": value for (section, key), value in REMOVED_KEYS.items()}
    return config.model_dump(mode="json") | still_done | removed


def _directory(name: Path, shelf: Path) -> Path:
    for directory in (name, shelf / name):
        if (directory / "model.json").is_file():
            return directory.resolve()
    raise ArtifactError(f"there is no model {name}, neither a run directory nor one in {shelf}")


def _measures(values: CategoryMetrics) -> dict[str, Any]:
    decision = values.decision
    return {
        **headline_cells(values),
        "threshold": None if decision is None or decision.threshold is None else f"{decision.threshold:.4g}",
        "good flagged": None if decision is None else per_cent(decision.realised_rate, decision.realised_ci95),
        "defective found": None if decision is None else per_cent(decision.found_rate, decision.found_ci95),
    }


def _differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys with different values, without those that say where a run lay."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(set(one) | set(other)):
        name = f"{prefix}{key}"
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= _differences(a, b, f"{name}.")
        elif a != b and not name.startswith("runtime."):
            found[name] = (a, b)
    return found


def _row(model: ShelvedModel) -> dict[str, Any]:
    mean = model.metrics.mean if model.metrics else MetricValues()
    return {
        "model": model.model_id,
        "in use": "yes" if model.is_current else "",
        "since (UTC)": model.promoted,
        **{metric.title: per_cent(metric.of(mean)) for metric in HEADLINES},
        "categories": len(model.metrics.categories) if model.metrics else None,
    }


def _summary(model: ShelvedModel) -> dict[str, Any]:
    return {
        "model": model.model_id,
        "directory": str(model.directory),
        "current": model.is_current,
        "promoted": model.promoted,
        "mean": model.metrics.mean.model_dump(mode="json") if model.metrics else None,
    }


def _say(shelf: Path, value: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json(value)
        return
    instead = f", instead of {value['before']}" if "before" in value else ""
    print(f"in use: {value['current']}{instead}")
    say_next("in use", current=shelf / CURRENT)
